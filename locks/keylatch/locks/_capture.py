"""Capture a network as a plain, editable graph."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from keylatch.errors import LockError
from keylatch.locks._input_spec import InputSpec

TRACING_BATCH = 2  # a batch of 1 would be taken for a constant


@dataclass(frozen=True, slots=True)
class OutputLayout:
    """How the flat outputs of a graph make up what the network returns.

    Attributes:
        names: One for each output tensor, the names of the ONNX outputs.
        kind: ``tensor``, ``tuple``, or ``mapping`` (dicts and dataclasses such as ModelOutput).
        spec: The exact structure, where it is known; without it a mapping comes back as a dict.
    """

    names: tuple[str, ...]
    kind: str
    spec: Any = None

    def __deepcopy__(self, memo: object) -> OutputLayout:
        # Immutable; and copying a TreeSpec warns (torch 2.13), which would reach whoever copies a locked module.
        del memo
        return self

    def pack(self, flat: tuple[torch.Tensor, ...]) -> Any:
        """The network's own return value from its flat outputs."""
        if self.spec is not None:
            return pytree.tree_unflatten(flat, self.spec)
        if self.kind == "tensor":
            return flat[0]
        return dict(zip(self.names, flat, strict=True)) if self.kind == "mapping" else tuple(flat)


def flat_tensors(output: Any) -> tuple[torch.Tensor, ...]:
    """The tensors of a network's return value, in order."""
    return tuple(leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor))


@contextmanager
def without_torch_warnings() -> Iterator[None]:
    """Keep torch.export's warnings about its own internals, which no caller can act on, from the caller."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def capture(model: nn.Module | torch.export.ExportedProgram, spec: InputSpec) -> tuple[fx.GraphModule, OutputLayout]:
    """Capture a network as a graph `(image) -> tuple of tensors` with a free batch dimension.

    The graph has copies of all weights; the given model is not changed.

    Args:
        model: A module in evaluation mode whose one positional input is an image batch, or its exported program.
        spec: The input convention.

    Raises:
        LockError: If torch.export cannot trace the model, or the batch dimension is fixed.
    """
    program = model if isinstance(model, torch.export.ExportedProgram) else _export(model, spec)
    _require_image_batch(program, spec)
    return _with_tensor_outputs(as_plain_graph(program), program.call_spec.out_spec)


def as_plain_graph(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """A program as an ordinary graph module with flat inputs and outputs and weights of its own."""
    with without_torch_warnings():
        unlifted = copy.deepcopy(program.module(check_guards=False))
    if not isinstance(unlifted, fx.GraphModule):
        raise LockError("the exported program has no graph", hint="export it again with torch.export.export")
    unlifted.graph.set_codegen(fx.graph.CodeGen())  # no pytree wrapping
    _free_dtypes(unlifted.graph)
    return fx.GraphModule(unlifted, unlifted.graph)


def _free_dtypes(graph: fx.Graph) -> None:
    """Remove what ties a graph to the dtype and device it was traced with: a locked module may be moved and cast.

    Each `.to()` in a network leaves an assertion, and a cast that does nothing where the dtype is the weights' own.
    """
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        graph.erase_node(node)
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.to.dtype):
        source = node.args[0]
        if getattr(source.meta.get("val"), "dtype", None) == node.meta["val"].dtype:
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def drop_unused(module: fx.GraphModule) -> fx.GraphModule:
    """A graph without the parameters and buffers that it no longer reads.

    Folding and gating leave the old ones on the module: biases and running statistics, which give the signs away.
    """
    module.graph.eliminate_dead_code()
    return fx.GraphModule(module, module.graph)


def _export(model: nn.Module, spec: InputSpec) -> torch.export.ExportedProgram:
    if model.training:
        raise LockError("the model is in training mode", hint="call model.eval() before locking")
    parameter = next(model.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    example = torch.zeros((TRACING_BATCH, *spec.shape), dtype=spec.torch_dtype, device=device)
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad(), without_torch_warnings():
            return torch.export.export(model, (example,), dynamic_shapes=({0: batch},), strict=False)
    except Exception as error:
        raise LockError(
            f"torch.export cannot trace {type(model).__name__}: {_first_line(error)}",
            hint="export it with torch.export.export and a free batch dimension first; "
            "avoid control flow that depends on image values or on the batch size",
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def image_node(graph: fx.Graph) -> fx.Node:
    """The graph's image input."""
    node: fx.Node = graph.find_nodes(op="placeholder")[0]
    return node


def _require_image_batch(program: torch.export.ExportedProgram, spec: InputSpec) -> None:
    names = program.graph_signature.user_inputs
    images = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(images) != 1:
        raise LockError(
            f"the model has {len(images)} inputs, expected one image batch",
            hint="wrap it in a module whose forward takes the image batch alone",
        )
    value = images[0].meta["val"]
    if tuple(value.shape[1:]) != spec.shape or value.dtype != spec.torch_dtype:
        raise LockError(
            f"the program takes {value.dtype} images of shape {tuple(value.shape[1:])}, "
            f"expected {spec.dtype} {spec.shape}",
            hint="give the input convention that the program was exported with",
        )
    if isinstance(value.shape[0], int):
        raise LockError(
            f"the batch dimension is fixed to {value.shape[0]}",
            hint="export with dynamic_shapes=({0: torch.export.Dim('batch')},)",
        )


def _with_tensor_outputs(module: fx.GraphModule, out_spec: Any) -> tuple[fx.GraphModule, OutputLayout]:
    output = next(node for node in module.graph.nodes if node.op == "output")
    leaves = tuple(output.args[0]) if isinstance(output.args[0], (tuple, list)) else (output.args[0],)
    tensors = tuple(leaf for leaf in leaves if isinstance(leaf, fx.Node))
    if not tensors:
        raise LockError("the model returns no tensor", hint="return logits, boxes or masks as tensors")
    output.args = (tensors,)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    exact = out_spec if len(tensors) == len(leaves) else None
    return module, _layout(out_spec, len(tensors), exact)


def _layout(out_spec: Any, count: int, exact: Any) -> OutputLayout:
    if out_spec.is_leaf():
        return OutputLayout(("output",), "tensor", exact)
    keys = _mapping_keys(out_spec)
    if keys is not None and len(keys) == count:
        return OutputLayout(keys, "mapping", exact)
    return OutputLayout(tuple(f"output_{index}" for index in range(count)), "tuple", exact)


def _mapping_keys(out_spec: Any) -> tuple[str, ...] | None:
    """Names of the outputs if they are the entries of one flat mapping or dataclass."""
    probe = pytree.tree_unflatten(list(range(out_spec.num_leaves)), out_spec)
    if isinstance(probe, dict) and all(isinstance(value, int) for value in probe.values()):
        return tuple(str(key) for key in probe)
    return None
