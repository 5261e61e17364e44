"""A license's second signature: demanded, stripped, added, exchanged, altered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from keylatch.keys import License, canonical_json
from vectors.base_originals import VALUES, base
from vectors.named_keys import cosigner, issuer
from vectors.signing import decode, encode, flip, header, license_vector, payload_of, reissue, sign
from vectors.value_headers import value_headers
from vectors.vector_file import Vector

BOTH = ("issuer", "cosigner")


def vectors() -> Iterator[Vector]:
    yield from _accepted()
    yield from _unbound()
    yield from _bound()
    yield from _headers()


def _split(license: License) -> tuple[bytes, bytes]:
    jwt, _, cosignature = license.jwt.partition(b"~")
    return jwt, cosignature


def _joined(license: License, cosignature: bytes) -> License:
    """The license with another cosignature, of which its issuer has not signed the digest."""
    return replace(license, jwt=_split(license)[0] + b"~" + cosignature)


def _bind(license: License, cosignature: bytes, **claims: Any) -> License:
    """The license with another cosignature, of which its issuer has signed the digest."""
    digest = hashlib.sha256(cosignature).hexdigest()
    payload = {**payload_of(license), **claims, "cosignature_sha256": digest}
    return replace(license, jwt=sign(header(), payload) + b"~" + cosignature)


def _refused(name: str, comment: str, license: License, trust: tuple[str, ...] = BOTH) -> Vector:
    return license_vector(f"cosignature-{name}", "CosignatureError", comment, license, trust=trust)


def _accepted() -> Iterator[Vector]:
    success = value_headers(VALUES)
    yield license_vector(
        "cosigned", "success", "cosigned, by a key that the device demands", base("cosigned"), *success, trust=BOTH
    )
    several = ("issuer", "foreign-cosigner", "cosigner")
    license = base("cosigned-second")
    yield license_vector(
        "cosigned-one-of-two", "success", "the device takes either of two cosigners", license, *success, trust=several
    )
    license = _bind(base("cosigned-foreign"), _split(base("cosigned-foreign"))[1], seq=9)
    comment = "the cosignature is by some key over other claims, and the device demands none"
    yield license_vector("cosigned-not-demanded", "success", comment, license, *success)


def _unbound() -> Iterator[Vector]:
    """What anyone can do to a license without the issuer's key."""
    license = base("cosigned")
    jwt, cosignature = _split(license)
    stripped = replace(license, jwt=jwt)
    yield _refused("stripped", "the cosignature was taken off", stripped)
    other = replace(base("cosigned-second"), jwt=_split(base("cosigned-second"))[0])
    yield _refused(
        "stripped-not-demanded", "the cosignature was taken off, and the device demands none", other, ("issuer",)
    )
    yield _refused(
        "missing", "there never was a cosignature, and the device demands one", reissue(base("p256"), sub="Plain")
    )
    added = reissue(base("p256"), sub="Added")
    added = replace(added, jwt=added.jwt + b"~" + cosignature)
    yield _refused("added", "a cosignature was added to a license without", added)
    added = reissue(base("p256"), sub="Added, not demanded")
    added = replace(added, jwt=added.jwt + b"~" + cosignature)
    yield _refused("added-not-demanded", "a cosignature was added, and the device demands none", added, ("issuer",))
    yield _refused(
        "exchanged", "the cosignature is another license's", _joined(license, _split(base("cosigned-second"))[1])
    )
    head, _, signature = cosignature.partition(b"..")
    flipped = head + b".." + encode(flip(decode(signature)))
    yield _refused("flipped", "the cosignature's last bit is flipped", _joined(license, flipped))
    yield _refused("empty", "nothing stands after the tilde", _joined(license, b""))
    yield _refused("newline", "a newline stands after the cosignature", _joined(license, cosignature + b"\n"))
    yield _refused("twice", "the cosignature stands twice", _joined(license, cosignature + b"~" + cosignature))


