"""Runs in a process of its own, given as JSON: remembers licenses, and may die at a chosen point."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from state_world import NOW, FileCounter, model

from keylatch.keys import Claims, FileDeviceKey
from keylatch.keys._device_state import DeviceState

DIED = 9


class DyingCounter(FileCounter):
    def __init__(self, path: Path, *, after: bool) -> None:
        super().__init__(path)
        self._after = after

    def increment(self) -> int:
        if self._after:
            super().increment()
        os._exit(DIED)


def die(*args: Any, **kwargs: Any) -> None:
    os._exit(DIED)


def main(task: dict[str, Any]) -> None:
    key = FileDeviceKey.load(task["key"])
    counter = FileCounter(Path(task["counter"])) if task["counter"] else None
    state = DeviceState.open(task["state"], key, counter)
    point = task.get("die")
    if point == "before the file":
        os.replace = die
    elif point is not None:
        state._store._counter = DyingCounter(Path(task["counter"]), after=point == "after the counter")
    claims = {**task["claims"], "devices": tuple(task["claims"]["devices"])}
    for number, seq in task["licenses"]:
        state.remember(Claims(**{**claims, "model_id": model(number), "seq": seq}), None, now=NOW)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
