"""TPM commands through tpm2-pytss; see `Connection`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_AUTH,
    TPM2B_ECC_POINT,
    TPM2B_NV_PUBLIC,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
    TPMT_TK_HASHCHECK,
    TSS2_Exception,
)

from keylatch.keys._tpm._response_codes import TpmResponseError
from keylatch.keys._tpm._structures import ECDSA_SHA256, NO_HASH_TICKET, SESSION_CIPHER


@contextlib.contextmanager
def _response_codes() -> Iterator[None]:
    try:
        yield
    except TSS2_Exception as error:
        raise TpmResponseError(int(error.rc), str(error)) from None


@_response_codes()
def connect(tcti: str) -> PytssConnection:
    """Connects to the TPM behind a TCTI.

    Raises:
        TpmResponseError: It cannot be reached.
    """
    return PytssConnection(ESAPI(tcti))


class PytssConnection:
    """TPM commands through tpm2-pytss. A `Connection`."""

    def __init__(self, esapi: Any) -> None:
        self._esapi = esapi

    @_response_codes()
    def open_handle(self, tpm_handle: int) -> int:
        return int(self._esapi.tr_from_tpmpublic(tpm_handle))

    @_response_codes()
    def name(self, handle: int) -> bytes:
        return bytes(self._esapi.tr_get_name(ESYS_TR(handle)))

    @_response_codes()
    def read_public(self, handle: int) -> bytes:
        return bytes(self._esapi.read_public(ESYS_TR(handle))[0].marshal())

    @_response_codes()
    def read_nv_public(self, handle: int) -> bytes:
        return bytes(self._esapi.nv_read_public(ESYS_TR(handle))[0].marshal())

    @_response_codes()
    def create_primary(self, template: bytes) -> int:
        return int(self._esapi.create_primary(TPM2B_SENSITIVE_CREATE(), _parse(TPM2B_PUBLIC, template))[0])

    @_response_codes()
    def create(self, parent: int, session: int, template: bytes, pin: bytes) -> tuple[bytes, bytes]:
        sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=TPM2B_AUTH(pin)))
        private, public, *_ = self._esapi.create(
            ESYS_TR(parent), sensitive, _parse(TPM2B_PUBLIC, template), session1=ESYS_TR(session)
        )
        return bytes(private.marshal()), bytes(public.marshal())

    @_response_codes()
    def load(self, parent: int, private: bytes, public: bytes) -> int:
        wrapped = _parse(TPM2B_PRIVATE, private), _parse(TPM2B_PUBLIC, public)
        return int(self._esapi.load(ESYS_TR(parent), *wrapped))

    @_response_codes()
    def start_session(self, kind: int, salt_key: int) -> int:
        cipher = _parse(TPMT_SYM_DEF, SESSION_CIPHER)
        return int(
            self._esapi.start_auth_session(ESYS_TR(salt_key), ESYS_TR.NONE, TPM2_SE(kind), cipher, TPM2_ALG.SHA256)
        )

    @_response_codes()
    def set_attributes(self, session: int, attributes: int) -> None:
        self._esapi.trsess_set_attributes(ESYS_TR(session), attributes)

    @_response_codes()
    def set_pin(self, handle: int, pin: bytes) -> None:
        self._esapi.tr_set_auth(ESYS_TR(handle), TPM2B_AUTH(pin))

    @_response_codes()
    def policy_pcr(self, session: int, pcr_digest: bytes, selection: bytes) -> None:
        self._esapi.policy_pcr(ESYS_TR(session), pcr_digest, _parse(TPML_PCR_SELECTION, selection))

    @_response_codes()
    def policy_auth_value(self, session: int) -> None:
        self._esapi.policy_auth_value(ESYS_TR(session))

    @_response_codes()
    def ecdh_zgen(self, key: int, session: int, point: bytes) -> bytes:
        peer = _parse(TPM2B_ECC_POINT, point)
        return bytes(self._esapi.ecdh_zgen(ESYS_TR(key), peer, session1=ESYS_TR(session)).marshal())

    @_response_codes()
    def sign(self, key: int, session: int, digest: bytes) -> bytes:
        scheme, ticket = _parse(TPMT_SIG_SCHEME, ECDSA_SHA256), _parse(TPMT_TK_HASHCHECK, NO_HASH_TICKET)
        signature = self._esapi.sign(ESYS_TR(key), digest, scheme, ticket, session1=ESYS_TR(session))
        return bytes(signature.marshal())

    @_response_codes()
    def read_pcrs(self, session: int, selection: bytes) -> tuple[bytes, bytes]:
        _, read, digests = self._esapi.pcr_read(_parse(TPML_PCR_SELECTION, selection), ESYS_TR(session))
        return bytes(read.marshal()), bytes(digests.marshal())

    @_response_codes()
    def define_nv(self, session: int, nv_public: bytes) -> int:
        public = _parse(TPM2B_NV_PUBLIC, nv_public)
        return int(self._esapi.nv_define_space(None, public, session1=ESYS_TR(session)))

    @_response_codes()
    def increment_nv(self, index: int, session: int) -> None:
        self._esapi.nv_increment(ESYS_TR(index), session1=ESYS_TR(session))

    @_response_codes()
    def read_nv(self, index: int, session: int, size_bytes: int) -> bytes:
        return bytes(self._esapi.nv_read(ESYS_TR(index), size_bytes, session1=ESYS_TR(session)))

    @_response_codes()
    def flush(self, handle: int) -> None:
        self._esapi.flush_context(ESYS_TR(handle))

    def close(self) -> None:
        self._esapi.close()


def _parse(structure: Any, data: bytes) -> Any:
    return structure.unmarshal(data)[0]
