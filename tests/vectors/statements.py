"""What can be wrong with any statement of an issuer: the token, its header, the members that all statements have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keylatch.keys import IssuerKey, canonical_json
from vectors.named_keys import issuer
from vectors.signing import decode, encode, flip, header, sign
from vectors.vector_file import Vector

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """A rightly signed statement, to be made wrong.

    Args:
        kind: What it is.
        typ: Its header's.
        payload: Its members.
        rest: What follows the token in the file.
        headers: What the reader is given.
        wrong: Member to values that it may not have, each with what is wrong.
    """

    kind: str
    typ: str
    payload: Mapping[str, Any]
    rest: bytes
    headers: Headers
    wrong: Mapping[str, Mapping[str, tuple[object, str]]]

    def vector(self, name: str, expect: str, comment: str, token: bytes, headers: Headers | None = None) -> Vector:
        """Returns a vector of another token with the same rest."""
        folder = self.kind.replace(" ", "-")
        given = self.headers if headers is None else headers
        return Vector(f"{folder}/{name}", expect, self.kind, comment, given, token + self.rest)

    def signed(self, signer: IssuerKey | None = None, **changes: Any) -> bytes:
        """Returns the token with other members."""
        signer = signer or issuer()
        payload = {**self.payload, "iss": signer.public.thumbprint, **changes}
        return sign(header(self.typ, signer=signer), payload, signer=signer)


def vectors(statement: Statement) -> Iterator[Vector]:
    yield from _tokens(statement)
    yield from _signers(statement)
    yield from _headers(statement)
    yield from _members(statement)


def _tokens(statement: Statement) -> Iterator[Vector]:
    token = statement.signed()
    head, payload, signature = token.split(b".")

    def refused(name: str, comment: str, *parts: bytes) -> Vector:
        return statement.vector(name, "SignatureError", comment, b".".join(parts))

    yield refused("unsigned", "the signature is empty", head, payload, b"")
    yield refused("without-signature", "the signature and its dot are gone", head, payload)
    yield refused(
        "signature-flipped", "the signature's last bit is flipped", head, payload, encode(flip(decode(signature)))
    )
    yield refused("signature-short", "the signature has 63 bytes", head, payload, encode(decode(signature)[:-1]))
    yield refused("signature-padded", "the signature is padded", head, payload, signature + b"==")
    edited = encode(canonical_json({**statement.payload, "iat": statement.payload["iat"] + 1}))
    yield refused("payload-edited", "iat was changed after signing", head, edited, signature)
    yield statement.vector("empty", "SignatureError", "there is no token", b"")
    spaced = json.dumps(statement.payload).encode()
    longer = sign(header(statement.typ), spaced + b" " * 3072)
    assert len(longer) > 4096
    yield statement.vector("too-large", "FormatError", f"rightly signed, with {len(longer)} bytes", longer)


def _signers(statement: Statement) -> Iterator[Vector]:
    refused = "SignatureError"
    foreign, retired = issuer("foreign-issuer"), issuer("retired-issuer")
    yield statement.vector("issuer-foreign", refused, "another issuer signed, and says so", statement.signed(foreign))
    forged = sign(header(statement.typ), dict(statement.payload), signer=foreign)
    yield statement.vector("issuer-named-falsely", refused, "another issuer signed under the issuer's kid", forged)
    payload = {**statement.payload, "iss": foreign.public.thumbprint}
    inside = sign(header(statement.typ), payload)
    yield statement.vector("issuer-inside-differs", refused, "iss is another issuer than signed", inside)
    given = (*statement.headers, ("trust", "retired-issuer until 4102531200"))
    yield statement.vector("issuer-retired", refused, "a retired key signed", statement.signed(retired), given)
    given = tuple(("trust", "cosigner") if item == ("trust", "issuer") else item for item in statement.headers)
    untrusted = statement.signed(iat=statement.payload["iat"] - 1)
    yield statement.vector(
        "issuer-none-trusted", "LicenseRequiredError", "the device trusts no issuer", untrusted, given
    )


def _headers(statement: Statement) -> Iterator[Vector]:
    right = header(statement.typ)
    types = {"license": "keylatch-license+jwt", "revocations": "keylatch-revocations+jwt", "time": "keylatch-time+jwt"}
    heads: dict[str, tuple[dict[str, Any], str]] = {
        **{
            f"typ-{name}": ({**right, "typ": typ}, f"typ is {typ}")
            for name, typ in types.items()
            if typ != statement.typ
        },
        "typ-jwt": ({**right, "typ": "JWT"}, "typ is JWT"),
        "alg-eddsa": ({**right, "alg": "EdDSA"}, "alg is EdDSA"),
        "alg-none": ({**right, "alg": "none"}, "alg is none"),
        "header-jwk": ({**right, "jwk": issuer().public.to_jwk()}, "the header brings a key"),
        "header-crit": ({**right, "crit": ["exp"]}, "the header has a field crit"),
        "kid-missing": ({"alg": right["alg"], "typ": right["typ"]}, "the header has no kid"),
    }
    for name, (head, comment) in heads.items():
        yield statement.vector(name, "SignatureError", comment, sign(head, dict(statement.payload)))


def _members(statement: Statement) -> Iterator[Vector]:
    text = canonical_json(dict(statement.payload))

    def refused(name: str, comment: str, payload: dict[str, Any] | bytes, expect: str = "FormatError") -> Vector:
        return statement.vector(name, expect, comment, sign(header(statement.typ), payload))

    for member, value in statement.payload.items():
        expect = "SignatureError" if member == "aud" else "FormatError"
        rest = {name: other for name, other in statement.payload.items() if name != member}
        yield refused(f"{member}-missing", f"there is no {member}", rest, expect)
        yield refused(f"{member}-null", f"{member} is null", {**rest, member: None}, expect)
        twice = text[:-1] + b',"%s":%s}' % (member.encode(), canonical_json(value))
        yield refused(f"{member}-twice", f"{member} stands twice with the same value", twice)
    wrong = {**_COMMON, **statement.wrong}
    for member, values in wrong.items():
        for name, (value, what) in values.items():
            yield refused(f"{member}-{name}", f"{member} {what}", {**statement.payload, member: value})
    yield refused("aud-other", "aud is example", {**statement.payload, "aud": "example"}, "SignatureError")
    yield refused(
        "aud-list", "aud is a list", {**statement.payload, "aud": [statement.payload["aud"]]}, "SignatureError"
    )
    yield refused("unknown", "there is a member exp", {**statement.payload, "exp": 4_102_531_200})
    yield refused("list", "the payload is a list", b"[" + text + b"]")


_COMMON: dict[str, dict[str, tuple[object, str]]] = {
    "keylatch": {"2": (2, "is 2"), "true": (True, "is true"), "text": ("1", "is text")},
    "iat": {"text": ("4102444800", "is text"), "negative": (-1, "is negative"), "true": (True, "is true"),
            "fraction": (4_102_444_800.0, "has a fraction"), "year-10000": (253_402_300_800, "is in the year 10000")},
    "iss": {"short": ("A" * 42, "has 42 characters"), "number": (1, "is a number")},
}  # fmt: skip
