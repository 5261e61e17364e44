"""A device's state and everything that touches it: licenses, lists, tokens, a counter in a file, copies and edits."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from license_world import DAY, MODEL_ID, NOW, World

from keylatch.keys import Claims, IssuerKey, Trust, verify_license
from keylatch.keys._device_state import DeviceState
from keylatch.keys._revocations import RevocationList, sign_revocation_list, verify_revocation_list
from keylatch.keys._time_token import sign_time_token

MINUTE, HOUR, YEAR = 60, 3600, 365 * DAY
# Long before all that the tests do, so that no license or list of theirs stands in the clock's way.
LONG_AGO = NOW - 30 * DAY


class FileCounter:
    """A real counter, in a file: it survives the process, and it only rises."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_text("41")

    def read(self) -> int:
        return int(self.path.read_text())

    def increment(self) -> int:
        count = self.read() + 1
        temporary = self.path.with_suffix(".new")
        temporary.write_text(str(count))
        temporary.replace(self.path)
        return count


@dataclass(frozen=True)
class StateWorld:
    """One device with a state, made long ago."""

    world: World
    path: Path
    state: DeviceState
    counter: FileCounter | None

    @property
    def trust(self) -> Trust:
        return Trust([self.world.issuer.public])

    def open(self, **changes: Any) -> DeviceState:
        arguments: dict[str, Any] = {"path": self.path, "key": self.world.device, "counter": self.counter}
        return DeviceState.open(**{**arguments, **changes})

    def claims(self, **changes: Any) -> Claims:
        return make_claims(self.world, **changes)

    def list(self, **changes: Any) -> RevocationList:
        return verify_revocation_list(make_list(self.world, **changes), self.trust)

    def token(self, issued_at: int, **changes: Any) -> bytes:
        arguments = {"issuer": self.world.issuer, "request": self.state.time_request(), "issued_at": issued_at}
        return sign_time_token(**{**arguments, **changes})

    def content(self) -> dict[str, Any]:
        return json.loads(self.path.read_bytes())


def make_state(world: World, folder: Path, *, with_counter: bool = False) -> StateWorld:
    counter = FileCounter(folder / "counter") if with_counter else None
    path = folder / "device.state"
    return StateWorld(world, path, DeviceState.create(path, world.device, counter, now=LONG_AGO), counter)


def make_claims(world: World, **changes: Any) -> Claims:
    license = world.issue(issued_at=LONG_AGO, not_before=LONG_AGO, expires_at=NOW + 60 * DAY, seq=7)
    claims = verify_license(license, Trust([world.issuer.public]), now=NOW)
    return replace(claims, **changes)


def make_list(
    world: World,
    *,
    issuer: IssuerKey | None = None,
    seq: int = 3,
    license_ids: Iterable[str] = (),
    issued_at: int = LONG_AGO,
    max_age: int = 60 * DAY,
) -> bytes:
    ids = [str(uuid.UUID(int=number, version=4)) for number in range(3)] if license_ids == () else list(license_ids)
    return sign_revocation_list(
        issuer=issuer or world.issuer, seq=seq, license_ids=ids, issued_at=issued_at, max_age=max_age
    )


def model(number: int) -> str:
    return f"{number:064x}"


__all__ = [
    "DAY",
    "HOUR",
    "LONG_AGO",
    "MINUTE",
    "MODEL_ID",
    "NOW",
    "YEAR",
    "FileCounter",
    "StateWorld",
    "make_claims",
    "make_list",
    "make_state",
    "model",
]
