"""The verified opening: from files on disk to session options that hold the secret values, or an error.

The steps and their order are those of docs/format.md; the numbers stand at the blocks. Step 1 is in `_credentials`,
steps 2 to 4 and 8 to 10 are in `keylatch.keys`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnxruntime

from keylatch.errors import IntegrityError, WrongModelError
from keylatch.keys import (
    Claims,
    DeviceState,
    RevocationList,
    check_revocations,
    check_validity,
    decrypt_license,
    verify_license,
)
from keylatch.runtime._aligned_buffer import Buffer
from keylatch.runtime._credentials import Credentials
from keylatch.runtime._known_answer import split_license
from keylatch.runtime._manifest import GateTensor

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, repr=False)
class Opened:
    """What a license gave.

    Args:
        claims: What it says.
        moment: What counts as now, seconds since the epoch: never before what this device knows to have passed.
        values: Secret values by gate tensor name, in memory of our own.
        known_answer: What proves that they are in place.
    """

    claims: Claims
    moment: int
    values: dict[str, Array]
    known_answer: dict[str, Array]


def open_license(credentials: Credentials, model_id: str, gate: Sequence[GateTensor], *, now: int) -> Opened:
    """Steps 2 to 6 and 8 to 11: from a license to secret values that fit the model.

    Args:
        credentials: From step 1.
        model_id: The identity of the model, whose files are verified or will be before it answers.
        gate: The model's gate tensors.
        now: The system's clock, seconds since the epoch.

    Raises:
        LicenseError: The license is not valid, not now, not for this model or not for this device.
        ClockError, DeviceStateError: What the device remembers forbids it.
        IntegrityError: Anything from the decryption on.
    """
    claims, moment = _verify(credentials, model_id, now)
    values, known_answer = _decrypt(credentials, claims, gate)
    return Opened(claims, moment, values, known_answer)


def remember(credentials: Credentials, claims: Claims, *, moment: int) -> None:
    """Lets the device remember a license that opened, so that an older one is refused from then on.

    Raises:
        DeviceStateError, ClockError, OutputError: It cannot.
    """
    if credentials.state is not None:
        credentials.state.remember(claims, credentials.revocations, now=moment)


def remember_list(state: DeviceState | None, revocations: RevocationList | None, *, now: int) -> None:
    """Lets the device remember a revocation list, whatever that says of the license.

    Raises:
        OlderRevocationListError: A newer one was seen.
        DeviceStateError, ClockError, OutputError: What the device remembers cannot be believed, or written.
    """
    if state is not None and revocations is not None:
        state.remember_list(revocations, now=now)


def _moment(credentials: Credentials, claims: Claims, now: int) -> int:
    state, revocations = credentials.state, credentials.revocations
    if state is not None:
        return state.check(claims, revocations, now=now)
    return max(now, claims.issued_at, 0 if revocations is None else revocations.issued_at)


def _verify(credentials: Credentials, model_id: str, now: int) -> tuple[Claims, int]:
    # 2. to 4. Signature by a pinned issuer; typ, iss, aud, version; nbf and exp against the clock floor.
    claims = verify_license(credentials.license, credentials.trust, now=now)
    # 5. What this device remembers moves "now" on, never back; then the revocation list; then the time once more.
    moment = _moment(credentials, claims, now)
    remember_list(credentials.state, credentials.revocations, now=moment)
    check_revocations(claims, credentials.revocations, now=moment)
    check_validity(claims, now=moment)
    # 6. The model is the one that the license was issued for.
    if claims.model_id != model_id:
        raise WrongModelError(
            f"license for model {claims.model_id[:8]}… does not fit this model, {model_id[:8]}…",
            hint="ask the issuer for a license for this version, or open the model it was issued for",
        )
    return claims, moment


def _decrypt(
    credentials: Credentials, claims: Claims, gate: Sequence[GateTensor]
) -> tuple[dict[str, Array], dict[str, Array]]:
    # 8. to 10. Digests, one key agreement, unwrap, decrypt.
    values = decrypt_license(credentials.license, claims, credentials.open_key())
    values, known_answer = split_license(values)
    # 11. Names, dtypes and shapes are the manifest's; onnxruntime would accept others silently.
    expected = {tensor.name: (np.dtype(tensor.dtype), tensor.shape) for tensor in gate}
    if {name: (value.dtype, value.shape) for name, value in values.items()} != expected:
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
