"""Who reads what, after substitutions and insertions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from keylatch.audit.onnx_network._graph import Node
from keylatch.errors import InputError

INSERTED = "keylatch::Inserted"


class Rewiring:
    """A graph's nodes, and from which value each reader really takes its own.

    Args:
        nodes: The graph's, in topological order.
        given: The image and the initializers.
        outputs: The graph's.
    """

    def __init__(self, nodes: Sequence[Node], given: frozenset[str], outputs: tuple[str, ...]) -> None:
        self._makers = {name: node for node in nodes for name in node.outputs if name}
        self._given, self._outputs = given, outputs
        self._reads: dict[str, str] = {}
        self._inserted: dict[str, Node] = {}
        self._new: set[str] = set()
        self._count = 0

    def require_values(self, names: Iterable[str]) -> None:
        """Raise InputError unless the graph has all these values."""
        for name in names:
            if name not in self._makers and name not in self._given:
                raise InputError(
                    f"the network has no value {name}", hint="see the outputs of its nodes, and initializer_names"
                )

    def new_name(self, value: str) -> str:
        """A name for what will stand in for a value.

        Raises:
            InputError: If the graph has no such value.
        """
        self.require_values([value])
        self._count += 1
        name = f"{value}@{self._count}"
        while name in self._makers or name in self._given:
            name += "@"
        self._new.add(name)
        return name

    def is_new(self, name: str) -> bool:
        """Whether a name was given by `new_name`."""
        return name in self._new

    def names_in_use(self) -> set[str]:
        """Names given by `new_name` that somebody may still read."""
        used = set(self._reads.values())
        for name in reversed(list(self._inserted)):  # later ones read earlier ones
            if name in used:
                used.update(self._inserted[name].inputs)
        return used & self._new

    def redirect(self, value: str, target: str) -> None:
        """Let readers of a value read another one; its own name: itself again.

        Raises:
            InputError: If a name is unknown, or a value would depend on itself; nothing is changed then.
        """
        self.require_values([value] if self.is_new(target) else [value, target])
        reads = {name: read for name, read in self._reads.items() if name != value}
        self._commit(reads if target == value else {**reads, value: target}, self._inserted, value)

    def insert(self, value: str, name: str) -> None:
        """Let readers of a value read what a module makes of what they read now.

        Args:
            value: The value.
            name: From `new_name`: of the module's output, and of its node.
        """
        node = Node(name, INSERTED, (self._resolve(value),), (name,), {})
        self._commit({**self._reads, value: name}, {**self._inserted, name: node}, value)

    def order(self, names: Sequence[str]) -> tuple[list[Node], list[str]]:
        """The nodes that give some values, each after those it needs, and what the values are read from.

        Inputs are resolved: they name what is really read.

        Raises:
            InputError: If a value depends on itself.
        """
        wanted = [self._resolve(name) for name in names]
        ordered: dict[int, Node] = {}
        open_nodes: set[int] = set()
        left = [(self._maker(name), False) for name in reversed(wanted)]
        while left:
            node, entered = left.pop()
            if node is None or id(node) in ordered:
                continue
            resolved = self._resolved(node)
            if entered:
                ordered[id(node)] = resolved
            else:
                if id(node) in open_nodes:
                    raise _circular(node.outputs[0])
                open_nodes.add(id(node))
                left.append((node, True))
                left.extend((self._maker(name), False) for name in reversed(resolved.inputs))
        return list(ordered.values()), wanted

    def _commit(self, reads: Mapping[str, str], inserted: Mapping[str, Node], value: str) -> None:
        before = self._reads, self._inserted
        self._reads, self._inserted = dict(reads), dict(inserted)
        try:
            self.order([*self._outputs, value])
        except InputError:
            self._reads, self._inserted = before
            raise

    def _maker(self, name: str) -> Node | None:
        return self._inserted.get(name) or self._makers.get(name)

    def _resolved(self, node: Node) -> Node:
        if node.op == INSERTED:
            return node
        inputs = tuple(self._resolve(name) for name in node.inputs)
        return node if inputs == node.inputs else replace(node, inputs=inputs)

    def _resolve(self, name: str) -> str:
        first, steps = name, 0
        while name in self._reads:
            name, steps = self._reads[name], steps + 1
            if steps > len(self._reads):
                raise _circular(first)
        return name


def _circular(value: str) -> InputError:
    return InputError(
        f"the value {value} would depend on itself", hint="use insert_after to compute with what a value was before"
    )
