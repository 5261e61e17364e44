"""A license's JWE, its digest really signed: its members, and the content key that they encrypt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import safetensors.numpy

from keylatch.keys import canonical_json
from vectors.base_originals import VALUES, base
from vectors.content_keys import content_key, seal_blob, seal_content_key
from vectors.jwe_edits import drop, edited, edited_hybrid, jwe_vector, on_bytes, put
from vectors.signing import decode, encode, flip, with_parts
from vectors.vector_file import Vector


def vectors() -> Iterator[Vector]:
    yield from _members()
    yield from _contents()


def _members() -> Iterator[Vector]:
    for member in ("protected", "iv", "ciphertext", "tag", "recipients"):
        yield edited(f"{member}-missing", "FormatError", f"there is no {member}", drop(member))
        yield edited(f"{member}-null", "FormatError", f"{member} is null", put(member, to=None))
    yield edited(
        "unprotected", "FormatError", "there is an unprotected header", put("unprotected", to={"enc": "A256GCM"})
    )
    yield edited("aad", "FormatError", "there is additional authenticated data", put("aad", to="AAAA"))
    headers: dict[str, tuple[object, str]] = {
        "enc-a128gcm": ({"enc": "A128GCM", "typ": "keylatch-secrets+jwe"}, "enc is A128GCM"),
        "enc-a256cbc": ({"enc": "A256CBC-HS512", "typ": "keylatch-secrets+jwe"}, "enc is A256CBC-HS512"),
        "enc-missing": ({"typ": "keylatch-secrets+jwe"}, "there is no enc"),
        "typ-other": ({"enc": "A256GCM", "typ": "keylatch-license+jwt"}, "typ is a license's"),
        "typ-missing": ({"enc": "A256GCM"}, "there is no typ"),
        "zip": ({"enc": "A256GCM", "typ": "keylatch-secrets+jwe", "zip": "DEF"}, "the content is to be decompressed"),
        "alg-protected": ({"alg": "dir", "enc": "A256GCM", "typ": "keylatch-secrets+jwe"}, "there is an alg"),
        "crit": ({"crit": ["exp"], "enc": "A256GCM", "typ": "keylatch-secrets+jwe"}, "there is a crit"),
    }
    for name, (head, what) in headers.items():
        encoded = encode(canonical_json(head)).decode()
        yield edited(name, "FormatError", f"in the protected header {what}", put("protected", to=encoded))
    padded = put("protected", to=lambda text: text + "=" * (-len(text) % 4 or 4))
    yield edited("protected-padded", "FormatError", "the protected header is padded", padded)
    jwe = base("p256").jwe
    twice = jwe[:-1] + b',"tag":' + canonical_json(json.loads(jwe)["tag"]) + b"}"
    for name, data, comment in (
        ("tag-twice", twice, "tag stands twice with the same value"),
        ("list", b"[" + jwe + b"]", "the JWE is a list"),
        ("not-json", b"\0", "the JWE is a null byte"),
        ("compact", b"e30.AA.AA.AA.AA", "the JWE is in compact serialization"),
        ("trailing", jwe + b"}", "a brace stands after the JWE"),
    ):
        yield jwe_vector(name, "FormatError", comment, with_parts(base("p256"), jwe=data))


def _contents() -> Iterator[Vector]:
    """The content key, encrypted: the part that all recipients share."""
    for edit in (edited, edited_hybrid):
        for member in ("iv", "ciphertext", "tag"):
            flipped = put(member, to=on_bytes(flip))
            yield edit(f"{member}-flipped", "IntegrityError", f"{member}'s last bit is flipped", flipped)
            shorter = put(member, to=on_bytes(lambda data: data[:-1]))
            yield edit(f"{member}-shorter", "IntegrityError", f"{member} has a byte less", shorter)
            longer = put(member, to=on_bytes(lambda data: data + b"\0"))
            yield edit(f"{member}-longer", "IntegrityError", f"{member} has a byte more", longer)
            yield edit(f"{member}-empty", "IntegrityError", f"{member} is empty", put(member, to=""))
        short_tag = put("tag", to=on_bytes(lambda data: data[:12]))
        yield edit("tag-96-bits", "IntegrityError", "the JWE's tag is cut to 96 bits", short_tag)
        yield edit("tag-boundary-moved", "IntegrityError", "the ciphertext's last byte is the tag's first", _move_tag)
    key = content_key(base("p256"))
    plaintext = safetensors.numpy.save(VALUES)
    for count in (16, 24):
        comment = f"the content key has {count} bytes, and the blob is really encrypted under it"
        license = seal_blob(base("p256"), plaintext, key=key[:count])
        sealed = seal_content_key(license, key[:count])
        yield jwe_vector(f"content-key-{count}-bytes", "IntegrityError", comment, sealed)
    for other in (key + b"\0", b""):
        comment = f"the content key has {len(other)} bytes"
        sealed = seal_content_key(base("p256"), other)
        yield jwe_vector(f"content-key-{len(other)}-bytes", "IntegrityError", comment, sealed)
    other_key = seal_content_key(base("p256"), bytes(32))
    yield jwe_vector("content-key-other", "IntegrityError", "the content key is not the blob's", other_key)


def _move_tag(jwe: dict[str, Any]) -> None:
    content, tag = (decode(jwe[name].encode()) for name in ("ciphertext", "tag"))
    jwe["ciphertext"], jwe["tag"] = encode(content[:-1]).decode(), encode(content[-1:] + tag).decode()
