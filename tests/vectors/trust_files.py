"""Trust files, and public keys of issuers and cosigners in PEM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keylatch.keys import canonical_json
from vectors.base_originals import NOW
from vectors.named_keys import cosigner, issuer, key_files
from vectors.signing import decode, encode
from vectors.vector_file import Vector

FORMAT = "FormatError"


def vectors() -> Iterator[Vector]:
    yield from _accepted()
    yield from _members()
    yield from _entries()
    yield from _keys()
    yield from _pems()


def _issuer_entry(name: str = "issuer", until: object = None) -> dict[str, Any]:
    return {"jwk": issuer(name).public.to_jwk(), "until": until}


def _cosigner_entry(name: str = "cosigner") -> dict[str, Any]:
    return {"jwk": cosigner(name).public.to_jwk()}


def _trust(**changes: Any) -> dict[str, Any]:
    return {"keylatch": "trust/1", "issuers": [_issuer_entry()], "cosigners": [], **changes}


def _vector(name: str, expect: str, comment: str, data: bytes, *headers: tuple[str, str]) -> Vector:
    return Vector(f"trust/{name}", expect, "trust", comment, headers, data)


def _changed(name: str, comment: str, **changes: Any) -> Vector:
    return _vector(name, FORMAT, comment, canonical_json(_trust(**changes)))


def _accepted() -> Iterator[Vector]:
    def accepted(name: str, comment: str, data: bytes, *holds: str) -> Vector:
        return _vector(name, "success", comment, data, *(("holds", key) for key in holds))

    key, old, second = (item.public.thumbprint for item in (issuer(), issuer("retired-issuer"), cosigner()))
    yield accepted("one-issuer", "one issuer key", canonical_json(_trust()) + b"\n", key)
    whole = _trust(issuers=[_issuer_entry(), _issuer_entry("retired-issuer", NOW)], cosigners=[_cosigner_entry()])
    yield accepted(
        "everything",
        "a present and a retired issuer key, a cosigner",
        canonical_json(whole),
        key,
        f"{old} until {NOW}",
        second,
    )
    yield accepted("no-issuer", "no key at all: it opens nothing", canonical_json(_trust(issuers=[])))
    retired = _trust(issuers=[_issuer_entry(until=0)])
    yield accepted("until-0", "until is 0", canonical_json(retired), f"{key} until 0")
    yield accepted(
        "spaced",
        "white space before and in it, which is as good",
        b" " + canonical_json(_trust()).replace(b":", b": "),
        key,
    )
    yield accepted("pem-issuer", "an issuer's key in PEM", key_files()["issuer.pub"], key)
    yield accepted("pem-cosigner", "a cosigner's key in PEM", key_files()["cosigner.pub"], second)


def _members() -> Iterator[Vector]:
    for member in ("keylatch", "issuers", "cosigners"):
        rest = {name: value for name, value in _trust().items() if name != member}
        yield _vector(f"{member}-missing", FORMAT, f"there is no {member}", canonical_json(rest))
        yield _changed(f"{member}-null", f"{member} is null", **{member: None})
    yield _changed("version-2", "the version is 2", keylatch="trust/2")
    yield _changed("version-number", "the version is the number 1", keylatch=1)
    yield _changed("unknown", "there is a member note", note="x")
    yield _changed("issuers-object", "issuers is an object", issuers=_issuer_entry())
    many = [
        {"jwk": {"crv": "Ed25519", "kty": "OKP", "x": encode(n.to_bytes(32)).decode()}, "until": None}
        for n in range(65)
    ]
    yield _changed("issuers-65", "there are 65 issuer keys", issuers=many)
    comment = "there are 64 issuer keys and a cosigner, 65 together"
    yield _changed("keys-65", comment, issuers=many[1:], cosigners=[_cosigner_entry()])
    text = canonical_json(_trust())
    documents = {
        "cosigners-twice": (text[:-1] + b',"cosigners":[]}', "cosigners stand twice"),
        "trailing": (text + text, "the file stands twice"),
        "truncated": (text[:-1], "the last brace is missing"),
        "byte-order-mark": (b"\xef\xbb\xbf" + text, "a byte order mark stands before it"),
        "list": (b"[" + text + b"]", "it is a list"),
        "empty": (b"", "the file is empty"),
        "too-large": (text + b" " * (256 * 1024 + 1 - len(text)), "the file has 256 KiB and a byte"),
    }
    for name, (data, comment) in documents.items():
        headers = (("way", "file"),) if name == "too-large" else ()
        yield _vector(f"document-{name}", FORMAT, comment, data, *headers)


def _entries() -> Iterator[Vector]:
    jwk = issuer().public.to_jwk()
    entries: dict[str, tuple[object, str]] = {
        "bare": (jwk, "is the key itself"),
        "text": ("issuer.pub", "is a text"),
        "without-until": ({"jwk": jwk}, "has no until"),
        "unknown": ({**_issuer_entry(), "from": 0}, "has a member from"),
        "jwk-null": ({"jwk": None, "until": None}, "has a jwk of null"),
        "until-text": (_issuer_entry(until=str(NOW)), "has an until that is text"),
        "until-true": (_issuer_entry(until=True), "has an until that is true"),
        "until-negative": (_issuer_entry(until=-1), "has an until that is negative"),
        "until-year-10000": (_issuer_entry(until=253_402_300_800), "has an until in the year 10000"),
    }
    for name, (entry, what) in entries.items():
        yield _changed(f"issuer-{name}", f"an issuer's entry {what}", issuers=[entry])
    fraction = canonical_json(_trust(issuers=[_issuer_entry(until=7)])).replace(b'"until":7', b'"until":7.5')
    yield _vector("issuer-until-fraction", FORMAT, "an issuer's entry has an until with a fraction", fraction)
    yield _changed(
        "issuer-twice", "an issuer key stands twice, once retired", issuers=[_issuer_entry(), _issuer_entry(until=NOW)]
    )
    until = {**_cosigner_entry(), "until": None}
    yield _changed("cosigner-until", "a cosigner's entry has an until", cosigners=[until])
    yield _changed("cosigner-bare", "a cosigner's entry is the key itself", cosigners=[cosigner().public.to_jwk()])


def _keys() -> Iterator[Vector]:
    jwk = issuer().public.to_jwk()
    raw = decode(jwk["x"].encode())
    keys: dict[str, tuple[dict[str, Any], str]] = {
        "short": ({**jwk, "x": encode(raw[:-1]).decode()}, "has 31 bytes"),
        "long": ({**jwk, "x": encode(raw + b"\0").decode()}, "has 33 bytes"),
        "padded": ({**jwk, "x": jwk["x"] + "="}, "is padded"),
        "stray-bits": ({**jwk, "x": jwk["x"][:-1] + "B"}, "has stray bits in its last character"),
        "private": ({**jwk, "d": jwk["x"]}, "is private"),
        "kid": ({**jwk, "kid": issuer().public.thumbprint}, "has a kid"),
        "x25519": ({**jwk, "crv": "X25519"}, "is of curve X25519"),
        "without-x": ({"crv": "Ed25519", "kty": "OKP"}, "has no x"),
        "cosigner": (cosigner().public.to_jwk(), "is a cosigner's"),
    }
    for name, (key, what) in keys.items():
        yield _changed(f"key-{name}", f"an issuer's key {what}", issuers=[{"jwk": key, "until": None}])
    second = cosigner().public.to_jwk()
    pub = decode(second["pub"].encode())
    cosigners: dict[str, tuple[dict[str, Any], str]] = {
        "short": ({**second, "pub": encode(pub[:-1]).decode()}, "lacks its last byte"),
        "alg": ({**second, "alg": "ML-DSA-87"}, "says ML-DSA-87"),
        "kid": ({**second, "kid": "x"}, "has a kid"),
        "issuer": (jwk, "is an issuer's"),
    }
    for name, (key, what) in cosigners.items():
        yield _changed(f"cosigner-key-{name}", f"a cosigner's key {what}", cosigners=[{"jwk": key}])


def _pems() -> Iterator[Vector]:
    files = key_files()
    pems = {
        "private": (files["issuer.key"], "is the private key"),
        "two": (files["issuer.pub"] + files["cosigner.pub"], "holds an issuer's key and a cosigner's"),
        "truncated": (files["issuer.pub"][:-30], "is cut short"),
        "empty": (b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", "holds nothing"),
        "der": (issuer().public.key.public_bytes_raw(), "is the bare key"),
    }
    for name, (data, what) in pems.items():
        yield _vector(f"pem-{name}", FORMAT, f"the file {what}", data)
    yield _vector("pem-device", FORMAT, "the file is a device's public key", files["device.pub"])
