"""Edits of a license's JWE, made before its digest is signed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keylatch.keys import License
from vectors.base_originals import base
from vectors.signing import decode, encode, license_vector, with_jwe
from vectors.vector_file import Vector

Edit = Callable[[dict[str, Any]], object]
HYBRID_DEVICE = ("device", "hybrid")


def jwe_vector(name: str, expect: str, comment: str, license: License, *given: tuple[str, str]) -> Vector:
    return license_vector(f"jwe-{name}", expect, comment, license, *given)


def edited(name: str, expect: str, comment: str, edit: Edit) -> Vector:
    return jwe_vector(name, expect, comment, with_jwe(base("p256"), edit))


def edited_hybrid(name: str, expect: str, comment: str, edit: Edit) -> Vector:
    return jwe_vector(
        f"hybrid-{name}", expect, f"hybrid recipient: {comment}", with_jwe(base("hybrid"), edit), HYBRID_DEVICE
    )


def put(*path: str | int, to: Any) -> Edit:
    """An edit that puts a value, or what a function makes of the present one, in a place."""

    def edit(jwe: Any) -> None:
        *way, last = path
        for step in way:
            jwe = jwe[step]
        jwe[last] = to(jwe[last]) if callable(to) else to

    return edit


def drop(*path: str | int) -> Edit:
    def edit(jwe: Any) -> None:
        *way, last = path
        for step in way:
            jwe = jwe[step]
        del jwe[last]

    return edit


def on_bytes(change: Callable[[bytes], bytes]) -> Callable[[str], str]:
    return lambda text: encode(change(decode(text.encode()))).decode()
