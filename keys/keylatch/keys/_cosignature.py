"""The second, post-quantum signature that a license may carry: ML-DSA-65 (FIPS 204) over its claims.

It is made first, and the claims that the issuer signs hold its digest. So nobody can take it off, swap it or flip a bit
of it without breaking the issuer's signature, and a verifier that demands it is safe when Ed25519 is not.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keylatch.errors import CosignatureError, DeviceKeyError, FormatError
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url, parse_json_object
from keylatch.keys._files import PUBLIC_MODE, write_file
from keylatch.keys._key_file import read_key_file, write_key_file
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._secret_bytes import Uncopyable

# Names and key type of RFC 9964.
ALGORITHM = "ML-DSA-65"
KEY_TYPE = "AKP"
TOKEN_TYPE = "keylatch-cosignature"  # noqa: S105 - a media type, not a password
SIGNATURE_BYTES = 3309

_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")

_HINT = "ask the issuer for a fresh license"


@dataclass(frozen=True, slots=True)
class CosignerPublicKey:
    """The public half of a cosigner key; a device that pins one takes no license without its signature.

    Args:
        key: The ML-DSA-65 public key.

    Attributes:
        thumbprint: RFC 7638 thumbprint over ``alg``, ``kty`` and ``pub``, base64url, 43 characters.
    """

    key: MLDSA65PublicKey = field(repr=False, compare=False)
    thumbprint: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(canonical_json(self.to_jwk())).digest()
        object.__setattr__(self, "thumbprint", encode_base64url(digest))

    def to_jwk(self) -> dict[str, str]:
        """Returns the public JWK (RFC 9964)."""
        return {"alg": ALGORITHM, "kty": KEY_TYPE, "pub": encode_base64url(self.key.public_bytes_raw())}

    @classmethod
    def from_jwk(cls, jwk: dict[str, object]) -> Self:
        """Reads a public ML-DSA-65 JWK.

        Raises:
            FormatError: Another or malformed key.
        """
        if set(jwk) != {"alg", "kty", "pub"} or (jwk["kty"], jwk["alg"]) != (KEY_TYPE, ALGORITHM):
            raise FormatError(f"JWK is not a public {ALGORITHM} key", hint="get the trust file again")
        try:
            return cls(MLDSA65PublicKey.from_public_bytes(decode_base64url(jwk["pub"], "JWK pub")))
        except ValueError as error:
            message = error.message if isinstance(error, FormatError) else f"JWK is not a public {ALGORITHM} key"
            raise FormatError(message, hint="get the trust file again") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes PEM SubjectPublicKeyInfo; refuses to overwrite.

        Raises:
            OutputError: The file exists or cannot be written.
        """
        data = self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_file(Path(path), data, what="cosigner public key file", mode=PUBLIC_MODE)


class CosignerKey(Uncopyable):
    """An issuer's private ML-DSA-65 key, in a file."""

    __slots__ = ("_key", "_public")

    def __init__(self, key: MLDSA65PrivateKey) -> None:
        self._key = key
        self._public = CosignerPublicKey(key.public_key())

    @classmethod
    def generate(cls) -> Self:
        """Makes a new key from the system's randomness."""
        return cls(MLDSA65PrivateKey.generate())

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: PassphraseCallback | None = None) -> Self:
        """Reads a key file that `save` wrote.

        Raises:
            DeviceKeyError: The file is missing, open to others, or no ML-DSA-65 key.
            PassphraseError: The passphrase is missing or wrong.
        """
        key = read_key_file(Path(path), kind="cosigner key", passphrase=passphrase)
        if not isinstance(key, MLDSA65PrivateKey):
            found = f"cosigner key file {path} holds another kind of key, expected {ALGORITHM}"
            raise DeviceKeyError(found, hint="give the cosigner's key")
        return cls(key)

    def save(self, path: str | os.PathLike[str], passphrase: PassphraseCallback | None = None) -> None:
        """Writes the key with mode 0600, encrypted if there is a passphrase; refuses to overwrite.

        Raises:
            OutputError: The file exists or cannot be written.
            PassphraseError: The callback returned no usable passphrase.
        """
        write_key_file(Path(path), self._key, kind="cosigner key", passphrase=passphrase)

    @property
    def public(self) -> CosignerPublicKey:
        """The half to give away."""
        return self._public

    def cosign(self, payload: bytes) -> bytes:
        """Returns a detached JWS of claims (RFC 7515 appendix F): header, an empty payload, signature."""
        header = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": self.public.thumbprint}
        protected = encode_base64url(canonical_json(header))
        signature = self._key.sign(_signed(protected, payload))
        return f"{protected}..{encode_base64url(signature)}".encode("ascii")

    def __repr__(self) -> str:
        return f"CosignerKey(thumbprint={self.public.thumbprint!r})"


def verify_cosignature(cosignature: bytes | None, payload: bytes, cosigners: Sequence[CosignerPublicKey]) -> None:
    """Demands a cosignature of `payload` by one of `cosigners`.

    Raises:
        CosignatureError: There is none, it is another key's, or it does not verify.
    """
    if cosignature is None:
        found = f"license has no {ALGORITHM} signature, and this device demands one"
        raise CosignatureError(found, hint="ask the issuer for a license with one")
    key_id, signature = _parse(cosignature)
    cosigner = next((key for key in cosigners if key.thumbprint == key_id), None)
    if cosigner is None:
        expected = " or ".join(key.thumbprint for key in cosigners[:3])
        raise CosignatureError(f"license is cosigned by {key_id}, expected {expected}", hint=_HINT)
    try:
        cosigner.key.verify(signature, _signed(cosignature.partition(b"..")[0].decode("ascii"), payload))
    except InvalidSignature:
        found = f"license's {ALGORITHM} signature does not verify with key {key_id}"
        raise CosignatureError(found, hint="get an undamaged copy of the license, or ask the issuer for one") from None


def _signed(protected: str, payload: bytes) -> bytes:
    return f"{protected}.{encode_base64url(payload)}".encode("ascii")


def _parse(cosignature: bytes) -> tuple[str, bytes]:
    protected, separator, signature = cosignature.decode("latin-1").partition("..")
    try:
        header = parse_json_object(decode_base64url(protected, "cosignature"), "cosignature header")
        data = decode_base64url(signature, "cosignature")
    except FormatError as error:
        raise CosignatureError(error.message, hint=_HINT) from None
    key_id = header.get("kid")
    expected = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": key_id}
    named = isinstance(key_id, str) and _THUMBPRINT.fullmatch(key_id) is not None
    if not separator or header != expected or not named or len(data) != SIGNATURE_BYTES:
        raise CosignatureError(f"license's second signature is not in the one accepted form, {ALGORITHM}", hint=_HINT)
    return str(key_id), data
