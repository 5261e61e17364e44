"""The harnesses: what each one does with an input, what it starts from, and the table of them all."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MAX_INPUT_BYTES = 8 * 1024

Attack = Callable[[bytes], None]
"""Runs one input; returns, or raises what is then a finding."""


@dataclass(frozen=True)
class Harness:
    """One parser under attack. An input's first byte chooses the attack, the rest is the attack's own.

    Attributes:
        attacks: Ways to feed the parser.
        seeds: Inputs to start from, for each attack: valid originals where it parses, anything where it mutates.
        words: What mutations are likely to need: magic numbers, names.
    """

    attacks: tuple[Attack, ...]
    seeds: tuple[tuple[bytes, ...], ...]
    words: tuple[bytes, ...] = ()

    def __call__(self, data: bytes) -> None:
        if data:
            self.attacks[data[0] % len(self.attacks)](data[1:])

    def initial_inputs(self) -> Iterator[bytes]:
        """The seeds, each behind the byte that chooses its attack."""
        for index, seeds in enumerate(self.seeds):
            yield from (bytes([index]) + seed for seed in seeds)


# Decisions for a mutation: enough zeros, ones and steps that every branch is some bytes away.
DECISIONS = (bytes(24), bytes(range(32)), bytes(range(255, 223, -1)), b"\x05" * 24, b"\x02\x40" * 12)


def names() -> list[str]:
    """Every harness."""
    return sorted(path.stem for path in (Path(__file__).parent / "parsers").glob("[a-z]*.py"))


def load(name: str) -> Harness:
    """One harness, with the parser it attacks."""
    harness: Harness = importlib.import_module(f"fuzz.parsers.{name}").HARNESS
    return harness


def corpus(name: str) -> list[Path]:
    """A harness's committed inputs."""
    return sorted((CORPUS / name).glob("*"))
