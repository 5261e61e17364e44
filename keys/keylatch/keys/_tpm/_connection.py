"""The TPM commands that a key and a counter need, as one protocol, and the choice between the two that send them.

Both speak to the TPM through the same C library, the TSS's ESAPI, which computes the sessions' HMACs, encrypts, and
checks what comes back. They differ in what has to be installed: `_pytss` needs a compiler once, `_esys` never.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, cast

from keylatch.errors import KeyStoreMissingError, MissingExtraError
from keylatch.keys._tpm._location import BACKENDS, TpmAccess
from keylatch.keys._tpm._response_codes import TpmResponseError

# TPM2_SE, and TPMA_SESSION (part 2, sections 6.11 and 8.4).
SESSION_HMAC = 0x00
SESSION_POLICY = 0x01
CONTINUE_SESSION = 0x01
DECRYPT_COMMAND = 0x20
ENCRYPT_RESPONSE = 0x40
AUDIT = 0x80

# How the TSS finds a level in TSS2_LOG: by prefix, in any case, whichever module it is for (tpm2-tss, src/util/log.c).
_WRITES_SECRETS = re.compile(r"\+(?:debug|trace)", re.IGNORECASE)

# One at a time in this process: a TPM works on one command anyway, a connection to a raw device or a simulator is
# exclusive, and two threads with two objects each would run out of the three slots.
_ONE_AT_A_TIME = threading.Lock()


class Connection(Protocol):
    """TPM commands, handles being the ESAPI's own. Each raises `TpmResponseError`.

    Structures go in and come out as the bytes of `_structures`.
    """

    def open_handle(self, tpm_handle: int) -> int:
        """Returns a handle for what the TPM keeps: a persistent key or an NV index."""
        ...

    def name(self, handle: int) -> bytes:
        """Returns the Name of a key or NV index, computed here from the public area that is in use."""
        ...

    def read_public(self, handle: int) -> bytes: ...

    def read_nv_public(self, handle: int) -> bytes: ...

    def create_primary(self, template: bytes) -> int: ...

    def create(self, parent: int, session: int, template: bytes, pin: bytes) -> tuple[bytes, bytes]:
        """Returns TPM2B_PRIVATE and TPM2B_PUBLIC."""
        ...

    def load(self, parent: int, private: bytes, public: bytes) -> int: ...

    def start_session(self, kind: int, salt_key: int) -> int:
        """Starts an unbound session, salted to a key, with SHA-256 and `SESSION_CIPHER`."""
        ...

    def set_attributes(self, session: int, attributes: int) -> None: ...

    def set_pin(self, handle: int, pin: bytes) -> None: ...

    def policy_pcr(self, session: int, pcr_digest: bytes, selection: bytes) -> None: ...

    def policy_auth_value(self, session: int) -> None: ...

    def ecdh_zgen(self, key: int, session: int, point: bytes) -> bytes:
        """Returns the shared point, a TPM2B_ECC_POINT."""
        ...

    def sign(self, key: int, session: int, digest: bytes) -> bytes:
        """Returns a TPMT_SIGNATURE, ECDSA with SHA-256."""
        ...

    def read_pcrs(self, session: int, selection: bytes) -> tuple[bytes, bytes]:
        """Returns the TPML_PCR_SELECTION that was read, at most eight, and their TPML_DIGEST."""
        ...

    def define_nv(self, session: int, nv_public: bytes) -> int: ...

    def increment_nv(self, index: int, session: int) -> None: ...

    def read_nv(self, index: int, session: int, size_bytes: int) -> bytes: ...

    def flush(self, handle: int) -> None: ...

    def close(self) -> None: ...


@contextlib.contextmanager
def connected(access: TpmAccess) -> Iterator[Connection]:
    """Connects to a TPM, for this thread alone in this process.

    Raises:
        KeyStoreMissingError: No TPM there, or it does not answer.
        MissingExtraError: No library to reach it with.
    """
    connect = _find_backend(access.backend)
    with _ONE_AT_A_TIME:
        try:
            tpm = connect(access.tcti)
        except TpmResponseError as error:
            raise _unreachable(access.tcti, error) from None
        try:
            yield tpm
        finally:
            tpm.close()


@contextlib.contextmanager
def flushed(tpm: Connection, handle: int) -> Iterator[int]:
    """Takes a key or session out of the TPM in all cases.

    Without a resource manager it would hold its slot until the TPM restarts. Only what cannot reach the TPM any more
    stays: the connection is gone, this process was killed, or an interposer's answer confused the TSS.
    """
    try:
        yield handle
    except BaseException:
        # The first error is the one to report; the TPM may be gone.
        with contextlib.suppress(TpmResponseError):
            tpm.flush(handle)
        raise
    tpm.flush(handle)


def _find_backend(backend: str | None) -> Callable[[str], Connection]:
    # The TSS writes a line to stderr for each refusal, a wrong PIN too, and reads how much from the environment alone,
    # whenever it first writes. So for this process and its children it is told to keep quiet, unless somebody chose;
    # and in any case not to write what it sends and gets: at DEBUG that is the PIN, at TRACE the shared secret too.
    if _WRITES_SECRETS.search(os.environ.setdefault("TSS2_LOG", "all+NONE")):
        os.environ["TSS2_LOG"] = "all+NONE"
    for name in BACKENDS if backend is None else (backend,):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(f"keylatch.keys._tpm._{name}")
            return cast(Callable[[str], Connection], module.connect)
    raise _not_installed(backend)


def _not_installed(backend: str | None) -> MissingExtraError | KeyStoreMissingError:
    if backend == "esys":
        found = "backend=esys needs libtss2-esys, libtss2-tctildr and libtss2-rc, which are not all installed"
        return KeyStoreMissingError(found, hint="apt-get install tpm2-tools")
    if backend == "pytss":
        return MissingExtraError("backend=pytss", "tpm2-pytss", "tpm")
    package = "tpm2-pytss, or the libraries that `apt-get install tpm2-tools` brings,"
    return MissingExtraError("a tpm: key", package, "tpm")


def _unreachable(tcti: str, error: TpmResponseError) -> KeyStoreMissingError:
    kind, _, path = tcti.partition(":")
    if kind == "device" and not Path(path).exists():
        hint = "enable the TPM in the firmware setup, or give tcti= for another one"
        return KeyStoreMissingError(f"there is no TPM at {path}", hint=hint)
    if kind == "device" and not os.access(path, os.R_OK | os.W_OK):
        hint = "add this user to the device's group: usermod -aG tss USER"
        return KeyStoreMissingError(f"TPM {path} is not open to this user", hint=hint)
    return KeyStoreMissingError(f"no TPM answers at {tcti}: {error}", hint="check tcti=, and that the TPM is running")
