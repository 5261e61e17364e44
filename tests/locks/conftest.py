"""Fixtures of the lock tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import networks


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with networks.one_thread():
        yield


@pytest.fixture(scope="session")
def digits() -> networks.Digits:
    return networks.trained_digits()


@pytest.fixture(scope="session")
def locked_digits(digits: networks.Digits) -> networks.Locked:
    """The digits classifier with three gates; do not change it."""
    return networks.lock(digits.network, gates=3, cost_share=1.0)
