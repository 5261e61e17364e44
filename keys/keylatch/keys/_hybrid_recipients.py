"""HPKE as a JWE key encryption algorithm, for post-quantum recipients (RFC 9180; draft-ietf-jose-hpke-encrypt).

The recipient's header holds the encapsulated key as `ek`, its `encrypted_key` is the sealed content encryption key.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from joserfc.jwa import JWEKeyEncryption
from joserfc.jwe import Recipient
from joserfc.registry import HeaderParameter

from keylatch.keys._encoding import encode_base64url
from keylatch.keys._hybrid_key import HybridPublicKey

# Ours. KE: key encryption, as in the draft. draft-ietf-jose-hpke-pq-pqt would call this KEM with another KDF, SHAKE256,
# HPKE-10-KE; with HKDF, which RFC 9180 specifies, it has no name.
HYBRID_ALGORITHM = "HPKE-MLKEM768-X25519-KE"


class HybridRecipientKey(NamedTuple):
    """What joserfc reads of a recipient's key, and the key."""

    public: HybridPublicKey

    @property
    def kid(self) -> str:
        """The device's thumbprint."""
        return self.public.thumbprint


class HybridKeyEncryption(JWEKeyEncryption):
    """The sealing half, inside joserfc; the opening half needs no more of it than `hpke_info`."""

    name = HYBRID_ALGORITHM
    description = "HPKE with MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM"
    key_types = ["AKP"]  # noqa: RUF012
    more_header_registry = {name: HeaderParameter(name, "str", True) for name in ("ek", "apu", "apv")}  # noqa: RUF012

    def encrypt_cek(self, cek: bytes, recipient: Recipient[Any]) -> bytes:
        """Returns the sealed content encryption key and puts `ek` into the recipient's header."""
        key = recipient.recipient_key
        if not isinstance(key, HybridRecipientKey):
            raise TypeError(f"{HYBRID_ALGORITHM} takes a HybridRecipientKey, got {type(key).__name__}")
        header = recipient.headers()
        encapsulated, sealed = key.public.seal(cek, hpke_info(header["enc"], header["apu"], header["apv"]))
        recipient.add_header("ek", encode_base64url(encapsulated))
        return sealed

    def decrypt_cek(self, recipient: Recipient[Any]) -> bytes:
        """Refuses, as joserfc wants the method of every algorithm: `HybridDeviceKey.open` opens.

        Raises:
            TypeError: Always.
        """
        del recipient
        raise TypeError(f"{HYBRID_ALGORITHM} is opened by HybridDeviceKey.open")


def hpke_info(enc: str, apu: str, apv: str) -> bytes:
    """Returns HPKE's info, the draft's Recipient_structure: what the sealed key is for, the issuer, the license id."""
    return b"\xff".join((b"JOSE-HPKE rcpt", enc.encode("ascii"), f"{apu}.{apv}".encode("ascii")))
