"""Public keys of devices: JWK, P-256 or hybrid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keylatch.keys import canonical_json
from vectors.content_keys import p384_key
from vectors.named_keys import device, hybrid, issuer, key_files
from vectors.signing import decode, encode, flip
from vectors.vector_file import Vector

FORMAT = "FormatError"


def vectors() -> Iterator[Vector]:
    yield from _p256()
    yield from _hybrid()
    yield from _documents()


def _vector(name: str, expect: str, comment: str, data: bytes, *headers: tuple[str, str]) -> Vector:
    return Vector(f"device-public-key/{name}", expect, "device public key", comment, headers, data)


def _both(prefix: str, public: Any, wrong: dict[str, tuple[dict[str, Any], str]]) -> Iterator[Vector]:
    jwk = public.to_jwk()
    without = {name: value for name, value in jwk.items() if name != "kid"}
    success, of = ("thumbprint", public.thumbprint), "hybrid key" if prefix == "hybrid" else "P-256 key"
    yield _vector(prefix, "success", f"{of}: as a device writes it", canonical_json(jwk) + b"\n", success)
    yield _vector(
        f"{prefix}-without-kid", "success", f"{of}: without a kid, which is as good", canonical_json(without), success
    )
    for member in without:
        rest = {name: value for name, value in jwk.items() if name != member}
        yield _vector(f"{prefix}-{member}-missing", FORMAT, f"{of}: there is no {member}", canonical_json(rest))
        yield _vector(
            f"{prefix}-{member}-null", FORMAT, f"{of}: {member} is null", canonical_json({**jwk, member: None})
        )
    for name, (key, comment) in wrong.items():
        yield _vector(f"{prefix}-{name}", FORMAT, f"{of}: {comment}", canonical_json(key))
    other = device("second-device").public.thumbprint
    yield _vector(f"{prefix}-kid-other", FORMAT, f"{of}: kid is another key's", canonical_json({**jwk, "kid": other}))
    yield _vector(f"{prefix}-kid-null", FORMAT, f"{of}: kid is null", canonical_json({**jwk, "kid": None}))
    yield _vector(f"{prefix}-unknown", FORMAT, f"{of}: there is a member use", canonical_json({**jwk, "use": "enc"}))


def _p256() -> Iterator[Vector]:
    jwk = device().public.to_jwk()
    y = decode(jwk["y"].encode())
    zero = encode(bytes(32)).decode()
    # The field's prime: as a coordinate it would be a second spelling of 0.
    prime = encode((2**256 - 2**224 + 2**192 + 2**96 - 1).to_bytes(32)).decode()
    yield from _both("p256", device().public, {
        "off-curve": ({**jwk, "y": encode(flip(y)).decode()}, "the point is not on the curve"),
        "zero": ({**jwk, "x": zero, "y": zero}, "the point is 0, 0"),
        "prime": ({**jwk, "x": prime}, "x is the field's prime"),
        "coordinate-short": ({**jwk, "y": encode(y[1:]).decode()}, "y has 31 bytes"),
        "coordinate-long": ({**jwk, "y": encode(b"\0" + y).decode()}, "y has 33 bytes"),
        "coordinate-padded": ({**jwk, "y": jwk["y"] + "="}, "y is padded"),
        "coordinate-number": ({**jwk, "y": 1}, "y is a number"),
        "named-p384": ({**jwk, "crv": "P-384"}, "a point of P-256 says P-384"),
        "p384": (p384_key(), "the point is of P-384"),
        "private": ({**jwk, "d": jwk["x"]}, "the private key is there too"),
        "issuer": (issuer().public.to_jwk(), "it is an issuer's key"),
    })  # fmt: skip


def _hybrid() -> Iterator[Vector]:
    jwk = hybrid().public.to_jwk()
    pub = decode(jwk["pub"].encode())
    # FIPS 203 section 7.2: every coefficient is below 3329; the first twelve bits are one.
    too_large = b"\xff\xff" + pub[2:]
    yield from _both("hybrid", hybrid().public, {
        "short": ({**jwk, "pub": encode(pub[:-1]).decode()}, "pub lacks its last byte"),
        "long": ({**jwk, "pub": encode(pub + b"\0").decode()}, "pub has a byte more"),
        "without-x25519": ({**jwk, "pub": encode(pub[:-32]).decode()}, "pub has no X25519 key"),
        "coefficient": ({**jwk, "pub": encode(too_large).decode()}, "a coefficient of ML-KEM's key is too large"),
        "padded": ({**jwk, "pub": jwk["pub"] + "="}, "pub is padded"),
        "alg-other": ({**jwk, "alg": "MLKEM1024-P384"}, "alg is MLKEM1024-P384"),
        "kty-other": ({**jwk, "kty": "EC"}, "kty is EC"),
        "private": ({**jwk, "priv": "AAAA"}, "the private key is there too"),
    })  # fmt: skip


def _documents() -> Iterator[Vector]:
    text = canonical_json(device().public.to_jwk())
    documents = {
        "x-twice": (text[:-1] + b',"x":"AAAA"}', "x stands twice"),
        "list": (b"[" + text + b"]", "the key is in a list"),
        "set": (b'{"keys":[' + text + b"]}", "the key is in a set"),
        "empty": (b"", "the file is empty"),
        "not-utf8": (text.replace(b"P-256", b"P-25\xff"), "the file is not UTF-8"),
        "pem": (key_files()["issuer.pub"], "the file is PEM"),
        "private-pem": (key_files()["device.key"], "the file is the private key"),
    }
    for name, (data, comment) in documents.items():
        yield _vector(f"document-{name}", FORMAT, comment, data)