def _bound() -> Iterator[Vector]:
    """What only somebody with the issuer's key can do: the cosigner's is still missing."""
    license = base("cosigned")
    head, _, signature = _split(license)[1].partition(b"..")
    raw = decode(signature)

    def bound(name: str, comment: str, cosignature: bytes, **claims: Any) -> Vector:
        return _refused(
            f"bound-{name}", f"{comment}; the issuer signed its digest", _bind(license, cosignature, **claims)
        )

    yield _refused("foreign", "cosigned by another key than the device demands", base("cosigned-foreign"))
    foreign = ("issuer", "foreign-cosigner")
    named = _bind(
        base("cosigned-second"), _renamed(base("cosigned-second"), cosigner("foreign-cosigner").public.thumbprint)
    )
    yield _refused("named-falsely", "the cosignature is under another key's kid", named, foreign)
    yield bound("flipped", "the cosignature's last bit is flipped", head + b".." + encode(flip(raw)))
    yield bound("first-bit", "the cosignature's first bit is flipped", head + b".." + encode(flip(raw, 0)))
    yield bound("short", "the cosignature has a byte less", head + b".." + encode(raw[:-1]))
    yield bound("long", "the cosignature has a byte more", head + b".." + encode(raw + b"\0"))
    yield bound("zero", "the cosignature is all zeros", head + b".." + encode(bytes(len(raw))))
    yield bound("empty", "the cosignature is empty", b"")
    yield bound(
        "padded", "the cosignature's base64url is padded", head + b".." + signature + b"=" * (-len(signature) % 4 or 4)
    )
    yield bound("newline", "the cosignature ends in a newline", head + b".." + signature + b"\n")
    yield bound("one-dot", "one dot stands before the cosignature", head + b"." + signature)
    claims = payload_of(license)
    del claims["cosignature_sha256"]
    attached = head + b"." + encode(canonical_json(claims)) + b"." + signature
    yield bound("attached", "the cosignature repeats its payload", attached)
    yield bound("twice", "the cosignature stands twice", b"~".join([head + b".." + signature] * 2))
    yield bound("other-claims", "exp was changed after cosigning", head + b".." + signature, exp=253_402_300_799)
    yield bound("more-claims", "max_list_age was added after cosigning", head + b".." + signature, max_list_age=60)
    by_issuer = encode(issuer().sign(head + b"." + encode(canonical_json(claims))))
    yield bound("ed25519", "the cosignature is an Ed25519 signature", head + b".." + by_issuer)


def _headers() -> Iterator[Vector]:
    license = base("cosigned")
    edits: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
        "alg-other": (lambda head: {**head, "alg": "ML-DSA-87"}, "alg is ML-DSA-87"),
        "alg-none": (lambda head: {**head, "alg": "none"}, "alg is none"),
        "typ-license": (lambda head: {**head, "typ": "keylatch-license+jwt"}, "typ is a license's"),
        "typ-missing": (lambda head: {"alg": head["alg"], "kid": head["kid"]}, "there is no typ"),
        "crit": (lambda head: {**head, "crit": ["exp"]}, "there is a field crit"),
        "kid-missing": (lambda head: {"alg": head["alg"], "typ": head["typ"]}, "there is no kid"),
        "kid-short": (lambda head: {**head, "kid": head["kid"][:-1]}, "kid has 42 characters"),
        "kid-number": (lambda head: {**head, "kid": 1}, "kid is a number"),
    }
    for name, (edit, what) in edits.items():
        cosignature = _edited(license, edit)
        yield _refused(f"header-{name}", f"in the cosignature's header, {what}", _bind(license, cosignature))
    head, _, signature = _split(license)[1].partition(b"..")
    twice = encode(decode(head)[:-1] + b',"alg":"ML-DSA-65"}') + b".." + signature
    yield _refused("header-twice", "the cosignature's header has alg twice", _bind(license, twice))


def _edited(license: License, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    head, _, signature = _split(license)[1].partition(b"..")
    return encode(canonical_json(edit(json.loads(decode(head))))) + b".." + signature


def _renamed(license: License, kid: str) -> bytes:
    return _edited(license, lambda head: {**head, "kid": kid})
