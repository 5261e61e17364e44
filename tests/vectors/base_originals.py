"""Licenses that Keylatch issued: they hold what no generator gives twice. `generate.py --new-base` makes them anew."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from keylatch.keys import License, issue_license, parse_license
from vectors.named_keys import cosigner, device, hybrid, issuer, private_keys, seed
from vectors.vector_file import FOLDER

BASE = FOLDER / "base"

# 2100-01-01: the clock floor rises with every release, and these are to be read for ever.
NOW = 4_102_444_800
DAY = 86_400
MODEL_ID = "3f9a" * 16
OTHER_MODEL_ID = "b71c" * 16

VALUES = {
    "gate.patch": np.array([0x5A, 0x11, 0xC3, 0x77], np.uint8),
    "gate.scale": np.array([[0.5, -2.0]], np.float32),
    "known_answer.images": np.array([1], np.int64),
    "known_answer.key": np.frombuffer(seed("known answer key"), np.uint8),
    "known_answer.pairs": np.array([[0, 3], [2, 1]], np.int64),
    "known_answer.seed": np.frombuffer(seed("known answer seed"), np.uint8),
    "known_answer.tag": np.frombuffer(seed("known answer tag"), np.uint8),
}
GATE = {name: value for name, value in VALUES.items() if name.startswith("gate.")}


@functools.cache
def base(name: str) -> License:
    """Returns an original."""
    return parse_license((BASE / f"{name}.license").read_bytes())


def make_base() -> dict[str, bytes]:
    """Issues every original, with new content keys, nonces and ephemeral keys."""
    both = [device("device").public, device("second-device").public, hybrid("hybrid").public]
    makers: dict[str, Callable[[], bytes]] = {
        "p256": lambda: _issue(),
        "p256-second": lambda: _issue(seq=8, customer="Second license"),
        "hybrid": lambda: _issue(devices=[hybrid("hybrid").public]),
        "hybrid-second": lambda: _issue(devices=[hybrid("hybrid").public], seq=8),
        "mixed": lambda: _issue(devices=both, customer="Ångström AB"),
        "cosigned": lambda: _issue(cosigner=cosigner("cosigner")),
        "cosigned-second": lambda: _issue(cosigner=cosigner("cosigner"), seq=8),
        "cosigned-foreign": lambda: _issue(cosigner=cosigner("foreign-cosigner")),
        "everything": lambda: _issue(devices=both, cosigner=cosigner("cosigner"), max_list_age=DAY),
    }
    licenses = {f"{name}.license": make() for name, make in makers.items()}
    return {**licenses, "encrypted-pkcs8.key": _encrypt_key()}


def _issue(**changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "issuer": issuer("issuer"),
        "devices": [device("device").public],
        "model_id": MODEL_ID,
        "secret_values": VALUES,
        "customer": "ACME Vision",
        "not_before": NOW - DAY,
        "expires_at": NOW + DAY,
        "issued_at": NOW - DAY,
        "seq": 7,
    }
    return issue_license(**{**arguments, **changes}).serialize()


def _encrypt_key() -> bytes:
    """A key under PKCS#8's own encryption, with a random salt."""
    key = private_keys(device("device"))[0]
    encryption = BestAvailableEncryption(b"correct horse")
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
