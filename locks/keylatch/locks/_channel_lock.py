"""Permuted feature maps as a lock, for segmentation and detection (arXiv 2206.05422)."""

from __future__ import annotations

import torch
from torch import fx, nn

from keylatch.errors import LockError
from keylatch.locks._capture import capture, drop_unused, flat_tensors
from keylatch.locks._channel_key import ChannelKey
from keylatch.locks._fold_batch_norm import CONV2D
from keylatch.locks._gate_sites import multiply_adds_of
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._lock_proof import CHECK_IMAGES, device_of, images_for, prove
from keylatch.locks._locked import Locked
from keylatch.locks._locked_module import LockedModule, channel_key_name
from keylatch.locks._report import ChannelReport, LockReport
from keylatch.locks._sealing import find_layers
from keylatch.locks._secret import LockSecret


def channel_lock(model: nn.Module, spec: InputSpec, key: ChannelKey) -> Locked:
    """Lock a network that was trained with permuted feature maps.

    Args:
        model: As `fine_tune` gives it for this key. In evaluation mode; it is copied, not changed.
        spec: Size and value range of its images.
        key: The key.

    Returns:
        The locked module, its secret and a report.

    Raises:
        LockError: If the network has not the key's layers, uses one twice, or does not care for the key.
    """
    images = images_for(spec, None).to(device_of(model))[:CHECK_IMAGES]
    graph, outputs = capture(model, spec)
    with torch.no_grad(), key.applied(model):
        reference = [tensor.clone() for tensor in flat_tensors(model(images))]
    multiply_adds = multiply_adds_of(graph)
    ordered = _insert(graph, key)
    channels = tuple(zip(ordered.layers, ordered.sizes, strict=True))
    module = LockedModule(spec, drop_unused(graph), outputs, channels=channels)
    secret = LockSecret.of_channels(ordered)
    errors = prove(module, secret, images, reference)
    parameters = sum(layer.parameters for layer in find_layers(graph))
    report = ChannelReport(ordered.layers, ordered.sizes, ordered.log2_key_space)
    return Locked(module, secret, LockReport((), 0, 0.0, multiply_adds, *errors, parameters, channels=report))


def _insert(graph: fx.GraphModule, key: ChannelKey) -> ChannelKey:
    """Put a permutation in front of each layer; gives the key in the graph's order."""
    keys = dict(zip(key.layers, key.permutations, strict=True))
    places = {f"{layer}.weight": layer for layer in keys}
    found = [node for node in graph.graph.nodes if node.target is CONV2D and str(node.args[1].target) in places]
    layers = tuple(places[str(node.args[1].target)] for node in found)
    if sorted(layers) != sorted(keys):
        odd = next(layer for layer in keys if layers.count(layer) != 1)
        raise LockError(
            f"the network runs layer {odd} {layers.count(odd)} times, expected once",
            hint="draw the key for layers that are run once",
        )
    for index, (node, layer) in enumerate(zip(found, layers, strict=True)):
        name, device = channel_key_name(index), device_of(graph)
        graph.register_buffer(name, torch.arange(len(keys[layer]), device=device))
        with graph.graph.inserting_before(node):
            order = graph.graph.get_attr(name)
            moved = graph.graph.call_function(torch.ops.aten.index_select.default, (node.args[0], 1, order))
        node.args = (moved, *node.args[1:])
    graph.graph.lint()
    graph.recompile()
    return ChannelKey(layers, tuple(keys[layer] for layer in layers))
