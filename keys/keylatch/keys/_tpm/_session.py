"""Sessions: how a command is authorized, and protected on its way over the bus.

The bus between processor and TPM is a few wires that an interposer reads and alters. Every session here is salted:
its key comes from a secret that is encrypted to the storage root key, so only that TPM and this process know it.
With it each command and response carries an HMAC, and the first parameter, where it matters, is encrypted with
AES-128 in CFB (part 1, section 21). An unsalted session's key would be computed from what is seen on the bus.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from keylatch.errors import PassphraseError
from keylatch.keys._secret_bytes import SecretBytes
from keylatch.keys._tpm._connection import CONTINUE_SESSION, SESSION_HMAC, SESSION_POLICY, Connection, flushed
from keylatch.keys._tpm._key_file import TpmKeyFile
from keylatch.keys._tpm._response_codes import AUTH_FAIL, VALUE, TpmResponseError, platform_changed


@contextlib.contextmanager
def hmac_session(tpm: Connection, salt_key: int) -> Iterator[int]:
    """Starts a salted HMAC session; the caller sets its attributes before each command."""
    with flushed(tpm, tpm.start_session(SESSION_HMAC, salt_key)) as session:
        yield session


@contextlib.contextmanager
def policy_session(
    tpm: Connection, salt_key: int, key: int, key_file: TpmKeyFile, pin: SecretBytes | None, attributes: int
) -> Iterator[int]:
    """Starts a salted session that satisfies a key's policy, for one command.

    Args:
        tpm: A connection.
        salt_key: The storage root key.
        key: The loaded key.
        key_file: Its policy.
        pin: Its PIN, if the policy asks for one.
        attributes: What to encrypt.

    Raises:
        PlatformChangedError: The PCRs have other values.
        PassphraseError: The PIN is wrong.
        TpmResponseError: Anything else that the TPM refuses.
    """
    with flushed(tpm, tpm.start_session(SESSION_POLICY, salt_key)) as session:
        _satisfy_pcrs(tpm, session, key_file)
        if pin is not None:
            tpm.policy_auth_value(session)
            tpm.set_pin(key, pin.reveal())
        tpm.set_attributes(session, CONTINUE_SESSION | attributes)
        try:
            yield session
        except TpmResponseError as error:
            if pin is None or error.kind != AUTH_FAIL:
                raise
            hint = "give its PIN; a few wrong ones lock the TPM for a while"
            raise PassphraseError("wrong PIN for the TPM key", hint=hint) from None


def _satisfy_pcrs(tpm: Connection, session: int, key_file: TpmKeyFile) -> None:
    try:
        # With the expected digest the TPM says at once that it differs, before a PIN is sent and counted as wrong.
        tpm.policy_pcr(session, key_file.pcr_digest, key_file.pcrs.to_wire())
    except TpmResponseError as error:
        if error.kind != VALUE:
            raise
        raise platform_changed("TPM key") from None
