"""A device key in a file under AWS KMS."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from keylatch.errors import DeviceKeyError, FormatError
from keylatch.keys._device_key import DevicePublicKey
from keylatch.keys._file_device_key import FileDeviceKey
from keylatch.keys._files import PRIVATE_MODE, read_private_file, write_file
from keylatch.keys._key_file import MAX_KEY_FILE_BYTES
from keylatch.keys._kms._service import make_data_key, open_data_key
from keylatch.keys._kms._uri import KmsUri, parse_kms_uri
from keylatch.keys._kms._wrapping import Wrapping
from keylatch.keys._passphrase import PassphraseCallback
from keylatch.keys._sealed import open_with_data_key, read_wrapping, seal_with_data_key
from keylatch.keys._secret_bytes import SecretBytes, Uncopyable


class KmsDeviceKey(Uncopyable):
    """A device key in a file that only AWS KMS can open: an unwrap interface. A `DeviceKey`.

    KMS is asked once, when the key is opened: its policy decides who may, its log says who did, and disabling the KMS
    key stops every later start. While it is open, the private key is in this process's memory, as a `FileDeviceKey`
    is; KMS protects it at rest. (KMS could keep a P-256 key and do ECDH itself, by DeriveSharedSecret; then every
    license would cost a round trip, and a price, per opening.)
    """

    __slots__ = ("_key",)

    def __init__(self, key: FileDeviceKey) -> None:
        self._key = key

    @property
    def public(self) -> DevicePublicKey:
        """The half that licenses are issued to."""
        return self._key.public

    def exchange(self, peer: EllipticCurvePublicKey) -> SecretBytes:
        """Returns the ECDH shared secret with `peer`: the raw x coordinate, 32 bytes, big-endian.

        Raises:
            DeviceKeyError: `peer` is on another curve.
        """
        return self._key.exchange(peer)

    def prove_possession(self, statement: bytes) -> bytes:
        """Returns an ECDSA signature with SHA-256 of `statement`: r and s, 64 bytes; see `ProvingDeviceKey`."""
        return self._key.prove_possession(statement)

    def __repr__(self) -> str:
        return f"KmsDeviceKey(thumbprint={self.public.thumbprint!r})"


def open_device_key(location: str, passphrase: PassphraseCallback | None) -> KmsDeviceKey:  # noqa: ARG001
    """Opens a key file, with one call of KMS Decrypt.

    Args:
        location: What follows ``awskms:``. The file says which KMS key it is under; ``key-id`` and ``region``, if
            given, must agree.
        passphrase: Not called: KMS knows its callers by their AWS credentials.

    Raises:
        KeyStoreMissingError: KMS does not answer, or has no such key.
        DeviceKeyError: The file is missing, unsafe or damaged, or KMS refuses to open it.
    """
    uri = parse_kms_uri(location)
    data = read_private_file(uri.path, what="device key file", max_bytes=MAX_KEY_FILE_BYTES)
    try:
        return KmsDeviceKey(_open(data, uri))
    except FormatError as error:
        raise DeviceKeyError(error.message, hint=error.hint) from None


def generate_device_key(location: str, passphrase: PassphraseCallback | None) -> KmsDeviceKey:  # noqa: ARG001
    """Makes a key and writes it to a file with mode 0600, sealed under a data key that KMS makes; never replaces one.

    Args:
        location: What follows ``awskms:``, with a ``key-id``, and a ``region`` unless the id is an ARN.
        passphrase: Not called.

    Raises:
        OutputError: The file exists or cannot be written.
        KeyStoreMissingError: KMS does not answer, or has no such key.
        DeviceKeyError: No key-id or region, or KMS refuses.
    """
    uri = parse_kms_uri(location)
    if uri.key_id is None or uri.region is None:
        missing = "key-id" if uri.key_id is None else "region"
        hint = "write awskms:PATH?key-id=KEY-ARN, or key-id=ID&region=REGION"
        raise DeviceKeyError(f"awskms: URI has no {missing}, which a new key needs", hint=hint)
    key = generate_private_key(SECP256R1())
    data = _seal(key, uri.key_id, uri.region, uri.endpoint_url)
    write_file(uri.path, data, what="device key file", mode=PRIVATE_MODE)
    return KmsDeviceKey(FileDeviceKey(key))


def _seal(key: EllipticCurvePrivateKey, key_id: str, region: str, endpoint_url: str | None) -> bytes:
    thumbprint = DevicePublicKey(key.public_key()).thumbprint
    try:
        data_key, wrapping = make_data_key(key_id, thumbprint, region=region, endpoint_url=endpoint_url)
    except FormatError as error:
        raise DeviceKeyError(f"AWS KMS answered out of bounds: {error.message}", hint="check endpoint-url") from None
    plaintext = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return seal_with_data_key(plaintext, kind="device key", key=data_key, wrapping=wrapping.to_header())


def _open(data: bytes, uri: KmsUri) -> FileDeviceKey:
    what = f"device key file {uri.path}"
    wrapping = Wrapping.from_header(read_wrapping(data, kind="device key", what=what))
    _check_region(uri, wrapping)
    data_key = open_data_key(wrapping, key_id=uri.key_id, endpoint_url=uri.endpoint_url)
    opened = open_with_data_key(data, kind="device key", key=data_key, what=what)
    return _parse_private_key(opened, wrapping.thumbprint, uri)


def _check_region(uri: KmsUri, wrapping: Wrapping) -> None:
    if uri.region not in (None, wrapping.region):
        found = f"device key file {uri.path} is under a KMS key in {wrapping.region}, got region {uri.region}"
        raise DeviceKeyError(found, hint="leave region out, or name the right one")


def _parse_private_key(opened: SecretBytes, thumbprint: str, uri: KmsUri) -> FileDeviceKey:
    try:
        key = load_der_private_key(opened.reveal(), password=None)
    except ValueError:
        key = None
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        device_key = FileDeviceKey(key)
        if device_key.public.thumbprint == thumbprint:
            return device_key
    hint = "generate another device key"
    raise DeviceKeyError(f"device key file {uri.path} holds another key than it says", hint=hint)
