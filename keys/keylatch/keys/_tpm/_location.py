"""What a ``tpm:`` URI says: the key file or NV index, which TPM, through which library.

tpm:PATH?tcti=…&pcrs=sha256:7&backend=…     a device key
tpm:nv=0x01800100?tcti=…&key=PATH&backend=… a counter
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from keylatch.errors import DeviceKeyError

# The kernel's resource manager: each process has its own slots, and what it leaves behind is flushed.
DEFAULT_TCTI = "device:/dev/tpmrm0"
DEFAULT_PCRS = "sha256:7"
BACKENDS = ("pytss", "esys")

# An allow-list, because the loader would take much more: `cmd:` runs a program, and a path loads any library.
# Together with env: URIs either would let an environment variable choose code to run.
_TCTI = re.compile(r"device:/dev/[A-Za-z0-9_]+|(?:swtpm|mssim|tabrmd):[A-Za-z0-9_.,:=/-]+")

# TCG Registry of Reserved TPM 2.0 Handles and Localities, table 3: indices that belong to the owner.
_OWNER_NV = range(0x01800000, 0x01C00000)
_NV = re.compile(r"nv=(0x[0-9A-Fa-f]{8})")


@dataclass(frozen=True, slots=True)
class TpmAccess:
    """Which TPM, and through what.

    Args:
        tcti: TPM Command Transmission Interface, e.g. ``device:/dev/tpmrm0``, ``swtpm:host=127.0.0.1,port=2321``.
        backend: One of `BACKENDS`, or None for the first that is installed.
    """

    tcti: str = DEFAULT_TCTI
    backend: str | None = None


@dataclass(frozen=True, slots=True)
class KeyLocation:
    """Where a device key is; `pcrs` is what the URI asks for, or None."""

    path: Path
    access: TpmAccess
    pcrs: str | None


@dataclass(frozen=True, slots=True)
class CounterLocation:
    """Where a counter is; `key_path` names the key file of the same TPM, or is None."""

    nv_index: int
    access: TpmAccess
    key_path: Path | None


def parse_key_location(location: str) -> KeyLocation:
    """Reads a key's URI after its scheme.

    The path stands as it is; the options' values may be percent-encoded (RFC 3986 section 2.1). The TCTI comes from
    here only: an environment variable, as tpm2-tools read it, could point at somebody else's TPM.

    Raises:
        DeviceKeyError: No path, or an option that is unknown, repeated or not usable.
    """
    path, options = _split(location, {"tcti", "pcrs", "backend"})
    if not path or "\0" in path or path.startswith("nv="):
        raise DeviceKeyError("tpm: URI names no key file", hint="write tpm:device.tpm")
    return KeyLocation(Path(path), _access(options), options.get("pcrs"))


def parse_counter_location(location: str) -> CounterLocation:
    """Reads a counter's URI after its scheme.

    Raises:
        DeviceKeyError: No NV index of the owner's, or an option that is unknown, repeated or not usable.
    """
    index, options = _split(location, {"tcti", "key", "backend"})
    match = _NV.fullmatch(index)
    if match is None or int(match[1], 16) not in _OWNER_NV:
        found = f"tpm: URI names no counter in 0x{_OWNER_NV.start:08x} to 0x{_OWNER_NV.stop - 1:08x}"
        raise DeviceKeyError(found, hint="write tpm:nv=0x01800100")
    key = options.get("key")
    return CounterLocation(int(match[1], 16), _access(options), None if key is None else Path(key))


def _split(location: str, known: set[str]) -> tuple[str, dict[str, str]]:
    name, _, query = location.partition("?")
    options: dict[str, str] = {}
    for item in query.split("&") if query else []:
        option, equals, value = item.partition("=")
        if option not in known or option in options or not equals or not value:
            found = f"tpm: URI has an unknown, repeated or empty option {option}, expected {', '.join(sorted(known))}"
            raise DeviceKeyError(found, hint=f"write tpm:{name}?tcti={DEFAULT_TCTI}")
        options[option] = unquote(value)
    return name, options


def _access(options: dict[str, str]) -> TpmAccess:
    tcti, backend = options.get("tcti", DEFAULT_TCTI), options.get("backend")
    if not _TCTI.fullmatch(tcti):
        found = f"tpm: URI has tcti={tcti}, expected device:/dev/…, swtpm:…, mssim:… or tabrmd:…"
        raise DeviceKeyError(found, hint=f"write tcti={DEFAULT_TCTI}, or leave it out")
    if backend not in (None, *BACKENDS):
        found = f"tpm: URI has backend={backend}, expected {' or '.join(BACKENDS)}"
        raise DeviceKeyError(found, hint="leave backend= out")
    return TpmAccess(tcti, backend)
