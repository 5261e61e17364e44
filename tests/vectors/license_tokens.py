"""A license's token: the header that it may have, the encoding, the signature."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from keylatch.keys import canonical_json
from vectors.base_originals import VALUES, base
from vectors.named_keys import device, issuer
from vectors.signing import encode, flip, header, license_vector, parts_of, payload_of, reissue, sign, sign_text
from vectors.value_headers import value_headers
from vectors.vector_file import Vector

# The order of Ed25519's group, RFC 8032 section 5.1.
ORDER = 2**252 + 27742317777372353535851937790883648493


def vectors() -> Iterator[Vector]:
    yield from _algorithms()
    yield from _types()
    yield from _fields()
    yield from _encodings()
    yield from _signatures()
    yield from _issuers()


def _token(name: str, comment: str, jwt: bytes, expect: str = "SignatureError", *given: tuple[str, str]) -> Vector:
    return license_vector(f"token-{name}", expect, comment, replace(base("p256"), jwt=jwt), *given)


def _headed(name: str, comment: str, head: dict[str, Any] | bytes, expect: str = "SignatureError") -> Vector:
    """A token that the issuer signed under another header."""
    return _token(f"header-{name}", comment, sign(head, payload_of(base("p256"))), expect)


def _algorithms() -> Iterator[Vector]:
    payload = payload_of(base("p256"))
    unsigned = b".".join(map(encode, (canonical_json({**header(), "alg": "none"}), canonical_json(payload))))
    yield _token("alg-none", "alg is none, and there is no signature", unsigned + b".")
    yield _token("alg-none-signed", "alg is none, with the issuer's signature", sign_text(unsigned))
    hs256 = b".".join(map(encode, (canonical_json({**header(), "alg": "HS256"}), canonical_json(payload))))
    mac = hmac.digest(issuer().public.key.public_bytes_raw(), hs256, "sha256")
    yield _token("alg-hs256", "alg is HS256, the MAC's key is the issuer's public key", hs256 + b"." + encode(mac))
    es256 = b".".join(map(encode, (canonical_json({**header(), "alg": "ES256"}), canonical_json(payload))))
    yield _token("alg-es256", "alg is ES256", sign_text(es256))
    for alg in ("EdDSA", "ed25519", "Ed448", "ML-DSA-65"):
        yield _headed(f"alg-{alg}", f"alg is {alg}, and the issuer's signature verifies", {**header(), "alg": alg})
    yield _headed("alg-list", "alg is a list", {**header(), "alg": ["Ed25519"]})
    yield _headed("alg-null", "alg is null", {**header(), "alg": None})


def _types() -> Iterator[Vector]:
    for typ in ("keylatch-revocations+jwt", "keylatch-time+jwt", "keylatch-cosignature", "keylatch-secrets+jwe", "JWT"):
        yield _headed(f"typ-{typ.partition('+')[0]}", f"typ is {typ}", header(typ))
    yield _headed("typ-upper-case", "typ is in upper case", header("KEYLATCH-LICENSE+JWT"))
    yield _headed(
        "typ-application", "typ has the prefix that RFC 7515 leaves out", header("application/keylatch-license+jwt")
    )


def _fields() -> Iterator[Vector]:
    for name in ("alg", "typ", "kid"):
        head = header()
        del head[name]
        yield _headed(f"{name}-missing", f"the header has no {name}", head)
    added: dict[str, object] = {
        "jwk": issuer("foreign-issuer").public.to_jwk(),
        "jku": "https://example.com/keys",
        "x5u": "https://example.com/certificate",
        "x5c": ["MIIB"],
        "crit": ["exp"],
        "b64": False,
        "cty": "JWT",
        "zip": "DEF",
        "exp": 0,
    }
    for name, value in added.items():
        yield _headed(name, f"the header has a field {name} too", {**header(), name: value})
    signer = issuer("foreign-issuer")
    own = {**header(), "jwk": signer.public.to_jwk()}
    jwt = sign(own, payload_of(base("p256")), signer=signer)
    yield _token("header-jwk-signed", "the header brings the key that signed, and it is not the issuer's", jwt)
    kid = issuer().public.thumbprint
    yield _headed("kid-short", "kid has 42 characters", {**header(), "kid": kid[:-1]})
    yield _headed("kid-padded", "kid is padded", {**header(), "kid": kid + "="})
    yield _headed("kid-newline", "kid ends in a newline", {**header(), "kid": kid + "\n"})
    yield _headed("kid-number", "kid is a number", {**header(), "kid": 1})
    yield _headed("kid-device", "kid is the device's key", {**header(), "kid": device().public.thumbprint})
    yield _headed("kid-path", "kid is a path", {**header(), "kid": "../../../etc/keylatch/keys/issuer.public.pem"})
    text = canonical_json(header())
    twice = text[:-1] + b',"alg":"Ed25519"}'
    yield _headed("alg-twice", "the header has alg twice, both Ed25519", twice, "FormatError")
    yield _headed("none-first", "the header has alg twice, first none", b'{"alg":"none",' + text[1:], "FormatError")
    yield _headed("list", "the header is a list", b"[" + text + b"]", "FormatError")
    yield _headed("empty", "the header is empty", b"", "FormatError")
    yield _headed("comma", "the header ends in a comma", text[:-1] + b",}", "FormatError")
    yield _headed("trailing", "text stands after the header's object", text + b" x", "FormatError")
    yield _headed("not-utf8", "the header is not UTF-8", text.replace(b"Ed25519", b"Ed2551\xff"), "FormatError")


def _encodings() -> Iterator[Vector]:
    """Other spellings of the same bytes; where the spelling is signed, the issuer signed it."""
    head, payload, signature = parts_of(base("p256"))
    spellings = {
        "padded": ("is padded", _padded),
        "stray-bits": ("has stray bits in its last character", _with_stray_bits),
        "newline": ("holds a newline", lambda text: text[:8] + b"\n" + text[8:]),
        "space": ("ends in a space", lambda text: text + b" "),
        "null": ("ends in a null byte", lambda text: text + b"\0"),
        "one-character-more": ("has an impossible length", lambda text: text + b"A" * ((1 - len(text)) % 4)),
    }
    for name, (what, spell) in spellings.items():
        if name not in ("padded", "stray-bits") or len(head) % 4:
            yield _token(f"header-{name}", f"the header's base64url {what}", sign_text(spell(head) + b"." + payload))
        yield _token(
            f"payload-{name}", f"the payload's base64url {what}", sign_text(head + b"." + spell(_uneven(payload)))
        )
        yield _token(
            f"signature-{name}", f"the signature's base64url {what}", b".".join([head, payload, spell(signature)])
        )
    standard = signature.replace(b"-", b"+").replace(b"_", b"/")
    assert standard != signature
    yield _token(
        "signature-standard-alphabet", "the signature is in base64, not base64url", b".".join([head, payload, standard])
    )
    spaced = json.dumps(payload_of(base("p256")), indent=1).encode()
    success = value_headers(VALUES)
    yield _token(
        "spaced", "the claims are JSON with white space, which is as good", sign(header(), spaced), "success", *success
    )
    ordered = canonical_json(dict(reversed(header().items())))
    reordered = b'{"typ":"keylatch-license+jwt",' + ordered[1:].replace(b',"typ":"keylatch-license+jwt"', b"")
    jwt = sign(reordered, payload_of(base("p256")))
    yield _token("reordered", "the header's fields stand in another order, which is as good", jwt, "success", *success)


def _uneven(payload: bytes) -> bytes:
    """A payload with white space behind it if need be, so that its base64url has bits to stray in."""
    return payload if len(payload) % 4 else encode(canonical_json(payload_of(base("p256"))) + b" ")


def _padded(text: bytes) -> bytes:
    return text + b"=" * (-len(text) % 4 or 4)


def _with_stray_bits(text: bytes) -> bytes:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(text) % 4
    return text[:-1] + bytes([alphabet[alphabet.index(text[-1]) | 1]])


def _signatures() -> Iterator[Vector]:
    head, payload, signature = parts_of(base("p256"))
    raw = issuer().sign(head + b"." + payload)

    def signed(name: str, comment: str, data: bytes) -> Vector:
        return _token(f"signature-{name}", comment, b".".join([head, payload, encode(data)]))

    yield _token("unsigned", "the signature and its dot are gone", head + b"." + payload)
    yield _token("signature-empty", "the signature is empty", head + b"." + payload + b".")
    yield _token("four-parts", "a fourth part follows the signature", b".".join([head, payload, signature, signature]))
    yield _token("detached", "the payload is empty, as in a detached JWS", head + b".." + signature)
    yield signed("first-bit", "the signature's first bit is flipped", flip(raw, 0))
    yield signed("last-bit", "the signature's last bit is flipped", flip(raw))
    yield signed("short", "the signature has 63 bytes", raw[:-1])
    yield signed("long", "the signature has 65 bytes", raw + b"\0")
    yield signed("zero", "the signature is all zeros", bytes(64))
    s = int.from_bytes(raw[32:], "little") + ORDER
    yield signed("malleable", "the group's order is added to the signature's s", raw[:32] + s.to_bytes(32, "little"))
    other = parts_of(base("p256-second"))
    yield _token(
        "payload-exchanged",
        "the claims are another license's, the signature is not",
        b".".join([head, other[1], signature]),
    )
    yield _token("signature-exchanged", "the signature is another license's", b".".join([head, payload, other[2]]))
    edited = canonical_json({**payload_of(base("p256")), "exp": 253_402_300_799})
    yield _token("payload-edited", "exp was changed after signing", b".".join([head, encode(edited), signature]))
    as_json = {
        "payload": payload.decode(),
        "signatures": [{"protected": head.decode(), "signature": signature.decode()}],
    }
    yield _token("json-serialization", "the token is a JWS in JSON", canonical_json(as_json))


def _issuers() -> Iterator[Vector]:
    foreign, retired = issuer("foreign-issuer"), issuer("retired-issuer")
    payload = payload_of(base("p256"))
    license = reissue(base("p256"), signer=foreign)
    yield license_vector("issuer-foreign", "SignatureError", "another issuer signed, and says so", license)
    yield _token(
        "issuer-named-falsely", "another issuer signed under the issuer's kid", sign(header(), payload, signer=foreign)
    )
    jwt = sign(header(signer=retired), {**payload, "sub": "iss"}, signer=retired)
    license = replace(base("p256"), jwt=jwt)
    trust = ("issuer", "retired-issuer until 4102531200")
    yield license_vector(
        "issuer-inside-differs", "SignatureError", "iss names another trusted issuer than signed", license, trust=trust
    )
    license = reissue(base("p256"), sub="Nobody trusted")
    trust = ("cosigner",)
    yield license_vector(
        "issuer-none-trusted",
        "LicenseRequiredError",
        "the device trusts a cosigner and no issuer",
        license,
        trust=trust,
    )
