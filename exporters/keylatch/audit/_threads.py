"""How many threads to compute with: on a busy machine two threads that wait for each other are slower than one."""

from __future__ import annotations

import time

import torch

from keylatch.audit._target import Target

_BATCH = 8
_ROUNDS = 3


def choose_threads(target: Target) -> int:
    """Set PyTorch's number of threads to one or to what it was, whichever runs the model faster here and now.

    Returns:
        The number.
    """
    many = torch.get_num_threads()
    seconds = {count: _seconds(target, count) for count in {1, many}}
    best = min(seconds, key=lambda count: seconds[count])
    torch.set_num_threads(best)
    return best


def _seconds(target: Target, threads: int) -> float:
    """The fastest of a few runs."""
    torch.set_num_threads(threads)
    network = target.network()
    image = torch.zeros((_BATCH, *target.spec.shape), dtype=target.spec.torch_dtype)
    found = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        with torch.no_grad():
            network(image)
        found.append(time.perf_counter() - start)
    return min(found)
