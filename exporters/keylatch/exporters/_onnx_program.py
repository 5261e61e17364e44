"""From a PyTorch module to an ONNX graph in memory."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import onnx_ir as ir
import torch
from torch import nn

from keylatch.errors import ExportError
from keylatch.locks import InputSpec, LockedModule

Precision = Literal["float32", "float16", "bfloat16"]

INPUT_NAME = "image"
_BATCH = 2  # a batch of 1 would be taken for a constant
_WRAPPED = "network."


class _FlatOutputs(nn.Module):
    """A network with a flat tuple of outputs; floats leave as float32, whatever the network computes in.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if isinstance(self.network, LockedModule):
            outputs = self.network.flat(image)
        else:
            outputs = tuple(leaf for leaf in torch.utils._pytree.tree_leaves(self.network(image)) if leaf is not None)
        return tuple(output.float() if output.is_floating_point() else output for output in outputs)


class InPrecision(nn.Module):
    """A copy of a network that computes in another precision, with float32 images and outputs, as `export` does it.

    Args:
        network: In float32.
        precision: Another one.
    """

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.dtype: torch.dtype = getattr(torch, precision)
        self.network = copy.deepcopy(network).to(self.dtype)

    def forward(self, image: torch.Tensor) -> Any:
        """The network's return value, for (N, *spec.shape)."""
        return self.network(image.to(self.dtype))


def to_onnx(
    network: nn.Module, spec: InputSpec, output_names: tuple[str, ...], *, opset: int | None = None
) -> ir.Model:
    """Export a network with a free batch dimension.

    Initializers have the names of the parameters and buffers they come from.

    Args:
        network: In evaluation mode.
        spec: Its input convention.
        output_names: One for each output tensor.
        opset: ONNX operator set; default: the exporter's.

    Raises:
        ExportError: If torch.onnx cannot export the network.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    example = torch.zeros((_BATCH, *spec.shape), dtype=spec.torch_dtype, device=device)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _FlatOutputs(network),
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=[INPUT_NAME],
                output_names=list(output_names),
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise ExportError(
            f"torch.onnx cannot export this network: {type(error).__name__}: {first}",
            hint="try another opset, or replace the operator that the message names",
        ) from error
    model: ir.Model = program.model  # type: ignore[union-attr]
    _unwrap_names(model)
    _strip_traces(model)
    return model


def _unwrap_names(model: ir.Model) -> None:
    for value in list(model.graph.initializers.values()):
        if value.name is not None and value.name.startswith(_WRAPPED):
            value.name = value.name.removeprefix(_WRAPPED)


def _strip_traces(model: ir.Model) -> None:
    """Remove what the exporter notes beside each node: class names, source lines and paths of whoever exports."""
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about optional packages and its own internals off the user's terminal."""
    logger: Any = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
