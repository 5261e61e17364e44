"""The C library can be told to keep what PyTorch frees."""

from __future__ import annotations

import ctypes
import platform
import sys

import pytest

from keylatch.audit import _allocator, keep_freed_memory

GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


class Library:
    """A C library that counts."""

    def __init__(self, answer: int) -> None:
        self.options: list[int] = []
        self.answer = answer

    def mallopt(self, option: int, value: int) -> int:
        self.options.append(option)
        return self.answer


def test_glibc_takes_it_as_often_as_it_is_told_and_nothing_else_does() -> None:
    assert keep_freed_memory() is GLIBC
    assert keep_freed_memory() is GLIBC


@pytest.mark.parametrize("answer", [0, 1])
def test_every_option_is_set_and_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    library = Library(answer)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert keep_freed_memory() is bool(answer)
    assert set(library.options) == ({-1, -2, -4} if answer else {_allocator._M_MMAP_MAX})


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())  # as musl: no mallopt
    monkeypatch.setattr(sys, "platform", "linux")
    assert keep_freed_memory() is False
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("looked for a C library"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
