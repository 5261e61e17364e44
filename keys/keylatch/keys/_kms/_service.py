"""AWS KMS: making a data key and opening one, with short timeouts, and its answers as errors with hints.

Credentials come from boto3's own chain: environment, shared files, web identity, container and instance roles. Its
settings that would send requests elsewhere (AWS_ENDPOINT_URL and the like) are not read: a data key comes back in the
answer. What botocore takes for TLS from the environment is (HTTPS_PROXY, AWS_CA_BUNDLE, SSLKEYLOGFILE): whoever sets
those can read the answer. Logging of botocore at DEBUG writes answers out, and with them data keys: do not switch it on
in production.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as UnreachableError
from botocore.parsers import ResponseParserError

from keylatch.errors import DeviceKeyError, KeyStoreMissingError
from keylatch.keys._kms._wrapping import Wrapping, encryption_context
from keylatch.keys._secret_bytes import SecretBytes

DATA_KEY_BYTES = 32
CONNECT_TIMEOUT_SECONDS = 3
READ_TIMEOUT_SECONDS = 5
# The first try and one more: a device that starts should say soon that KMS is out of reach.
MAX_ATTEMPTS = 2

_CREDENTIAL_ERRORS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)


class _Answer(NamedTuple):
    error: type[DeviceKeyError]
    found: str
    hint: str


_NO_CREDENTIALS = _Answer(
    DeviceKeyError, "has no AWS credentials to be asked with", "run aws configure, or set AWS_PROFILE or a role"
)
_BAD_CREDENTIALS = _Answer(
    DeviceKeyError, "does not take the AWS credentials", "renew them, and check this machine's clock"
)
_UNREACHABLE = _Answer(KeyStoreMissingError, "does not answer", "check the network, region and endpoint-url, and retry")
_FOREIGN = _Answer(
    DeviceKeyError, "does not open the data key in the file", "check key-id, and that the file is undamaged and in full"
)

# Error codes of GenerateDataKey and Decrypt (KMS API reference), and those common to all of AWS.
_ANSWERS = {
    "AccessDeniedException": _Answer(
        DeviceKeyError,
        "denies access to the key",
        "allow kms:GenerateDataKey (to generate) or kms:Decrypt (to open) in the key's policy or this role's",
    ),
    "DisabledException": _Answer(DeviceKeyError, "has the key disabled", "enable it with aws kms enable-key"),
    "KMSInvalidStateException": _Answer(
        DeviceKeyError, "has the key in a state that allows no use", "cancel its deletion, or import its material"
    ),
    "NotFoundException": _Answer(KeyStoreMissingError, "has no such key", "check key-id, region and account"),
    "InvalidCiphertextException": _FOREIGN,
    "IncorrectKeyException": _FOREIGN,
    "InvalidKeyUsageException": _Answer(
        DeviceKeyError, "has a key of another kind there", "name a symmetric encryption key"
    ),
    "ThrottlingException": _Answer(KeyStoreMissingError, "has too many requests for now", "try again in a minute"),
    "DependencyTimeoutException": _UNREACHABLE,
    "KeyUnavailableException": _UNREACHABLE,
    "KMSInternalException": _UNREACHABLE,
    "ServiceUnavailableException": _UNREACHABLE,
    "ExpiredTokenException": _BAD_CREDENTIALS,
    "IncompleteSignature": _BAD_CREDENTIALS,
    "InvalidClientTokenId": _BAD_CREDENTIALS,
    "InvalidSignatureException": _BAD_CREDENTIALS,
    "MissingAuthenticationTokenException": _BAD_CREDENTIALS,
    "UnrecognizedClientException": _BAD_CREDENTIALS,
}


def make_data_key(
    key_id: str, thumbprint: str, *, region: str, endpoint_url: str | None
) -> tuple[SecretBytes, Wrapping]:
    """Has KMS make a 32-byte data key, bound to the device key `thumbprint`.

    Raises:
        KeyStoreMissingError: KMS does not answer, or has no such key.
        DeviceKeyError: It refuses, or answers nonsense.
        FormatError: The wrapped key is larger than a file may hold.
    """
    answer = _ask(
        "generate_data_key",
        region,
        endpoint_url,
        {"KeyId": key_id, "KeySpec": "AES_256", "EncryptionContext": encryption_context(thumbprint)},
    )
    key_arn, wrapped = answer.get("KeyId"), answer.get("CiphertextBlob")
    if not isinstance(key_arn, str) or not isinstance(wrapped, bytes):
        raise _nonsense(region)
    return _data_key(answer, region), Wrapping(key_arn, wrapped, thumbprint)


def open_data_key(wrapping: Wrapping, *, key_id: str | None, endpoint_url: str | None) -> SecretBytes:
    """Has KMS open a data key.

    Args:
        wrapping: What `make_data_key` returned.
        key_id: The KMS key that the caller expects; by default the one that the file names.
        endpoint_url: Another address of KMS.

    Raises:
        KeyStoreMissingError: KMS does not answer, or has no such key.
        DeviceKeyError: It refuses, it used another key, or answers nonsense.
    """
    question = {
        "CiphertextBlob": wrapping.data_key,
        # Without KeyId, KMS takes whatever key the ciphertext names, even another account's.
        "KeyId": key_id or wrapping.key_arn,
        "EncryptionContext": encryption_context(wrapping.thumbprint),
    }
    answer = _ask("decrypt", wrapping.region, endpoint_url, question)
    data_key = _data_key(answer, wrapping.region)
    if answer.get("KeyId") != wrapping.key_arn:
        raise DeviceKeyError(f"AWS KMS in {wrapping.region} used another key", hint="check key-id in the key's URI")
    return data_key


def _ask(operation: str, region: str, endpoint_url: str | None, question: dict[str, Any]) -> dict[str, Any]:
    with _boto_errors(region):
        # A session of its own: boto3's default one is shared by the process, and not for threads.
        client = boto3.session.Session().client(
            "kms", region_name=region, endpoint_url=endpoint_url, config=_config(endpoint_url)
        )
        with contextlib.closing(client):
            try:
                answer: dict[str, Any] = getattr(client, operation)(**question)
            except (AttributeError, RecursionError, ResponseParserError, TypeError, ValueError):
                # What botocore 1.44 raises for JSON that is no object, no UTF-8, too deep, or of the wrong types.
                raise _nonsense(region) from None
    return answer


@contextlib.contextmanager
def _boto_errors(region: str) -> Iterator[None]:
    name = f"AWS KMS in {region}"
    try:
        yield
    except ClientError as error:
        raise _service_error(error, name) from None
    except _CREDENTIAL_ERRORS:
        raise _NO_CREDENTIALS.error(f"{name} {_NO_CREDENTIALS.found}", hint=_NO_CREDENTIALS.hint) from None
    except (UnreachableError, HTTPClientError):
        raise _UNREACHABLE.error(f"{name} {_UNREACHABLE.found}", hint=_UNREACHABLE.hint) from None
    except BotoCoreError as error:
        found = f"boto3 cannot ask {name}: {type(error).__name__}"
        raise DeviceKeyError(found, hint="check the AWS configuration, ~/.aws/config") from None


def _config(endpoint_url: str | None) -> Config:
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "read_timeout": READ_TIMEOUT_SECONDS,
        "retries": {"total_max_attempts": MAX_ATTEMPTS, "mode": "standard"},
        "ignore_configured_endpoint_urls": True,
    }
    if endpoint_url is not None and endpoint_url.startswith("http://"):
        # What may go without TLS because it stays on this machine must not go to a proxy.
        settings["proxies"] = {}
    return Config(**settings)


def _service_error(error: ClientError, name: str) -> DeviceKeyError:
    code = str(error.response.get("Error", {}).get("Code"))
    answer = _ANSWERS.get(code)
    if answer is None and error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        answer = _UNREACHABLE  # a proxy's or load balancer's error page
    if answer is None:
        return DeviceKeyError(f"{name} refused: {code!a:.60}", hint="see the KMS API reference for this code")
    return answer.error(f"{name} {answer.found}", hint=answer.hint)


def _data_key(answer: dict[str, Any], region: str) -> SecretBytes:
    plaintext = answer.get("Plaintext")
    if not isinstance(plaintext, bytes) or len(plaintext) != DATA_KEY_BYTES:
        raise _nonsense(region)
    return SecretBytes(plaintext)


def _nonsense(region: str) -> DeviceKeyError:
    found = f"AWS KMS in {region} answered something that is not KMS's"
    return DeviceKeyError(found, hint="check endpoint-url in the key's URI")
