"""URIs of keys under AWS KMS: ``awskms:PATH?key-id=…&region=…&endpoint-url=…``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from keylatch.errors import DeviceKeyError
from keylatch.keys._file_device_key import file_location

PARAMETERS = frozenset({"endpoint-url", "key-id", "region"})

# A key's id or ARN, or an alias's name or ARN (KMS API reference, KeyId); shorter than AWS's bound of 2048.
KEY_ID = re.compile(r"[A-Za-z0-9:/_-]{1,256}")
REGION = re.compile(r"[a-z]{2}[a-z0-9-]{1,30}")
_ARN_REGION = re.compile(r"arn:[a-z-]{1,20}:kms:([a-z0-9-]+):.*")
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_ENDPOINT = re.compile(rf"(?P<scheme>https?)://(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?/?")
_LOOPBACK = ("127.0.0.1", "[::1]", "localhost")

_EXAMPLE = "write awskms:device.kms?key-id=KEY-ARN, or awskms:device.kms for a file that is there"


@dataclass(frozen=True, slots=True)
class KmsUri:
    """A key file, and where its KMS key is.

    Attributes:
        path: The file.
        key_id: The KMS key: id, ARN or alias. Needed to make a file; checked when one is opened.
        region: The AWS region.
        endpoint_url: Another address of KMS, such as that of a VPC endpoint.
    """

    path: Path
    key_id: str | None = None
    region: str | None = None
    endpoint_url: str | None = None


def parse_kms_uri(location: str) -> KmsUri:
    """Reads an ``awskms:`` URI, without its scheme.

    Raises:
        DeviceKeyError: No path, an unknown, repeated or malformed parameter, or an endpoint without TLS.
    """
    path, _, query = location.partition("?")
    values = _read_parameters(query)
    if not path:
        raise DeviceKeyError("awskms: URI names no file", hint=_EXAMPLE)
    return KmsUri(
        path=Path(file_location(path)),
        key_id=_checked(values, "key-id", KEY_ID),
        region=_checked(values, "region", REGION) or _region_of(values.get("key-id", "")),
        endpoint_url=_endpoint(values),
    )


def _read_parameters(query: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for parameter in query.split("&") if query else ():
        name, _, value = parameter.partition("=")
        if name not in PARAMETERS:
            found = f"awskms: URI has unknown parameter {name!a:.40}, expected {', '.join(sorted(PARAMETERS))}"
            raise DeviceKeyError(found, hint=_EXAMPLE)
        if name in values:
            raise DeviceKeyError(f"awskms: URI repeats {name}", hint=f"give {name} once")
        values[name] = unquote(value)
    return values


def _checked(values: dict[str, str], name: str, form: re.Pattern[str]) -> str | None:
    value = values.get(name)
    if value is not None and not form.fullmatch(value):
        raise DeviceKeyError(f"awskms: URI has a malformed {name}", hint=_EXAMPLE)
    return value


def _region_of(key_id: str) -> str | None:
    match = _ARN_REGION.fullmatch(key_id)
    return None if match is None else match[1]


def _endpoint(values: dict[str, str]) -> str | None:
    url = values.get("endpoint-url")
    if url is None:
        return None
    match = _ENDPOINT.fullmatch(url)
    # The data key comes back in the answer: without TLS, on this machine only.
    if match is None or (match["scheme"] == "http" and match["host"] not in _LOOPBACK):
        hint = "write endpoint-url=https://HOST or https://HOST:PORT; http:// is for 127.0.0.1 alone"
        raise DeviceKeyError("awskms: URI has an endpoint-url that is not https: and a host", hint=hint)
    return url
