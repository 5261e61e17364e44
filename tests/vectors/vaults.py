"""Vaults: the frame of sealed files, either way of sealing, and the tensors inside."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors.numpy

from keylatch.keys import canonical_json
from vectors.base_originals import GATE, MODEL_ID, base
from vectors.named_keys import issuer
from vectors.sealed_files import (
    PASSPHRASE,
    REAL,
    SMALLEST,
    issuer_header,
    issuer_key,
    passphrase_header,
    passphrase_key,
    seal,
    under_issuer,
    under_passphrase,
)
from vectors.signing import encode, flip
from vectors.value_headers import value_headers
from vectors.vector_file import Vector

FORMAT = "FormatError"
WORD, ISSUER = ("passphrase", PASSPHRASE), ("issuer", "issuer")
TENSORS = {"lock/code": np.arange(8, dtype=np.uint8), **{f"{MODEL_ID}/{name}": value for name, value in GATE.items()}}
PLAINTEXT = safetensors.numpy.save(TENSORS)


def vectors() -> Iterator[Vector]:
    yield from _accepted()
    yield from _frames()
    yield from _headers()
    yield from _parameters()
    yield from _keys()
    yield from _plaintexts()


def _vector(name: str, expect: str, comment: str, data: bytes, *headers: tuple[str, str]) -> Vector:
    return Vector(f"vault/{name}", expect, "vault", comment, headers, data)


def _accepted() -> Iterator[Vector]:
    success = value_headers(TENSORS)
    yield _vector("passphrase", "success", "under a passphrase", under_passphrase(PLAINTEXT, "vault"), WORD, *success)
    yield _vector("issuer", "success", "under the issuer's key", under_issuer(PLAINTEXT, "vault"), ISSUER, *success)
    real = seal(PLAINTEXT, passphrase_header("vault", params=dict(REAL)), passphrase_key(params=REAL))
    yield _vector(
        "passphrase-real", "success", "under a passphrase, with the costs that Keylatch writes", real, WORD, *success
    )
    word = "Ångström 🦾"
    other = seal(PLAINTEXT, passphrase_header("vault"), passphrase_key(word))
    yield _vector(
        "passphrase-utf8", "success", "under a passphrase beyond ASCII", other, ("passphrase", word), *success
    )
    params = {"iterations": 16, "memory_kib": 128, "lanes": 16}
    edge = seal(PLAINTEXT, passphrase_header("vault", params=params), passphrase_key(params=params))
    yield _vector("params-edge", "success", "16 iterations, 16 lanes of 8 KiB", edge, WORD, *success)


def _frames() -> Iterator[Vector]:
    whole = under_issuer(PLAINTEXT, "vault")
    header_bytes = struct.unpack_from("<I", whole, 9)[0]
    body = 13 + header_bytes
    longer = seal(PLAINTEXT, canonical_json(issuer_header("vault")) + b" " * 1024, issuer_key("vault"))
    frames = {
        "empty": (b"", "the file is empty"),
        "magic-flipped": (flip(whole, 0), "the magic's first bit is flipped"),
        "version-1": (
            seal(PLAINTEXT, issuer_header("vault"), issuer_key("vault"), version=1),
            "the version is a license's",
        ),
        "version-0x82": (
            seal(PLAINTEXT, issuer_header("vault"), issuer_key("vault"), version=0x82),
            "the version is 0x82",
        ),
        "magic-alone": (whole[:9], "the file ends after the version"),
        "length-truncated": (whole[:12], "the file ends within the header's length"),
        "header-truncated": (whole[: body - 5], "the file ends within the header"),
        "header-alone": (whole[:body], "the file ends after the header"),
        "nonce-alone": (whole[: body + 12], "the file ends after the nonce"),
        "tag-truncated": (whole[:-1], "the file lacks its last byte"),
        "trailing": (whole + b"\0", "a byte follows the tag"),
        "header-length-0": (whole[:9] + bytes(4) + whole[13:], "the header's length is 0"),
        "header-length-largest": (whole[:9] + b"\xff" * 4 + whole[13:], "the header is to have 4 GiB"),
        "header-length-more": (
            whole[:9] + struct.pack("<I", header_bytes + 1) + whole[13:],
            "the header's length is one more",
        ),
        "header-too-long": (longer, "the header has more than 1,024 bytes"),
        "header-flipped": (flip(whole, 8 * (body - 20)), "a bit of the header is flipped"),
        "nonce-flipped": (flip(whole, 8 * body), "the nonce's first bit is flipped"),
        "ciphertext-flipped": (flip(whole, 8 * (body + 12)), "the ciphertext's first bit is flipped"),
        "tag-flipped": (flip(whole), "the tag's last bit is flipped"),
        "license": (base("p256").serialize(), "the file is a license"),
        "safetensors": (PLAINTEXT, "the file is not encrypted"),
    }
    for name, (data, comment) in frames.items():
        yield _vector(f"frame-{name}", FORMAT, comment, data, ISSUER)
    unbound = whole[:13] + b" " * header_bytes + whole[body:]
    yield _vector("frame-header-blank", FORMAT, "the header is blank", unbound, ISSUER)


def _headers() -> Iterator[Vector]:
    """Rightly sealed under another header."""

    def sealed(name: str, comment: str, **changes: Any) -> Vector:
        return _vector(f"header-{name}", FORMAT, comment, under_issuer(PLAINTEXT, "vault", **changes), ISSUER)

    for kind in ("device key", "issuer key", "cosigner key"):
        yield sealed(f"kind-{kind.replace(' ', '-')}", f"the kind is {kind}", kind=kind)
    yield sealed("kind-null", "the kind is null", kind=None)
    yield sealed("kdf-unknown", "the kdf is scrypt", kdf="scrypt")
    yield sealed("kdf-null", "the kdf is null", kdf=None)
    yield sealed("kdf-list", "the kdf is a list", kdf=["issuer"])
    for count in (0, 15, 17):
        salt = bytes(range(count))
        header = issuer_header("vault", salt=encode(salt).decode())
        data = seal(PLAINTEXT, header, issuer_key("vault", salt=salt))
        yield _vector(f"header-salt-{count}-bytes", FORMAT, f"the salt has {count} bytes", data, ISSUER)
    yield sealed("salt-padded", "the salt is padded", salt=encode(bytes(16)).decode() + "==")
    yield sealed("salt-number", "the salt is a number", salt=1)
    yield sealed("unknown", "the header has a field note", note="x")
    for field in ("kind", "kdf", "salt"):
        rest = {name: value for name, value in issuer_header("vault").items() if name != field}
        data = seal(PLAINTEXT, rest, issuer_key("vault"))
        yield _vector(f"header-{field}-missing", FORMAT, f"the header has no {field}", data, ISSUER)
    text = canonical_json(issuer_header("vault"))
    documents = {
        "spaced": (text.replace(b",", b", "), "the header is JSON with white space, not canonical"),
        "twice": (text[:-1] + b',"kind":"vault"}', "the header has kind twice"),
        "list": (b"[" + text + b"]", "the header is a list"),
        "not-utf8": (text.replace(b"vault", b"vaul\xff"), "the header is not UTF-8"),
    }
    for name, (header, comment) in documents.items():
        yield _vector(f"header-{name}", FORMAT, comment, seal(PLAINTEXT, header, issuer_key("vault")), ISSUER)


def _parameters() -> Iterator[Vector]:
    """Costs that a reader must not even try."""
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "iterations-0": ({"iterations": 0}, "no iteration"),
        "iterations-17": ({"iterations": 17}, "17 iterations"),
        "iterations-huge": ({"iterations": 2**32 - 1}, "2^32 - 1 iterations"),
        "iterations-true": ({"iterations": True}, "iterations is true"),
        "memory-small": ({"memory_kib": 7}, "less than 8 KiB a lane"),
        "memory-large": ({"memory_kib": 1024 * 1024 + 1}, "1 GiB and 1 KiB"),
        "memory-huge": ({"memory_kib": 2**32 - 1}, "4 TiB"),
        "memory-text": ({"memory_kib": "8"}, "memory_kib is text"),
        "lanes-0": ({"lanes": 0}, "no lane"),
        "lanes-17": ({"lanes": 17, "memory_kib": 17 * 8}, "17 lanes"),
        "lanes-negative": ({"lanes": -1}, "-1 lanes"),
        "unknown": ({"version": 19}, "there is a version"),
    }
    for name, (changes, comment) in wrong.items():
        data = under_passphrase(PLAINTEXT, "vault", params={**SMALLEST, **changes})
        yield _vector(f"params-{name}", FORMAT, f"Argon2id's parameters: {comment}", data, WORD)
    rest = {"iterations": 1, "lanes": 1}
    yield _vector(
        "params-without-memory",
        FORMAT,
        "Argon2id's parameters: no memory_kib",
        under_passphrase(PLAINTEXT, "vault", params=rest),
        WORD,
    )
    yield _vector(
        "params-list",
        FORMAT,
        "Argon2id's parameters are a list",
        under_passphrase(PLAINTEXT, "vault", params=[1, 8, 1]),
        WORD,
    )


def _keys() -> Iterator[Vector]:
    word = "PassphraseError"
    sealed = seal(PLAINTEXT, passphrase_header("vault"), passphrase_key("Correct horse"))
    yield _vector("passphrase-wrong", word, "the passphrase differs in one letter", sealed, WORD)
    flipped = flip(under_passphrase(PLAINTEXT, "vault"))
    yield _vector(
        "passphrase-tag-flipped", word, "the tag is flipped, which looks like a wrong passphrase", flipped, WORD
    )
    sealed = under_passphrase(PLAINTEXT, "vault", salt=encode(bytes(16)).decode())
    yield _vector("passphrase-salt-exchanged", word, "the salt is not the key's", sealed, WORD)
    sealed = seal(
        safetensors.numpy.save({"lock/code": TENSORS["lock/code"]}), passphrase_header("vault"), passphrase_key()
    )
    yield _vector("passphrase-empty", word, "an empty passphrase is given", sealed, ("passphrase", ""))
    foreign = issuer("foreign-issuer").public.thumbprint
    sealed = seal(PLAINTEXT, issuer_header("vault", issuer=foreign), issuer_key("vault", "foreign-issuer"))
    yield _vector("issuer-foreign", "DeviceKeyError", "sealed under another issuer's key", sealed, ISSUER)
    sealed = seal(PLAINTEXT, issuer_header("vault"), issuer_key("vault", "foreign-issuer"))
    yield _vector(
        "issuer-named-falsely", FORMAT, "sealed under another issuer's key, and names this one's", sealed, ISSUER
    )
    sealed = seal(PLAINTEXT, issuer_header("vault"), issuer_key("device key"))
    yield _vector("issuer-other-kind", FORMAT, "sealed under the key for another kind of file", sealed, ISSUER)
    number = under_issuer(PLAINTEXT, "vault", issuer=1)
    yield _vector("issuer-number", "DeviceKeyError", "issuer is a number", number, ISSUER)
    small = safetensors.numpy.save({"lock/code": TENSORS["lock/code"]})
    given_other = "sealed under the issuer's key, and a passphrase is given"
    yield _vector("issuer-passphrase-given", FORMAT, given_other, under_issuer(small, "vault"), WORD)
    other = safetensors.numpy.save({"lock/seed": TENSORS["lock/code"]})
    given_other = "sealed under a passphrase, and the issuer's key is given"
    yield _vector("passphrase-issuer-given", FORMAT, given_other, under_passphrase(other, "vault"), ISSUER)
    header = {"kind": "vault", "kdf": "awskms", "salt": encode(bytes(16)).decode(), "awskms": {}}
    yield _vector(
        "awskms", FORMAT, "a vault is never sealed under a key of AWS KMS", seal(PLAINTEXT, header, bytes(32)), ISSUER
    )


def _plaintexts() -> Iterator[Vector]:
    code = TENSORS["lock/code"]
    tensors = {
        "section-unknown": ({"other/code": code}, "a section is called other"),
        "section-upper-case": ({f"{MODEL_ID.upper()}/gate": code}, "a section is named in upper case"),
        "without-section": ({"code": code}, "a tensor belongs to no section"),
        "name-empty": ({"lock/": code}, "a tensor has no name"),
        "name-unprintable": ({"lock/\x1b[2J": code}, "a tensor's name holds a terminal's escape"),
        "name-long": ({"lock/" + "x" * 512: code}, "a tensor's name has 517 characters"),
    }
    for name, (values, comment) in tensors.items():
        sealed = under_issuer(safetensors.numpy.save(values), "vault")
        yield _vector(f"plaintext-{name}", FORMAT, comment, sealed, ISSUER)
    plaintexts = {
        "empty": (b"", "the plaintext is empty"),
        "pickle": (b"\x80\x04K\x01.", "the plaintext is a pickle"),
        "truncated": (PLAINTEXT[:-1], "the plaintext lacks its last byte"),
    }
    for name, (plaintext, comment) in plaintexts.items():
        yield _vector(f"plaintext-{name}", FORMAT, comment, under_issuer(plaintext, "vault"), ISSUER)
