"""The verified opening: from files on disk to session options that hold the secret values, or an error.

The steps and their order are those of docs/format.md; the numbers stand at the blocks. Steps 2 to 4 and 8 to 10 are in
`keylatch.keys`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime

from keylatch.errors import IntegrityError, LicenseRequiredError, WrongModelError
from keylatch.keys import (
    AnyDeviceKey,
    Claims,
    IssuerPublicKey,
    License,
    PassphraseCallback,
    Trust,
    current_time,
    decrypt_license,
    open_device_key,
    parse_license,
    read_license,
    verify_license,
)
from keylatch.runtime._known_answer import split_license
from keylatch.runtime._manifest import GateTensor
from keylatch.runtime._model_files import Buffer

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
LicenseSource: TypeAlias = str | PathLike[str] | bytes | License
TrustSource: TypeAlias = str | PathLike[str] | IssuerPublicKey | Trust
KeySource: TypeAlias = str | PathLike[str] | AnyDeviceKey


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What opens a model: the license, the device key, the trusted issuers."""

    license: License
    key: AnyDeviceKey
    trust: Trust


def load_credentials(
    license: LicenseSource | None,
    key: KeySource | None,
    trust: TrustSource | Sequence[TrustSource] | None,
    passphrase: PassphraseCallback | None,
) -> Credentials:
    """Load what opens a model from paths, URIs, bytes or objects.

    Raises:
        LicenseRequiredError: If something is missing.
        KeylatchError: If something cannot be read; each cause has its own error.
    """
    if license is None or key is None or trust is None:
        missing = "license" if license is None else "device key" if key is None else "trusted issuer"
        raise LicenseRequiredError(
            f"this model is locked and no {missing} was given",
            hint="give license=, key= and trust=; InferenceSession.locked(path) runs the locked model on purpose",
        )
    # 1. Bound sizes, parse the frame.
    parsed = _load_license(license)
    sources = [trust] if isinstance(trust, (str, PathLike, IssuerPublicKey, Trust)) else list(trust)
    trusted = Trust.merge(map(_load_trust, sources))
    device = open_device_key(fspath(key), passphrase=passphrase) if isinstance(key, (str, PathLike)) else key
    return Credentials(parsed, device, trusted)


def _load_license(source: LicenseSource) -> License:
    if isinstance(source, License):
        return source
    return parse_license(source) if isinstance(source, bytes) else read_license(Path(source))


def _load_trust(source: TrustSource) -> Trust:
    if isinstance(source, Trust):
        return source
    return Trust((source,)) if isinstance(source, IssuerPublicKey) else Trust.load(Path(source))


def verify_for_model(credentials: Credentials, model_id: str) -> Claims:
    """Steps 2 to 6: signature, form, time, model.

    Raises:
        LicenseError: The license is not valid, not now, or not for this model.
    """
    # 2. to 4. Signature by a pinned issuer; typ, iss, aud, version; nbf and exp against the clock floor.
    claims = verify_license(credentials.license, credentials.trust, now=current_time())
    # 5. Revocation lists and the last seq seen: none exist in this version.
    # 6. The model is the one that the license was issued for.
    if claims.model_id != model_id:
        raise WrongModelError(
            f"license for model {claims.model_id[:8]}… does not fit this model, {model_id[:8]}…",
            hint="ask the issuer for a license for this version, or open the model it was issued for",
        )
    return claims


def decrypt_gate(
    credentials: Credentials, claims: Claims, gate: Sequence[GateTensor]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Steps 8 to 11: the secret values and the known answer of a verified license.

    Returns:
        Secret values by gate tensor name, in memory of our own; and the known answer.

    Raises:
        LicensePartsError, WrongDeviceError, IntegrityError: as `decrypt_license`.
    """
    # 8. to 10. Digests, one key agreement, unwrap, decrypt.
    values = decrypt_license(credentials.license, claims, credentials.key)
    values, known_answer = split_license(values)
    # 11. Names, dtypes and shapes are the manifest's; onnxruntime would accept others silently.
    expected = {tensor.name: (tensor.dtype, tensor.shape) for tensor in gate}
    if {name: (value.dtype.name, value.shape) for name, value in values.items()} != expected:
        raise IntegrityError
    copies = {name: np.array(value) for name, value in values.items()}
    wipe(values)
    return copies, known_answer


def put_in_place(
    options: onnxruntime.SessionOptions, external: Mapping[str, Buffer], secret_values: Mapping[str, Array]
) -> None:
    """Let onnxruntime take external data from memory, and the gate tensors from the secret values.

    Secret values must stay alive until the session is made, which copies them. The external files must stay alive as
    long as the session: weights are used where they lie, which saves a copy of the model
    (docs/decisions/0001).
    """
    options.add_session_config_entry("session.use_external_initializer_file_buffers_directly", "1")
    names = list(external)
    buffers = [external[name] for name in names]
    options.add_external_initializers_from_files_in_memory(names, buffers, [len(buffer) for buffer in buffers])
    if secret_values:
        # Not add_initializer: optimization folds the defaults first, and then ignores the override silently.
        ortvalues = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in secret_values.values()]
        options.add_external_initializers(list(secret_values), ortvalues)


def wipe(values: Mapping[str, Array]) -> None:
    """Overwrite our copies of secret values; onnxruntime keeps its own."""
    for value in values.values():
        if value.flags.writeable:
            value[...] = 0
