"""Private keys in files: PKCS#8 PEM, or a sealed frame around it; of devices, issuers and cosigners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, derive_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from vectors.base_originals import BASE
from vectors.named_keys import cosigner, device, hybrid, issuer, key_files, private_keys
from vectors.sealed_files import PASSPHRASE, passphrase_header, passphrase_key, seal, under_issuer, under_passphrase
from vectors.signing import flip
from vectors.vector_file import Vector

WORD, DEVICE_KEY, PASSPHRASE_ERROR = ("passphrase", PASSPHRASE), "DeviceKeyError", "PassphraseError"
KEYS: dict[str, tuple[str, Any]] = {
    "device": ("device key file", device()),
    "hybrid": ("hybrid device key file", hybrid()),
    "issuer": ("issuer key file", issuer()),
    "cosigner": ("cosigner key file", cosigner()),
}


def vectors() -> Iterator[Vector]:
    for name in KEYS:
        yield from _accepted(name)
        yield from _sealed(name)
        yield from _other_keys(name)
    yield from _pems()


def _vector(name: str, kind: str, expect: str, comment: str, data: bytes, *headers: tuple[str, str]) -> Vector:
    return Vector(f"private-key-file/{name}", expect, kind, comment, headers, data)


def _plaintext(name: str) -> bytes:
    """What a sealed key file holds: one key as DER, or two as PEM."""
    keys = private_keys(KEYS[name][1])
    if len(keys) > 1:
        return key_files()[f"{name}.key"]
    return bytes(keys[0].private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def _frame_kind(name: str) -> str:
    return KEYS[name][0].removeprefix("hybrid ").removesuffix(" file")


def _accepted(name: str) -> Iterator[Vector]:
    kind, key = KEYS[name]
    success = ("thumbprint", key.public.thumbprint)
    yield _vector(
        f"{name}-pem", kind, "success", "PKCS#8 PEM, without a passphrase", key_files()[f"{name}.key"], success
    )
    sealed = under_passphrase(_plaintext(name), _frame_kind(name))
    yield _vector(f"{name}-sealed", kind, "success", "under a passphrase", sealed, WORD, success)


def _sealed(name: str) -> Iterator[Vector]:
    kind, frame_kind = KEYS[name][0], _frame_kind(name)

    def refused(what: str, expect: str, comment: str, data: bytes) -> Vector:
        return _vector(f"{name}-{what}", kind, expect, comment, data, WORD)

    whole = under_passphrase(_plaintext(name), frame_kind)
    wrong = seal(_plaintext(name), passphrase_header(frame_kind), passphrase_key("wrong horse"))
    yield refused("passphrase-wrong", PASSPHRASE_ERROR, "the passphrase is wrong", wrong)
    yield refused("tag-flipped", PASSPHRASE_ERROR, "the tag's last bit is flipped", flip(whole))
    yield refused("truncated", DEVICE_KEY, "the file ends within the header", whole[:40])
    yield refused("vault", DEVICE_KEY, "the sealed file is a vault", under_passphrase(_plaintext(name), "vault"))
    sealed = under_issuer(_plaintext(name), frame_kind)
    yield refused("under-issuer", DEVICE_KEY, "the file is sealed under an issuer key", sealed)
    sealed = seal(_plaintext(name), {**passphrase_header(frame_kind), "kdf": "awskms", "awskms": {}}, bytes(32))
    yield refused("under-awskms", DEVICE_KEY, "the file is sealed under a key of AWS KMS", sealed)
    large = under_passphrase(_plaintext(name), frame_kind, params={"iterations": 1, "memory_kib": 2**31, "lanes": 1})
    yield refused("params-memory-huge", DEVICE_KEY, "Argon2id is to take 2 TiB", large)
    sealed = under_passphrase(b"no key", frame_kind)
    yield refused("sealed-no-key", DEVICE_KEY, "what was sealed is no key", sealed)


def _other_keys(name: str) -> Iterator[Vector]:
    """Each kind's reader is given every other kind's file."""
    kind = KEYS[name][0]
    for other in KEYS:
        if other != name:
            # A newline more, as the same file is refused by several readers, and no two vectors are alike.
            data = key_files()[f"{other}.key"] + b"\n" * (1 + list(KEYS).index(name))
            yield _vector(f"{name}-is-{other}", kind, DEVICE_KEY, f"the file holds the key of a {other}", data)
            if _frame_kind(other) != _frame_kind(name):
                continue
            # Under the least that differs from what the other reader takes: other costs.
            params = {"iterations": 2, "memory_kib": 8, "lanes": 1}
            header = passphrase_header(_frame_kind(name), params=params)
            data = seal(_plaintext(other), header, passphrase_key(params=params))
            yield _vector(f"{name}-is-sealed-{other}", kind, DEVICE_KEY, f"the sealed key is a {other}'s", data, WORD)


def _pems() -> Iterator[Vector]:
    files = key_files()
    pem = files["device.key"]
    lines = pem.splitlines(keepends=True)
    encrypted = (BASE / "encrypted-pkcs8.key").read_bytes()
    p384 = derive_private_key(7, SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    mlkem, x25519 = (
        b"-----BEGIN PRIVATE KEY-----" + part for part in files["hybrid.key"].split(b"-----BEGIN PRIVATE KEY-----")[1:]
    )
    documents = {
        "empty": (b"", "the file is empty"),
        "null": (b"\0" * 32, "the file is zeros"),
        "public": (files["device.pub"], "the file is the public key"),
        "public-pem": (_public_pem(), "the file is the public key in PEM"),
        "truncated": (b"".join(lines[:-2]), "the PEM is cut short"),
        "without-begin": (b"".join(lines[1:]), "the PEM lacks its first line"),
        "der": (_plaintext("device"), "the key is in DER"),
        "two": (pem + files["second-device.key"], "there are two keys"),
        "encrypted-pem": (encrypted, "PKCS#8's own encryption, which is not used"),
        "p384": (p384, "the key is on P-384"),
        "too-large": (pem + b"#" * (16 * 1024 + 1 - len(pem)), "the file has 16 KiB and a byte"),
    }
    for name, (data, comment) in documents.items():
        yield _vector(f"pem-{name}", "device key file", DEVICE_KEY, comment, data)
    pairs = {
        "one": (mlkem, "the file holds ML-KEM's key alone"),
        "reversed": (x25519 + mlkem, "X25519's key stands first"),
        "three": (mlkem + x25519 + x25519, "there are three keys"),
        "preceded": (b"hybrid key\n" + mlkem + x25519, "text stands before the first key"),
        "twice": (mlkem + mlkem, "ML-KEM's key stands twice"),
    }
    for name, (data, comment) in pairs.items():
        yield _vector(f"pair-{name}", "hybrid device key file", DEVICE_KEY, comment, data)


def _public_pem() -> bytes:
    return device().public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
