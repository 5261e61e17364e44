"""What the tests of the command share: a small network, and what a command leaves."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass

from keylatch.cli import main

NETWORK = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(64, 12)

    def forward(self, image):
        return self.head(self.body(self.stem(image)).mean((2, 3)))


def small():
    torch.manual_seed(3)
    return Small()


def not_a_network():
    return 7
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, stdout, stderr."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]

CREDENTIALS = ("--license", "acme.license", "--key", "file:device.key", "--trust", "issuer.pub")


def run_main() -> None:
    """The command, with `sys.argv`."""
    try:
        main()
    finally:
        # The command guards its process for good. Here that is pytest's own, which would lose its /proc/self to root.
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)


def must(*arguments: object) -> None:
    """Run a command that has to succeed, where no test captures what it prints."""
    old, sys.argv = sys.argv, ["keylatch", *(str(argument) for argument in arguments)]
    try:
        run_main()
    except SystemExit as stop:
        assert not stop.code, arguments
    finally:
        sys.argv = old
