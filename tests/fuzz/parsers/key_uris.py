"""Key URIs: taken apart, and nothing opened."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from fuzz.attempts import REFUSED, attempt, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed
from keylatch.errors import DeviceKeyError, FormatError
from keylatch.keys._file_device_key import file_location
from keylatch.keys._key_uri import split_key_uri
from keylatch.keys._kms._uri import parse_kms_uri
from keylatch.keys._pkcs11._uri import parse_key_uri
from keylatch.keys._tpm._location import parse_counter_location, parse_key_location
from keylatch.keys._tpm._structures import PcrSelection

try:
    from urllib3.util import parse_url  # what boto3 connects with: both have to see the same host
except ImportError:
    parse_url = None

os.environ["FUZZ_KEY"] = "file:device.key"
os.environ["FUZZ_LOOP"] = "ENV:FUZZ_LOOP"

_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_PREFIXES = ("pkcs11:", "awskms:", "tpm:", "env:", "file:", "hybrid:", "PKCS11:", "x:", "")
_URIS = (
    b"pkcs11:token=edge;object=device%20key;id=%01%02?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/pin",
    b"pkcs11:slot-id=7;serial=ab12;object=key?module-path=/lib/p11.so",
    b"awskms:device.kms?key-id=arn:aws:kms:eu-central-1:111122223333:key/1234-ab&endpoint-url=https://kms.example:8443",
    b"awskms:/k?region=eu-west-1&key-id=alias/device&endpoint-url=http://127.0.0.1:4566",
    b"tpm:device.tpm?tcti=swtpm:host=127.0.0.1,port=2321&pcrs=sha256:0,7&backend=pytss",
    b"tpm:nv=0x01800100?tcti=device:/dev/tpmrm0&key=device.tpm",
    b"file:///etc/keylatch/device.key",
    b"env:FUZZ_KEY",
    b"env:FUZZ_LOOP",
)


def parse(data: bytes) -> None:
    # As the command line hands on what is no UTF-8.
    _parse(data.decode("utf-8", "surrogateescape"))


def _parse(text: str) -> None:
    split = attempt(split_key_uri, text, errors=DeviceKeyError, typed_by_user=True)
    if split is REFUSED:
        return
    scheme, location = split
    require(scheme != "env" and scheme == scheme.lower(), "a scheme was not resolved")
    if scheme == "pkcs11":
        _parse_pkcs11(location)
    elif scheme == "awskms":
        _parse_kms(location)
    elif scheme == "tpm":
        _parse_tpm(location)
    elif scheme == "file":
        attempt(file_location, location, errors=DeviceKeyError, typed_by_user=True)


def parse_changed(data: bytes) -> None:
    source = ByteSource(data)
    parse(changed(source, source.choose(_URIS), source.choose(_URIS)))


def parse_any_text(data: bytes) -> None:
    """Every character that Python has, halves of pairs among them: what a program may hand on."""
    _parse(ByteSource(data).choose(_PREFIXES) + data[1 : len(data) // 2 * 2 - 1].decode("utf-16-le", "surrogatepass"))


def parse_pcrs(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    pcrs = attempt(PcrSelection.parse, text, errors=FormatError, typed_by_user=True)
    if pcrs is not REFUSED:
        require(str(pcrs) == text and len(pcrs.to_wire()) == 10, "a PCR selection has two forms")


def _parse_pkcs11(location: str) -> None:
    uri = attempt(parse_key_uri, location, errors=DeviceKeyError, typed_by_user=True)
    if uri is not REFUSED:
        require(uri.module_path.is_absolute(), "a module that the environment may choose")
        path, _, query = location.partition("?")  # RFC 7512: a query's values may hold further question marks
        attributes = {attribute.partition("=")[0] for attribute in (*path.split(";"), *query.split("&"))}
        require("pin-value" not in attributes, "a PIN in a URI")
        require(bool(uri.token_name and uri.key_name), "an unnamed key")


def _parse_kms(location: str) -> None:
    uri = attempt(parse_kms_uri, location, errors=DeviceKeyError, typed_by_user=True)
    if uri is REFUSED or uri.endpoint_url is None:
        return
    secure = urlsplit(uri.endpoint_url).scheme == "https"
    require(secure or _connected_host(uri.endpoint_url) in _LOOPBACK, "a data key in clear over a network")
    require(
        uri.endpoint_url.isprintable() and not re.search(r"[\s\\]", uri.endpoint_url), "an address with two readings"
    )


def _connected_host(url: str) -> str | None:
    try:
        return parse_url(url).host if parse_url is not None else urlsplit(url).hostname
    except ValueError:
        return _LOOPBACK[0]  # it connects nowhere


def _parse_tpm(location: str) -> None:
    for parse_location in (parse_key_location, parse_counter_location):
        parsed = attempt(parse_location, location, errors=DeviceKeyError, typed_by_user=True)
        if parsed is not REFUSED:
            tcti = parsed.access.tcti
            require(tcti.isprintable() and not tcti.startswith(("cmd:", "/", ".")), "a TCTI that runs programs")


HARNESS = Harness(
    attacks=(parse, parse_changed, parse_any_text, parse_pcrs),
    seeds=(_URIS, DECISIONS, DECISIONS, (b"sha256:0,7", b"sha384:1,2,22")),
    words=(b"pkcs11:", b"awskms:", b"tpm:", b"env:", b"file:", b"hybrid:", b"pin-value=", b"pin-source=file:", b"|",
           b"%00", b"%0a", b"%2f", b"module-path=/", b"endpoint-url=", b"http://", b"https://", b"\\@127.0.0.1",
           b"[::1]", b"tcti=", b"cmd:", b"nv=0x01800100", b"//", b"sha256:", b"sha384:"),
)  # fmt: skip
