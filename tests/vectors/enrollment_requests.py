"""Enrollment requests: the key, the facts, the proof that the key made over them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from keylatch.keys import canonical_json
from vectors.base_originals import NOW
from vectors.named_keys import device, hybrid, private_keys
from vectors.signing import decode, encode, flip
from vectors.vector_file import Vector

KIND, FORMAT, PROOF = "enrollment request", "FormatError", "EnrollmentError"
# The order of P-256's group.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def vectors() -> Iterator[Vector]:
    yield from _accepted()
    yield from _proofs()
    yield from _members()
    yield from _facts()
    yield from _keys()
    yield from _documents()


def _request(**changes: Any) -> dict[str, Any]:
    public = device().public
    members = {"keylatch": "enrollment/1", "public_key": public.to_jwk(), "thumbprint": public.thumbprint}
    return {**members, "facts": {"hostname": "edge-7"}, "created_at": NOW, **changes}


def _prove(members: Mapping[str, Any], *, key: str = "device", context: bytes = b"keylatch/1 enrollment") -> bytes:
    # RFC 6979, so that the vectors are the same every time; a device's own signature is random.
    algorithm = ECDSA(SHA256(), deterministic_signing=True)
    r, s = decode_dss_signature(private_keys(device(key))[0].sign(context + canonical_json(members), algorithm))
    return r.to_bytes(32) + s.to_bytes(32)


def _proved(members: dict[str, Any], proof: bytes | None = None) -> bytes:
    return canonical_json({**members, "proof": encode(_prove(members) if proof is None else proof).decode()})


def _vector(name: str, expect: str, comment: str, data: bytes, *headers: tuple[str, str]) -> Vector:
    return Vector(f"enrollment-request/{name}", expect, KIND, comment, headers, data)


def _changed(name: str, comment: str, expect: str = FORMAT, **changes: Any) -> Vector:
    """A request with other members, over which the key really made its proof."""
    return _vector(name, expect, comment, _proved(_request(**changes)))


def _accepted() -> Iterator[Vector]:
    def accepted(name: str, comment: str, data: bytes, **facts: str) -> Vector:
        listed = [("fact", f"{fact}={value}") for fact, value in facts.items()]
        return _vector(name, "success", comment, data, ("thumbprint", device().public.thumbprint), *listed)

    yield accepted("p256", "one fact", _proved(_request()), hostname="edge-7")
    yield accepted("no-facts", "no fact", _proved(_request(facts={})))
    facts = {f"f{n:02}": "x" * 200 for n in range(16)}
    yield accepted("sixteen-facts", "16 facts of 200 characters", _proved(_request(facts=facts)), **facts)
    facts = {"site": "Ångström 株式会社"}
    yield accepted("beyond-ascii", "a fact beyond ASCII", _proved(_request(facts=facts)), **facts)
    indented = json.dumps(json.loads(_proved(_request(created_at=0))), indent=2).encode() + b"\n"
    yield accepted("indented", "indented, as devices write it", indented, hostname="edge-7")
    request = _request(created_at=253_402_300_799)
    proof = _prove(request)
    low = ORDER - int.from_bytes(proof[32:])
    comment = "the proof has s replaced by its negative, which ECDSA takes as well"
    yield accepted("proof-other-s", comment, _proved(request, proof[:32] + low.to_bytes(32)), hostname="edge-7")


def _proofs() -> Iterator[Vector]:
    request = _request()
    proof = _prove(request)
    r, s = int.from_bytes(proof[:32]), int.from_bytes(proof[32:])
    wrong = {
        "flipped": (flip(proof), "the proof's last bit is flipped"),
        "first-bit": (flip(proof, 0), "the proof's first bit is flipped"),
        "zero": (bytes(64), "r and s are 0 (CVE-2022-21449)"),
        "r-zero": (bytes(32) + proof[32:], "r is 0"),
        "s-zero": (proof[:32] + bytes(32), "s is 0"),
        "r-order": (ORDER.to_bytes(32) + proof[32:], "r is the group's order"),
        "s-order": (proof[:32] + ORDER.to_bytes(32), "s is the group's order"),
        "s-largest": (proof[:32] + b"\xff" * 32, "s is 2^256 - 1"),
        "exchanged": (proof[32:] + proof[:32], "r and s are exchanged"),
        "foreign": (_prove(request, key="foreign-device"), "another key made the proof"),
        "other-request": (_prove(_request(created_at=NOW + 1)), "the proof is another request's"),
        "without-context": (_prove(request, context=b""), "the proof is over the members alone"),
        "other-context": (_prove(request, context=b"keylatch/1 time"), "the proof is for another purpose"),
    }
    assert 0 < r < ORDER > s > 0
    for name, (data, comment) in wrong.items():
        yield _vector(f"proof-{name}", PROOF, comment, _proved(request, data))
    malformed = {
        "short": (proof[:-1], "the proof has 63 bytes"),
        "long": (proof + b"\0", "the proof has 65 bytes"),
        "empty": (b"", "the proof is empty"),
        "der": (_der(r, s), "the proof is in DER"),
    }
    for name, (data, comment) in malformed.items():
        yield _vector(f"proof-{name}", FORMAT, comment, _proved(request, data))
    padded = canonical_json({**request, "proof": encode(proof).decode() + "=="})
    yield _vector("proof-padded", FORMAT, "the proof is padded", padded)
    yield _vector("proof-number", FORMAT, "the proof is a number", canonical_json({**request, "proof": 1}))
    yield _vector("proof-missing", FORMAT, "there is no proof", canonical_json(request))
    edited = {**request, "facts": {"hostname": "edge-8"}, "proof": encode(proof).decode()}
    yield _vector("facts-edited", PROOF, "a fact was changed after the proof", canonical_json(edited))


def _der(r: int, s: int) -> bytes:
    numbers = b"".join(b"\x02\x21\x00" + number.to_bytes(32) for number in (r, s))
    return b"\x30" + bytes([len(numbers)]) + numbers


def _members() -> Iterator[Vector]:
    yield _changed("version-2", "the version is 2", keylatch="enrollment/2")
    yield _changed("version-number", "the version is the number 1", keylatch=1)
    yield _changed("unknown", "there is a member note", note="x")
    for member in ("keylatch", "public_key", "thumbprint", "facts", "created_at"):
        rest = {name: value for name, value in _request().items() if name != member}
        yield _vector(f"{member}-missing", FORMAT, f"there is no {member}", _proved(rest))
        expect = PROOF if member == "thumbprint" else FORMAT
        yield _changed(f"{member}-null", f"{member} is null", expect, **{member: None})
    other = device("second-device").public.thumbprint
    yield _changed("thumbprint-other", "thumbprint is another key's", PROOF, thumbprint=other)
    times = {"text": (str(NOW), "is text"), "true": (True, "is true"), "negative": (-1, "is negative"),
             "year-10000": (253_402_300_800, "is in the year 10000")}  # fmt: skip
    for name, (value, what) in times.items():
        yield _changed(f"created_at-{name}", f"created_at {what}", created_at=value)
    whole = canonical_json({**_request(created_at=1), "proof": encode(_prove(_request(created_at=1))).decode()})
    yield _vector(
        "created_at-fraction",
        FORMAT,
        "created_at has a fraction",
        whole.replace(b'"created_at":1', b'"created_at":1.0'),
    )


def _facts() -> Iterator[Vector]:
    facts: dict[str, tuple[object, str]] = {
        "seventeen": ({f"f{n}": "x" for n in range(17)}, "there are 17 facts"),
        "list": (["edge-7"], "facts is a list"),
        "long": ({"hostname": "x" * 201}, "a fact has 201 characters"),
        "empty": ({"hostname": ""}, "a fact is empty"),
        "number": ({"cores": 4}, "a fact is a number"),
        "value-null": ({"hostname": None}, "a fact is null"),
        "newline": ({"hostname": "edge-7\n"}, "a fact ends in a newline"),
        "escape": ({"hostname": "\x1b[2J"}, "a fact holds a terminal's escape"),
        "override": ({"hostname": "\u202eegde"}, "a fact turns the direction of writing"),
        "surrogate": ({"hostname": "\ud800"}, "a fact holds half a character"),
        "name-upper-case": ({"Hostname": "x"}, "a fact's name is in upper case"),
        "name-empty": ({"": "x"}, "a fact's name is empty"),
        "name-long": ({"x" * 33: "x"}, "a fact's name has 33 characters"),
        "name-newline": ({"hostname\n": "x"}, "a fact's name ends in a newline"),
        "name-digit": ({"7": "x"}, "a fact's name starts with a digit"),
        "too-many-bytes": ({f"f{n}": "\U0001f9be" * 100 for n in range(11)}, "the facts take more than 12 KiB"),
    }
    for name, (value, comment) in facts.items():
        yield _changed(f"facts-{name}", comment, facts=value)


def _keys() -> Iterator[Vector]:
    jwk = device().public.to_jwk()
    off_curve = {**jwk, "y": encode(flip(decode(jwk["y"].encode()))).decode()}
    zero = encode(bytes(32)).decode()
    short = encode(bytes(31)).decode()
    keys: dict[str, tuple[dict[str, Any], str]] = {
        "off-curve": (off_curve, "is no point of the curve"),
        "zero": ({**jwk, "x": zero, "y": zero}, "is 0, 0"),
        "short": ({**jwk, "x": short}, "has a coordinate of 31 bytes"),
        "p384": ({**jwk, "crv": "P-384"}, "says P-384"),
        "private": ({**jwk, "d": short}, "is private"),
        "unknown": ({**jwk, "use": "enc"}, "has a member use"),
        "kid-other": ({**jwk, "kid": device("second-device").public.thumbprint}, "has another key's kid"),
        "hybrid": (hybrid().public.to_jwk(), "is hybrid, and cannot prove anything"),
    }
    for name, (key, what) in keys.items():
        yield _changed(f"key-{name}", f"the public key {what}", public_key=key)
    without = {name: value for name, value in jwk.items() if name != "kid"}
    yield _changed(
        "key-without-kid", "the public key has no kid, so it is not as a device writes it", PROOF, public_key=without
    )
    other = device("second-device").public
    comment = "key and thumbprint are another device's, the proof is not"
    yield _changed("key-exchanged", comment, PROOF, public_key=other.to_jwk(), thumbprint=other.thumbprint)


def _documents() -> Iterator[Vector]:
    whole = _proved(_request())
    twice = whole[:-1] + b',"facts":{"hostname":"edge-7"}}'
    yield _vector("facts-twice", FORMAT, "facts stand twice with the same value", twice)
    yield _vector("too-large", FORMAT, "it has 16 KiB and a byte", whole + b" " * (16 * 1024 + 1 - len(whole)))
    yield _vector("truncated", FORMAT, "the last brace is missing", whole[:-1])
    yield _vector("trailing", FORMAT, "text follows", whole + b"x")
    yield _vector("list", FORMAT, "it is a list", b"[" + whole + b"]")
    yield _vector("empty", FORMAT, "it is empty", b"")
