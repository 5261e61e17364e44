"""TPM commands through the TSS's own C library, libtss2-esys, by ctypes: nothing to compile; see `Connection`.

The same library that systemd loads to unlock disks. Structures cross as bytes, through the TSS's marshalling library,
into and out of buffers that are larger than any of them: no layout of a C structure is repeated here, only prototypes,
which the TSS keeps stable under its soname (TCG TSS 2.0 ESAPI specification; tss2_esys.h).
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, byref, c_char_p, c_size_t, c_uint8, c_uint16, c_uint32, c_void_p
from typing import Any, Final

from keylatch.keys._tpm._response_codes import TpmResponseError
from keylatch.keys._tpm._structures import ALG_SHA256, ECDSA_SHA256, NO_HASH_TICKET, SESSION_CIPHER, sized

# ESYS_TR: no session, the empty password, the owner hierarchy.
_NONE: Final = 0xFFF
_PASSWORD: Final = 0x0FF
_OWNER: Final = 0x101

# Larger than any structure of the TSS that is used here; the largest is a TPM2B_MAX_NV_BUFFER, 2050 bytes.
_STRUCTURE_BYTES: Final = 8192

_HANDLE = POINTER(c_uint32)
_OUT = POINTER(c_void_p)
_SESSIONS = [c_uint32] * 3
# After the context, which always comes first.
_PROTOTYPES: Final[dict[str, list[Any]]] = {
    "Esys_TR_FromTPMPublic": [c_uint32, *_SESSIONS, _HANDLE],
    "Esys_TR_GetName": [c_uint32, _OUT],
    "Esys_TR_SetAuth": [c_uint32, c_void_p],
    "Esys_TRSess_SetAttributes": [c_uint32, c_uint8, c_uint8],
    "Esys_ReadPublic": [c_uint32, *_SESSIONS, _OUT, _OUT, _OUT],
    "Esys_NV_ReadPublic": [c_uint32, *_SESSIONS, _OUT, _OUT],
    "Esys_CreatePrimary": [c_uint32, *_SESSIONS, *[c_void_p] * 4, _HANDLE, *[_OUT] * 4],
    "Esys_Create": [c_uint32, *_SESSIONS, *[c_void_p] * 4, *[_OUT] * 5],
    "Esys_Load": [c_uint32, *_SESSIONS, c_void_p, c_void_p, _HANDLE],
    "Esys_StartAuthSession": [c_uint32, c_uint32, *_SESSIONS, c_void_p, c_uint8, c_void_p, c_uint16, _HANDLE],
    "Esys_PolicyPCR": [c_uint32, *_SESSIONS, c_void_p, c_void_p],
    "Esys_PolicyAuthValue": [c_uint32, *_SESSIONS],
    "Esys_ECDH_ZGen": [c_uint32, *_SESSIONS, c_void_p, _OUT],
    "Esys_Sign": [c_uint32, *_SESSIONS, c_void_p, c_void_p, c_void_p, _OUT],
    "Esys_PCR_Read": [*_SESSIONS, c_void_p, _HANDLE, _OUT, _OUT],
    "Esys_NV_DefineSpace": [c_uint32, *_SESSIONS, c_void_p, c_void_p, _HANDLE],
    "Esys_NV_Increment": [c_uint32, c_uint32, *_SESSIONS],
    "Esys_NV_Read": [c_uint32, c_uint32, *_SESSIONS, c_uint16, c_uint16, _OUT],
    "Esys_FlushContext": [c_uint32],
}


def connect(tcti: str) -> EsysConnection:
    """Connects to the TPM behind a TCTI.

    Raises:
        TpmResponseError: It cannot be reached.
    """
    return EsysConnection(tcti)


class EsysConnection:
    """TPM commands through libtss2-esys. A `Connection`."""

    def __init__(self, tcti: str) -> None:
        self._tcti, self._context = c_void_p(), c_void_p()
        _check(_TCTILDR.Tss2_TctiLdr_Initialize(tcti.encode("ascii"), byref(self._tcti)))
        try:
            _check(_ESYS.Esys_Initialize(byref(self._context), self._tcti, None))
        except TpmResponseError:
            self.close()
            raise

    def open_handle(self, tpm_handle: int) -> int:
        return self._handle("Esys_TR_FromTPMPublic", tpm_handle, _NONE, _NONE, _NONE)

    def name(self, handle: int) -> bytes:
        return self._structures("Esys_TR_GetName", [handle], ["TPM2B_NAME"])[0][2:]

    def read_public(self, handle: int) -> bytes:
        wanted = ["TPM2B_PUBLIC", None, None]
        return self._structures("Esys_ReadPublic", [handle, _NONE, _NONE, _NONE], wanted)[0]

    def read_nv_public(self, handle: int) -> bytes:
        wanted = ["TPM2B_NV_PUBLIC", None]
        return self._structures("Esys_NV_ReadPublic", [handle, _NONE, _NONE, _NONE], wanted)[0]

    def create_primary(self, template: bytes) -> int:
        handle = c_uint32()
        arguments = [_OWNER, _PASSWORD, _NONE, _NONE, *_creation(template, b""), byref(handle)]
        self._structures("Esys_CreatePrimary", arguments, [None] * 4)
        return handle.value

    def create(self, parent: int, session: int, template: bytes, pin: bytes) -> tuple[bytes, bytes]:
        arguments = [parent, session, _NONE, _NONE, *_creation(template, pin)]
        wanted = ["TPM2B_PRIVATE", "TPM2B_PUBLIC", None, None, None]
        private, public, *_ = self._structures("Esys_Create", arguments, wanted)
        return private, public

    def load(self, parent: int, private: bytes, public: bytes) -> int:
        wrapped = _structure("TPM2B_PRIVATE", private), _structure("TPM2B_PUBLIC", public)
        return self._handle("Esys_Load", parent, _PASSWORD, _NONE, _NONE, *wrapped)

    def start_session(self, kind: int, salt_key: int) -> int:
        cipher = _structure("TPMT_SYM_DEF", SESSION_CIPHER)
        arguments = [salt_key, _NONE, _NONE, _NONE, _NONE, None, kind, cipher, ALG_SHA256]
        return self._handle("Esys_StartAuthSession", *arguments)

    def set_attributes(self, session: int, attributes: int) -> None:
        self._call("Esys_TRSess_SetAttributes", session, attributes, 0xFF)

    def set_pin(self, handle: int, pin: bytes) -> None:
        self._call("Esys_TR_SetAuth", handle, _structure("TPM2B_DIGEST", sized(pin)))

    def policy_pcr(self, session: int, pcr_digest: bytes, selection: bytes) -> None:
        expected = _structure("TPM2B_DIGEST", sized(pcr_digest)), _structure("TPML_PCR_SELECTION", selection)
        self._call("Esys_PolicyPCR", session, _NONE, _NONE, _NONE, *expected)

    def policy_auth_value(self, session: int) -> None:
        self._call("Esys_PolicyAuthValue", session, _NONE, _NONE, _NONE)

    def ecdh_zgen(self, key: int, session: int, point: bytes) -> bytes:
        arguments = [key, session, _NONE, _NONE, _structure("TPM2B_ECC_POINT", point)]
        return self._structures("Esys_ECDH_ZGen", arguments, ["TPM2B_ECC_POINT"])[0]

    def sign(self, key: int, session: int, digest: bytes) -> bytes:
        scheme, ticket = _structure("TPMT_SIG_SCHEME", ECDSA_SHA256), _structure("TPMT_TK_HASHCHECK", NO_HASH_TICKET)
        arguments = [key, session, _NONE, _NONE, _structure("TPM2B_DIGEST", sized(digest)), scheme, ticket]
        return self._structures("Esys_Sign", arguments, ["TPMT_SIGNATURE"])[0]

    def read_pcrs(self, session: int, selection: bytes) -> tuple[bytes, bytes]:
        arguments = [session, _NONE, _NONE, _structure("TPML_PCR_SELECTION", selection), byref(c_uint32())]
        read, digests = self._structures("Esys_PCR_Read", arguments, ["TPML_PCR_SELECTION", "TPML_DIGEST"])
        return read, digests

    def define_nv(self, session: int, nv_public: bytes) -> int:
        public = _structure("TPM2B_NV_PUBLIC", nv_public)
        return self._handle("Esys_NV_DefineSpace", _OWNER, session, _NONE, _NONE, None, public)

    def increment_nv(self, index: int, session: int) -> None:
        self._call("Esys_NV_Increment", index, index, session, _NONE, _NONE)

    def read_nv(self, index: int, session: int, size_bytes: int) -> bytes:
        arguments = [index, index, session, _NONE, _NONE, size_bytes, 0]
        return self._structures("Esys_NV_Read", arguments, ["TPM2B_MAX_NV_BUFFER"])[0][2:]

    def flush(self, handle: int) -> None:
        self._call("Esys_FlushContext", handle)

    def close(self) -> None:
        if self._context:
            _ESYS.Esys_Finalize(byref(self._context))
        if self._tcti:
            _TCTILDR.Tss2_TctiLdr_Finalize(byref(self._tcti))

    def _call(self, function: str, *arguments: Any) -> None:
        _check(getattr(_ESYS, function)(self._context, *arguments))

    def _handle(self, function: str, *arguments: Any) -> int:
        handle = c_uint32()
        self._call(function, *arguments, byref(handle))
        return handle.value

    def _structures(self, function: str, arguments: list[Any], wanted: list[str | None]) -> list[bytes]:
        # Each result is allocated by the TSS, and freed here whether it is wanted or not.
        results = [c_void_p() for _ in wanted]
        self._call(function, *arguments, *map(byref, results))
        try:
            return [_wire(kind, result) for kind, result in zip(wanted, results, strict=True) if kind]
        finally:
            for result in results:
                _ESYS.Esys_Free(result)


def _creation(template: bytes, pin: bytes) -> list[Any]:
    # TPM2B_SENSITIVE_CREATE: the PIN, no data; then the template, no outside information, no creation PCRs.
    sensitive = _structure("TPM2B_SENSITIVE_CREATE", sized(sized(pin) + sized(b"")))
    nothing = _structure("TPM2B_DIGEST", sized(b"")), _structure("TPML_PCR_SELECTION", bytes(4))
    return [sensitive, _structure("TPM2B_PUBLIC", template), *nothing]


def _structure(kind: str, wire: bytes) -> ctypes.Array[Any]:
    structure = ctypes.create_string_buffer(_STRUCTURE_BYTES)
    _check(_marshalling(f"Tss2_MU_{kind}_Unmarshal")(wire, len(wire), byref(c_size_t()), structure))
    return structure


def _wire(kind: str, structure: c_void_p) -> bytes:
    buffer, end = ctypes.create_string_buffer(_STRUCTURE_BYTES), c_size_t()
    _check(_marshalling(f"Tss2_MU_{kind}_Marshal")(structure, buffer, _STRUCTURE_BYTES, byref(end)))
    return buffer.raw[: end.value]


def _check(code: int) -> None:
    if code:
        raise TpmResponseError(code, _RC.Tss2_RC_Decode(code).decode("ascii", "replace"))


@functools.cache
def _marshalling(name: str) -> Any:
    buffer_first = name.endswith("_Unmarshal")
    arguments = [c_void_p, c_size_t, POINTER(c_size_t)]
    function = getattr(_MU, name)
    function.argtypes = [*arguments, c_void_p] if buffer_first else [c_void_p, *arguments]
    function.restype = c_uint32
    return function


def _open_library(name: str) -> ctypes.CDLL:
    try:
        # By soname, from the system's library path, as for any program that is linked with it.
        return ctypes.CDLL(name)
    except OSError:
        raise ImportError(f"{name} is not installed") from None


def _declare(function: Any, arguments: list[Any], result: Any = c_uint32) -> None:
    function.argtypes, function.restype = arguments, result


_ESYS, _TCTILDR, _MU, _RC = map(
    _open_library, ("libtss2-esys.so.0", "libtss2-tctildr.so.0", "libtss2-mu.so.0", "libtss2-rc.so.0")
)
_declare(_TCTILDR.Tss2_TctiLdr_Initialize, [c_char_p, _OUT])
_declare(_TCTILDR.Tss2_TctiLdr_Finalize, [_OUT], None)
_declare(_ESYS.Esys_Initialize, [_OUT, c_void_p, c_void_p])
_declare(_ESYS.Esys_Finalize, [_OUT], None)
_declare(_ESYS.Esys_Free, [c_void_p], None)
_declare(_RC.Tss2_RC_Decode, [c_uint32], c_char_p)
for _name, _arguments in _PROTOTYPES.items():
    _declare(getattr(_ESYS, _name), [c_void_p, *_arguments])
