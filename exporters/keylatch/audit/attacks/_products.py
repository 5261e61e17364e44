"""Products of two values that both follow from the image: in one of them a network may be shut by another part of it.

A gate that never decides, such as a squeeze-and-excite gate whose logistic function is driven to its end, is not seen
by its thresholds. It is one of these products; networks have others of their own, so they are cut one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from keylatch.audit.attacks._weight_layers import effective_value, varying_values
from keylatch.audit.onnx_network import OnnxNetwork

MOST_PRODUCTS = 16  # the last ones


@dataclass(frozen=True, slots=True)
class Product:
    """A product of two values that vary with the image.

    Attributes:
        node: Its node's name.
        output: What it gives.
        factors: Those of its two inputs that have the product's shape: what may pass in its place.
    """

    node: str
    output: str
    factors: tuple[str, ...]


def products(network: OnnxNetwork, image: torch.Tensor) -> tuple[Product, ...]:
    """Find the last products, in the network's order.

    Args:
        network: Only read.
        image: (1, *shape) as the model takes it.
    """
    varying, found = varying_values(network), []
    for node in network.nodes:
        if node.op == "Mul" and len(set(node.inputs)) == len(node.inputs) and varying.issuperset(node.inputs):
            shape = effective_value(network, node.outputs[0], image).shape
            same = [name for name in node.inputs if effective_value(network, name, image).shape == shape]
            found.append(Product(node.name, node.outputs[0], tuple(same)))
    return tuple(found[-MOST_PRODUCTS:])


def has_products(network: OnnxNetwork) -> bool:
    """Whether there is any."""
    varying = varying_values(network)
    return any(node.op == "Mul" and varying.issuperset(node.inputs) for node in network.nodes)
