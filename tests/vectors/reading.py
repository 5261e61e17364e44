"""What a reader is given besides a vector's body: trust, keys, what the device remembers; made from the headers."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from keylatch.keys import DeviceState, RevocationList, Trust, verify_revocation_list
from keylatch.keys._device_secret import derive_device_secret
from keylatch.keys._state_file import MAC_KEY_INFO, serialize_state
from keylatch.keys._state_record import StateRecord
from vectors.base_originals import MODEL_ID, NOW
from vectors.named_keys import COSIGNERS, any_device, cosigner, issuer, seed
from vectors.signing import encode
from vectors.vector_file import Vector, read_vectors

Result = Mapping[str, Any]
Reader = Callable[[Vector, Path], Result]
"""Takes a vector and an empty folder; returns what its success headers say, by header name."""


@functools.cache
def _lists() -> dict[str, Vector]:
    return {vector.name: vector for vector in read_vectors() if vector.kind == "revocation list"}


def trust_objects(vector: Vector) -> Trust:
    """Returns the keys that a vector's device trusts."""
    return _trust(tuple(vector.all("trust")))


@functools.cache
def _trust(lines: tuple[str, ...]) -> Trust:
    names = [line.partition(" until ") for line in lines]
    issuers = [(issuer(name).public, until) for name, _, until in names if name not in COSIGNERS]
    until = {key.thumbprint: int(end) for key, end in issuers if end}
    cosigners = [cosigner(name).public for name, _, _ in names if name in COSIGNERS]
    return Trust([key for key, _ in issuers], cosigners, until)


def trust_file(vector: Vector, folder: Path) -> Path:
    """Returns a trust file with the same keys."""
    path = folder / "trust.json"
    path.write_bytes(_trust_bytes(tuple(vector.all("trust"))))
    return path


@functools.cache
def _trust_bytes(lines: tuple[str, ...]) -> bytes:
    with TemporaryDirectory() as folder:
        _trust(lines).save(Path(folder) / "trust.json")
        return (Path(folder) / "trust.json").read_bytes()


def written(vector: Vector, folder: Path) -> Path:
    """Returns a file with a vector's body, which only its owner can read."""
    path = folder / "body"
    path.touch(mode=0o600)
    path.write_bytes(vector.body)
    return path


def device_key(vector: Vector) -> Any:
    """Returns the device key that a vector names."""
    return any_device(vector.one("device"))


def listed(vector: Vector) -> bytes | None:
    """Returns the revocation list that is given with a license."""
    names = vector.all("revocations")
    return _lists()[names[0]].body if names else None


def verified_list(vector: Vector, trust: Trust) -> RevocationList | None:
    """Returns the same, verified."""
    data = listed(vector)
    return None if data is None else verify_revocation_list(data, trust)


def state_file(vector: Vector, folder: Path) -> Path | None:
    """Returns the file in which a vector's device remembers what the headers say; None where it has none."""
    if not vector.all("high_water") and not vector.all("nonce"):
        return None
    key, path = device_key(vector), folder / "device.state"
    nonce = vector.all("nonce") or [encode(seed("state nonce")).decode()]
    record = StateRecord(
        device=key.public.thumbprint,
        nonce=nonce[0],
        high_water=vector.number("high_water", NOW),
        signed_floor=0,
        list_seq=vector.number("seen_list_seq", 0),
        seqs={MODEL_ID: vector.number("seen_seq", 0)} if vector.all("seen_seq") else {},
        counter=None,
    )
    path.touch(mode=0o600)
    path.write_bytes(serialize_state(record, derive_device_secret(key, MAC_KEY_INFO)))
    return path


def device_state(vector: Vector, folder: Path) -> DeviceState | None:
    """Returns the same, opened."""
    path = state_file(vector, folder)
    return None if path is None else DeviceState.open(path, device_key(vector))


class Counter:
    """A counter in memory, where a device has a TPM's."""

    def __init__(self, count: int) -> None:
        self._count = count

    def read(self) -> int:
        return self._count

    def increment(self) -> int:
        self._count += 1
        return self._count


def gate(vector: Vector) -> list[tuple[str, str, tuple[int, ...]]]:
    """Returns the gate tensors of the model that a license is to open: name, dtype, shape."""
    parts = (text.split(" ", 2) for text in vector.all("gate"))
    return [(name, dtype, tuple(json.loads(shape))) for name, dtype, shape in parts]
