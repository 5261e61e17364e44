"""The sealed frame: vaults under an issuer's key, key files under a passphrase, files under a wrapped key."""

from __future__ import annotations

from typing import Any

from fuzz.attempts import REFUSED, attempt, must_refuse, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_json, changed_tensors
from fuzz.originals import ISSUER, PASSPHRASE, original
from keylatch.errors import DeviceKeyError, FormatError, PassphraseError
from keylatch.keys import SecretBytes, parse_json_object
from keylatch.keys._kms._wrapping import Wrapping
from keylatch.keys._passphrase import Argon2Parameters
from keylatch.keys._sealed import (
    is_sealed,
    is_sealed_under_passphrase,
    open_with_key,
    open_with_passphrase,
    read_wrapping,
    seal_with_key,
)
from keylatch.keys._vault import _parse as parse_vault
from keylatch.keys._vault import _serialize as serialize_vault

_VAULTS = [original(name) for name in ("vault", "vault.other")]
_SEALED_KEYS = [original(name) for name in ("sealed.key", "sealed.other.key")]
_VAULT_KEY, _THUMBPRINT = ISSUER.vault_key(), ISSUER.public.thumbprint
_PREFIX_BYTES = 13
# The plaintexts of both vaults: to edit, and to seal again. An original that is refused would make refusals worthless.
_PLAINTEXTS = [
    open_with_key(data, kind="vault", key=_VAULT_KEY, thumbprint=_THUMBPRINT, what="vault").reveal() for data in _VAULTS
]
# A derivation that costs more than this is not run: a hostile file may ask for a second of work, which is bounded
# by the reader (see `Argon2Parameters`) and would bring fuzzing to a stop.
_MAX_FUZZED_COST_KIB = 64
_WRAPPING = b"""{"key":"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
"data_key":"AAAA","thumbprint":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"""


def open_vault(data: bytes) -> None:
    outcome = attempt(_open_vault, data, errors=(FormatError, DeviceKeyError))
    must_refuse(outcome, data, _VAULTS)


def open_changed_vault(data: bytes) -> None:
    source = ByteSource(data)
    open_vault(_changed(source, source.choose(_VAULTS), source.choose(_VAULTS + _SEALED_KEYS)))


def parse_changed_vault(data: bytes) -> None:
    """Any plaintext, sealed by the issuer."""
    source = ByteSource(data)
    plaintext = changed_tensors(source, source.choose(_PLAINTEXTS), source.choose(_PLAINTEXTS))
    sealed = seal_with_key(plaintext, kind="vault", key=_VAULT_KEY, thumbprint=_THUMBPRINT)
    vault = attempt(_open_vault, sealed, errors=FormatError)
    if vault is not REFUSED:
        again = parse_vault(SecretBytes(serialize_vault(vault)))
        require(again.sections.keys() == vault.sections.keys(), "a vault changes when it is stored and read")


def open_key_file(data: bytes) -> None:
    is_sealed_under_passphrase(data)
    passphrase = (lambda _what: PASSPHRASE) if _cost_kib(data) <= _MAX_FUZZED_COST_KIB else None
    outcome = attempt(
        open_with_passphrase,
        data,
        kind="device key",
        passphrase=passphrase,
        what="key",
        errors=(FormatError, PassphraseError),
    )
    must_refuse(outcome, data, _SEALED_KEYS)


def open_changed_key_file(data: bytes) -> None:
    source = ByteSource(data)
    open_key_file(_changed(source, source.choose(_SEALED_KEYS), source.choose(_VAULTS + _SEALED_KEYS)))


def read_parameters(data: bytes) -> None:
    """What a header may hold for Argon2id and for KMS, as any JSON."""
    fields = attempt(parse_json_object, data, "header", errors=FormatError)
    if fields is REFUSED:
        return
    if set(fields) == {"iterations", "memory_kib", "lanes"}:
        attempt(Argon2Parameters, **fields, errors=FormatError)
    wrapping = attempt(Wrapping.from_header, fields, errors=FormatError)
    if wrapping is not REFUSED:
        require(wrapping.to_header() == fields and bool(wrapping.region), "a wrapping is not its header")


def read_changed_parameters(data: bytes) -> None:
    source = ByteSource(data)
    originals = (_WRAPPING, b'{"iterations":1,"lanes":1,"memory_kib":8}')
    read_parameters(changed_json(source, source.choose(originals), source.choose(originals)))


def _open_vault(data: bytes) -> Any:
    attempt(read_wrapping, data, kind="vault", what="vault", errors=FormatError)
    return parse_vault(open_with_key(data, kind="vault", key=_VAULT_KEY, thumbprint=_THUMBPRINT, what="vault"))


def _changed(source: ByteSource, data: bytes, other: bytes) -> bytes:
    """The file's bytes edited, or its header's JSON with the length made right."""
    if source.below(2):
        return changed(source, data, other)
    end = _PREFIX_BYTES + int.from_bytes(data[9:13], "little")
    header = changed_json(source, data[_PREFIX_BYTES:end], other[_PREFIX_BYTES:])
    return data[:9] + len(header).to_bytes(4, "little") + header + data[end:]


def _cost_kib(data: bytes) -> int:
    """Memory times passes that a file's header asks for, or nothing if the header will be refused."""
    end = _PREFIX_BYTES + int.from_bytes(data[9:13], "little")
    header = attempt(parse_json_object, data[_PREFIX_BYTES:end], "header") if is_sealed(data) else REFUSED
    params = header.get("params") if isinstance(header, dict) else None
    if not isinstance(params, dict) or set(params) != {"iterations", "memory_kib", "lanes"}:
        return 0
    parsed = attempt(Argon2Parameters, **params)
    return 0 if parsed is REFUSED else parsed.memory_kib * parsed.iterations


HARNESS = Harness(
    attacks=(
        open_vault,
        open_changed_vault,
        parse_changed_vault,
        open_key_file,
        open_changed_key_file,
        read_parameters,
        read_changed_parameters,
    ),
    seeds=(tuple(_VAULTS), DECISIONS, DECISIONS, tuple(_SEALED_KEYS), DECISIONS, (_WRAPPING,), DECISIONS),
    words=(b"KEYLATCH\x81", b'"kdf":"argon2id"', b'"kdf":"issuer"', b'"kdf":"awskms"', b'"kind":"vault"', b'"params"',
           b'"salt"', b'"memory_kib"', b'"iterations"', b'"lanes"', b"true", b"1073741824", b"\xff\xff\xff\xff"),
)  # fmt: skip
