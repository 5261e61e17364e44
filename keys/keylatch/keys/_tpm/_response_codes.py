"""What a TPM, or the software on the way to it, answers when it refuses, as our errors (part 2, section 6.6)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from keylatch.errors import (
    DeviceKeyError,
    FormatError,
    KeylatchError,
    KeyStoreBusyError,
    KeyStoreLockedError,
    KeyStoreMissingError,
    PlatformChangedError,
)

# Format one: with the bit 0x80, and a handle, session or parameter number that is taken out for comparison.
VALUE: Final = 0x084
HANDLE: Final = 0x08B
AUTH_FAIL: Final = 0x08E
POLICY_FAIL: Final = 0x09D
BAD_AUTH: Final = 0x0A2
# Format zero: errors and warnings of the whole TPM.
PCR_CHANGED: Final = 0x128
NV_UNINITIALIZED: Final = 0x14A
NV_SPACE: Final = 0x14B
NV_DEFINED: Final = 0x14C
LOCKOUT: Final = 0x921
AUTH_REFUSED: Final = frozenset({AUTH_FAIL, BAD_AUTH})

# CONTEXT_GAP, OBJECT_MEMORY, SESSION_MEMORY, MEMORY, SESSION_HANDLES, OBJECT_HANDLES.
_NO_SLOT = frozenset(range(0x901, 0x907))
# YIELDED, TESTING, NV_RATE, RETRY.
_LATER = frozenset({0x908, 0x90A, 0x920, 0x922})

# The layers above the TPM that can answer for it (TCG TSS 2.0 Overview, table 2).
_LAYER_TCTI: Final = 10
_LAYERS_WITH_TPM_CODES: Final = frozenset({0, 11, 12})  # the TPM, and two kinds of resource manager
_FORMAT_ONE: Final = 0x080
_OF_A_PARAMETER: Final = 0x040


class TpmResponseError(Exception):
    """A response code other than success; never leaves this package.

    Args:
        code: TSS2_RC, 32 bits: the layer in bits 16 to 23, its code below.
        text: What the TSS says about it.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} (0x{code:08x})")
        self.code = code
        self.layer = code >> 16 & 0xFF

    @property
    def kind(self) -> int:
        """The TPM's code without its handle, session or parameter number; 0 if another layer answered."""
        if self.layer not in _LAYERS_WITH_TPM_CODES:
            return 0
        return self.code & 0x0BF if self.code & _FORMAT_ONE else self.code & 0xFFF

    @property
    def about_parameter(self) -> bool:
        """The TPM refused a command's parameter, not a handle or a session."""
        return bool(self.kind and self.code & _FORMAT_ONE and self.code & _OF_A_PARAMETER)


@contextlib.contextmanager
def reported(what: str) -> Iterator[None]:
    """Turns what a TPM refuses, and what it answers that cannot be, into our errors.

    Args:
        what: Names the key or counter in the error.

    Raises:
        KeyStoreMissingError: The TPM does not answer.
        KeyStoreLockedError: It takes no PIN for now.
        KeyStoreBusyError: It has no free slot, or asks to try later.
        PlatformChangedError: Its PCRs are not those of the key.
        DeviceKeyError: Anything else; with the TPM's code.
    """
    try:
        yield
    except TpmResponseError as error:
        raise _translate(error, what) from None
    except FormatError as error:
        raise DeviceKeyError(f"{what}: {error.message}", hint="check the TPM and the way to it") from None


def platform_changed(what: str) -> PlatformChangedError:
    """Returns the error for PCRs with other values."""
    hint = "boot as when the key was made, or generate another key and enroll it"
    return PlatformChangedError(f"{what} is bound to PCR values that this machine does not have now", hint=hint)


def _translate(error: TpmResponseError, what: str) -> KeylatchError:
    if error.layer == _LAYER_TCTI:
        return KeyStoreMissingError(f"{what}: the TPM does not answer: {error}", hint="check tcti= and the TPM")
    if error.kind == LOCKOUT:
        hint = "wait until the lockout ends, or end it as the TPM's owner: tpm2_dictionarylockout --clear-lockout"
        return KeyStoreLockedError(f"{what}: the TPM takes no PIN for now, after too many wrong ones", hint=hint)
    if error.kind in _NO_SLOT:
        hint = "try again; without a resource manager, flush what others left: tpm2_flushcontext -t, -l and -s"
        return KeyStoreBusyError(f"{what}: the TPM has no free slot: {error}", hint=hint)
    if error.kind in _LATER:
        return KeyStoreBusyError(f"{what}: the TPM is busy: {error}", hint="try again in a few seconds")
    if error.kind in (PCR_CHANGED, POLICY_FAIL):
        return platform_changed(what)
    return DeviceKeyError(f"{what}: the TPM refuses: {error}", hint="check the file, the TPM and the way to it")
