"""OnnxNetwork: run a graph, train it, look into it, and put other tensors and modules into it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from keylatch.audit.onnx_network._graph import Graph, Node, initializer_roles
from keylatch.audit.onnx_network._named_tensors import NamedTensors, encode_name
from keylatch.audit.onnx_network._operators import OPERATORS, require_known
from keylatch.audit.onnx_network._plan import Circumstances, Plan, make_plan
from keylatch.audit.onnx_network._rewiring import Rewiring
from keylatch.errors import InputError


class OnnxNetwork(nn.Module):
    """An ONNX graph as a trainable PyTorch module.

    Weights are parameters, named as in the file with dots as ``%2E``: `weights.conv1%2Eweight`. It computes what the
    graph says, as at inference, in training mode too. `deepcopy`, `state_dict` and pickling work; a network that was
    cast (`half()`, `bfloat16()`, `float()`, `double()`) computes in that type throughout, and takes images of any
    float type.

    Args:
        graph: The graph.
        frozen: Initializers that become buffers rather than parameters.

    Attributes:
        input_name: The graph's one image input.
        output_names: Its outputs.
        nodes: In topological order, only those that an output needs.
        initializer_names: Initializers and constants that the nodes read.
        straight_through: Comparisons, `Where`, `Sign`, rounding and clipping keep their values and pass a gradient
            (`_straight_through` says which). May be switched at any time. False: exact derivatives.

    Raises:
        InputError: If there are operators that cannot be converted, or an unknown name is to be frozen.
    """

    straight_through: bool

    def __init__(self, graph: Graph, *, frozen: Collection[str] = ()) -> None:
        super().__init__()
        require_known(graph.nodes)
        unknown = sorted(set(frozen) - set(graph.tensors))
        if unknown:
            raise InputError(f"the network has no initializer {unknown[0]}", hint="see initializer_names")
        self.input_name, self.output_names, self.nodes = graph.input_name, graph.output_names, graph.nodes
        self.initializer_names: tuple[str, ...] = tuple(graph.tensors)
        self.straight_through = False
        roles = initializer_roles(graph, frozen, {name: entry.host_inputs for name, entry in OPERATORS.items()})
        self.weights, self.stand_ins, self.inserted = NamedTensors(), NamedTensors(), nn.ModuleDict()
        for name in graph.tensors:
            if name in roles.trainable:
                self.weights.add(name, nn.Parameter(_laid_out(graph.tensors[name])))
            elif name in roles.buffers:
                self.weights.add(name, _laid_out(graph.tensors[name]))
        self._constants = {name: graph.tensors[name] for name in graph.tensors if name in roles.constants}
        self._opset = graph.opset
        self._file_dtypes = {key: tensor.dtype for key, tensor in self.weights.state_dict().items()}
        self._float_dtype: torch.dtype | None = None
        self._wiring = Rewiring(graph.nodes, frozenset({graph.input_name, *graph.tensors}), graph.output_names)
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def forward(self, image: Tensor) -> Tensor:
        """The graph's first output."""
        return self._compute(image, self.output_names[:1])[0]

    def flat(self, image: Tensor) -> tuple[Tensor, ...]:
        """All outputs of the graph."""
        return tuple(self._compute(image, self.output_names))

    def values(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Intermediate values by ONNX value name, as whoever reads them gets them, in one pass.

        Only what they need is computed.

        Raises:
            InputError: If the graph has no such value.
        """
        self._wiring.require_values(names)
        return dict(zip(names, self._compute(image, tuple(names)), strict=True))

    def initializer(self, name: str) -> Tensor:
        """An initializer of the file: the parameter of a weight, else a buffer or a constant that must not be changed.

        What was put in its place by `substitute` is not given here.

        Raises:
            InputError: If there is none of that name.
        """
        if name in self._constants:
            return self._constants[name]
        if name not in self.initializer_names:
            raise InputError(f"the network has no initializer {name}", hint="see initializer_names")
        return self.weights.get(name)

    def producer(self, value: str) -> Node | None:
        """The node of the file's graph that gives a value; None for the image and initializers."""
        return next((node for node in self.nodes if value in node.outputs), None)

    def consumers(self, value: str) -> tuple[Node, ...]:
        """The nodes of the file's graph that read a value."""
        return tuple(node for node in self.nodes if value in node.inputs)

    def substitute(self, value: str, by: Tensor | nn.Parameter | str) -> None:
        """Let whoever reads a value get something else from now on; nodes that nobody needs any more are not run.

        Args:
            value: A value or initializer of the graph; its earlier substitute is dropped.
            by: A parameter, which is registered and trained; a tensor, which is registered as a buffer; or the name
                of another value. The value's own name takes the substitution back.

        Raises:
            InputError: If a name is unknown, or a value would depend on itself.
        """
        stand_in = None if isinstance(by, str) else self._wiring.new_name(value)
        if stand_in is not None:
            self.stand_ins.add(stand_in, _leaf(by))
        self._rewire(lambda: self._wiring.redirect(value, by if isinstance(by, str) else str(stand_in)))

    def insert_after(self, value: str, module: nn.Module) -> None:
        """Let whoever reads a value get `module(value)` from now on; the module is registered and trained too.

        A second module takes what the first one gives.

        Raises:
            InputError: If the graph has no such value.
        """
        name = self._wiring.new_name(value)
        self.inserted[encode_name(name)] = module
        self._rewire(lambda: self._wiring.insert(value, name))

    def _rewire(self, change: Callable[[], None]) -> None:
        """Change the wiring, and keep of what stands in for values only what somebody reads."""
        try:
            change()
        finally:
            self._plans.clear()
            names = self._wiring.names_in_use()
            for name in self.stand_ins.names():
                if name not in names:
                    self.stand_ins.discard(name)
            for key in set(self.inserted) - {encode_name(name) for name in names}:
                del self.inserted[key]

    def _compute(self, image: Tensor, names: tuple[str, ...]) -> list[Tensor]:
        if self._float_dtype is not None and image.is_floating_point():
            image = image.to(self._float_dtype)
        return self._plan(image, names).run(image, self._tensor)

    def _plan(self, image: Tensor, names: tuple[str, ...]) -> Plan:
        key = (names, image.device, self._float_dtype, self.straight_through)
        plan = self._plans.get(key)
        if plan is None:
            around = Circumstances(image.device, self._float_dtype, self.straight_through, self._opset)
            nodes, wanted = self._wiring.order(names)
            plan = self._plans[key] = make_plan(
                nodes,
                wanted,
                image=self.input_name,
                constants=self._constants,
                own=self._modules_by_name(),
                around=around,
            )
        return plan

    def _modules_by_name(self) -> dict[str, Any]:
        names = self._wiring.names_in_use()
        return {name: self.inserted[encode_name(name)] for name in names if encode_name(name) in self.inserted}

    def _tensor(self, name: str) -> Tensor:
        return self.stand_ins.get(name) if self._wiring.is_new(name) else self.weights.get(name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast; a cast network computes in its new type whatever the graph's own casts say."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        now = {key: tensor.dtype for key, tensor in self.weights.state_dict().items()}
        cast = [dtype for key, dtype in now.items() if dtype != self._file_dtypes.get(key, dtype)]
        self._float_dtype = cast[0] if cast else None
        self._plans.clear()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": {}}


def _laid_out(tensor: Tensor) -> Tensor:
    """Kernels in the order that convolutions compute in on a CPU: a MobileNetV2 runs half again as fast."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _leaf(by: Any) -> Tensor:
    if not isinstance(by, Tensor):
        raise InputError(
            f"cannot substitute a {type(by).__name__}", hint="give a tensor, a parameter or a value's name"
        )
    return by
