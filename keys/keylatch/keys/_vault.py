"""The issuer's vault: a lock's secrets, sealed under a passphrase or the issuer's key, beside the locked model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from keylatch.errors import FormatError
from keylatch.keys._files import PRIVATE_MODE, read_public_file, write_file
from keylatch.keys._issuer_key import IssuerKey
from keylatch.keys._passphrase import PassphraseCallback, ask_passphrase
from keylatch.keys._sealed import (
    MAX_OVERHEAD_BYTES,
    is_sealed_under_passphrase,
    open_with_key,
    open_with_passphrase,
    seal_with_key,
    seal_with_passphrase,
)
from keylatch.keys._secret_bytes import SecretBytes, Uncopyable
from keylatch.keys._tensors import Array, check_tensor, parse_tensors, serialize_tensors

MAX_VAULT_BYTES = 1024 * 1024 * 1024
LOCK_SECTION = "lock"

_SECTION = re.compile(r"lock|[0-9a-f]{64}")


class Vault(Uncopyable):
    """Secrets of one lock: what the lock was made from, and the values each exported model's license carries.

    Args:
        sections: Section to tensor name to array. Section ``"lock"`` holds the lock's master secret; a section named
            by a model_id, 64 hex digits, holds the secret values of that model.

    Raises:
        FormatError: A section of another name or without tensors, or a tensor that cannot be stored.
    """

    __slots__ = ("_sections",)

    def __init__(self, sections: Mapping[str, Mapping[str, Array]]) -> None:
        for name, tensors in sections.items():
            _check_section(name, tensors)
        self._sections = {name: MappingProxyType(dict(tensors)) for name, tensors in sections.items()}

    @property
    def sections(self) -> Mapping[str, Mapping[str, Array]]:
        """All sections, read-only."""
        return MappingProxyType(self._sections)

    def section(self, name: str) -> Mapping[str, Array]:
        """Returns one section's tensors.

        Raises:
            FormatError: The vault has no such section.
        """
        if name not in self._sections:
            present = ", ".join(_shortened(section) for section in sorted(self._sections)) or "nothing"
            hint = "give the vault that was written with this model"
            raise FormatError(f"vault has no secrets for {_shortened(name)}, only for {present}", hint=hint)
        return self._sections[name]

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {len(tensors)} tensors" for name, tensors in sorted(self._sections.items()))
        return f"Vault({counts})"


def write_vault(
    path: str | os.PathLike[str],
    vault: Vault,
    *,
    passphrase: PassphraseCallback | None = None,
    issuer: IssuerKey | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a vault with mode 0600, atomically: after a crash the old file or the new one is there, whole.

    Args:
        path: Where it goes.
        vault: What to keep.
        passphrase: Called for the passphrase to seal it under; or
        issuer: the issuer key to seal it under. Exactly one of the two.
        overwrite: Replace an existing file.

    Raises:
        FormatError: Neither or both ways of sealing, or more than `MAX_VAULT_BYTES`.
        OutputError: The file exists (and `overwrite` is off), or it cannot be written.
        PassphraseError: The callback returned no usable passphrase.
    """
    plaintext = _serialize(vault)
    if issuer is not None and passphrase is None:
        thumbprint = issuer.public.thumbprint
        data = seal_with_key(plaintext, kind="vault", key=issuer.vault_key(), thumbprint=thumbprint)
    elif passphrase is not None and issuer is None:
        data = seal_with_passphrase(plaintext, kind="vault", passphrase=ask_passphrase(passphrase, f"vault {path}"))
    else:
        raise _not_exactly_one()
    write_file(Path(path), data, what="vault", mode=PRIVATE_MODE, overwrite=overwrite)


def read_vault(
    path: str | os.PathLike[str],
    *,
    passphrase: PassphraseCallback | None = None,
    issuer: IssuerKey | None = None,
) -> Vault:
    """Reads a vault.

    Args:
        path: The file.
        passphrase: Called for the passphrase it is sealed under; or
        issuer: the issuer key it is sealed under. With both, the file's own way is taken.

    Raises:
        FormatError: Neither way of opening; missing, damaged, or not a vault sealed in this way.
        DeviceKeyError: Sealed under another issuer key.
        PassphraseError: The passphrase is missing or wrong.
    """
    if passphrase is None and issuer is None:
        raise _not_exactly_one()
    data = read_public_file(Path(path), what="vault", max_bytes=MAX_VAULT_BYTES)
    return _parse(_unseal(data, f"vault {path}", passphrase, issuer))


def _unseal(data: bytes, what: str, passphrase: PassphraseCallback | None, issuer: IssuerKey | None) -> SecretBytes:
    if issuer is None or (passphrase is not None and is_sealed_under_passphrase(data)):
        return open_with_passphrase(data, kind="vault", passphrase=passphrase, what=what)
    thumbprint = issuer.public.thumbprint
    return open_with_key(data, kind="vault", key=issuer.vault_key(), thumbprint=thumbprint, what=what)


def _serialize(vault: Vault) -> bytes:
    # Section names hold no "/", so the first one ends the section, whatever the tensor's name holds.
    items = ((section, name, tensor) for section, tensors in vault.sections.items() for name, tensor in tensors.items())
    plaintext = serialize_tensors({f"{section}/{name}": tensor for section, name, tensor in items})
    if len(plaintext) > MAX_VAULT_BYTES - MAX_OVERHEAD_BYTES:
        raise FormatError(f"vault would be larger than {MAX_VAULT_BYTES} bytes", hint="withhold fewer weights")
    return plaintext


def _parse(plaintext: SecretBytes) -> Vault:
    sections: dict[str, dict[str, Array]] = {}
    for path, tensor in parse_tensors(plaintext.reveal()).items():
        section, _, name = path.partition("/")
        sections.setdefault(section, {})[name] = tensor
    return Vault(sections)


def _check_section(name: str, tensors: Mapping[str, Array]) -> None:
    if not _SECTION.fullmatch(name):
        hint = "name a section lock, or by a model_id of 64 lower-case hex digits"
        raise FormatError(f"vault section {name!a:.40} has another name than lock or a model_id", hint=hint)
    if not tensors:
        raise FormatError(f"vault section {_shortened(name)} is empty", hint="leave an empty section out")
    for tensor_name, tensor in tensors.items():
        check_tensor(tensor_name and f"{name}/{tensor_name}", tensor)


def _shortened(section: str) -> str:
    return section if section == LOCK_SECTION else f"model {ascii(section)[1:-1][:8]}…"


def _not_exactly_one() -> FormatError:
    found = "a vault is sealed under a passphrase or an issuer key, expected exactly one of the two"
    return FormatError(found, hint="give passphrase= or issuer=")
