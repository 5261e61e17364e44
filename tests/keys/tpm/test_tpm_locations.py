from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keylatch.errors import DeviceKeyError, FormatError, KeyStoreMissingError, MissingExtraError
from keylatch.keys import open_device_key
from keylatch.keys._tpm import _connection
from keylatch.keys._tpm._location import (
    CounterLocation,
    KeyLocation,
    TpmAccess,
    parse_counter_location,
    parse_key_location,
)
from keylatch.keys._tpm._structures import PcrSelection


def test_a_plain_path_means_the_kernel_s_resource_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TPM2TOOLS_TCTI", "TPM2_TCTI", "TSS2_TCTI", "TCTI"):
        monkeypatch.setenv(name, "swtpm:host=attacker.example,port=1")
    assert parse_key_location("a/device.tpm") == KeyLocation(Path("a/device.tpm"), TpmAccess(), None)
    assert TpmAccess().tcti == "device:/dev/tpmrm0"


def test_options_are_read() -> None:
    tcti = "swtpm:host=127.0.0.1,port=2321"
    parsed = parse_key_location(f"/k?tcti={tcti}&pcrs=sha256%3A7&backend=esys")
    assert parsed == KeyLocation(Path("/k"), TpmAccess(tcti, "esys"), "sha256:7")
    counter = parse_counter_location("nv=0x01800100?tcti=device:/dev/tpm0&key=k.tpm")
    assert counter == CounterLocation(0x01800100, TpmAccess("device:/dev/tpm0"), Path("k.tpm"))


@pytest.mark.parametrize(
    "location",
    [
        "", "?backend=esys", "nv=0x01800100", "k\0", "k?", "k?tcti", "k?tcti=", "k?pin=1234", "k?backend=tools",
        "k?backend=esys&backend=esys", "k?tcti=cmd:touch%20x", "k?tcti=/tmp/evil.so", "k?tcti=evil.so:x",
        "k?tcti=device:/tmp/tpm", "k?tcti=device:/dev/../tmp/tpm", "k?tcti=pcap:device:/dev/tpm0", "k?key=x",
        "k?tcti=swtpm:a%00", "k?tcti=device:/dev/tpm0%0A",
    ],
)  # fmt: skip
def test_unusable_key_locations_are_refused(location: str) -> None:
    if location == "k?":
        assert parse_key_location(location).path == Path("k")
        return
    with pytest.raises(DeviceKeyError) as caught:
        parse_key_location(location)
    assert caught.value.hint


@pytest.mark.parametrize("index", ["", "device.tpm", "nv=25166080", "nv=0x1800100", "nv=0x01C00000", "nv=0x017FFFFF"])
def test_unusable_counter_locations_are_refused(index: str) -> None:
    with pytest.raises(DeviceKeyError, match="names no counter"):
        parse_counter_location(index)


@pytest.mark.parametrize(
    "pcrs",
    ["", "7", "sha1:7", "sha256:", "sha256:24", "sha256:7,7", "sha256:7,0", "sha256:07", "sha256:-1", "sha256: 7",
     "sha512:7", "sha256:16", "sha256:7,23", "sha256:7+sha384:7", "sha256:٧"],
)  # fmt: skip
def test_unusable_pcr_selections_are_refused(pcrs: str) -> None:
    with pytest.raises(FormatError) as caught:
        PcrSelection.parse(pcrs)
    assert caught.value.hint


def test_pcr_selections_are_written_as_a_tpm_reads_them() -> None:
    assert str(PcrSelection.parse("sha384:0,2,7,22")) == "sha384:0,2,7,22"
    assert PcrSelection.parse("sha256:0,2,7").to_wire() == bytes.fromhex("00000001 000b 03 850000")
    assert PcrSelection.parse("sha384:8,22").to_wire() == bytes.fromhex("00000001 000c 03 000140")


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, f"keylatch.keys._tpm.{module}", None)


def test_without_a_library_both_ways_to_get_one_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "_pytss", "_esys")
    with pytest.raises(MissingExtraError, match=r"tpm2-pytss, or .*apt-get install tpm2-tools") as caught:
        _connection._find_backend(None)
    assert caught.value.hint == "pip install 'keylatch[tpm]'"
    with pytest.raises(MissingExtraError, match="tpm2-pytss"):
        _connection._find_backend("pytss")
    with pytest.raises(KeyStoreMissingError, match="libtss2-esys") as missing:
        _connection._find_backend("esys")
    assert missing.value.hint == "apt-get install tpm2-tools"


def test_without_the_binding_the_library_itself_is_used(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "_pytss")
    assert _connection._find_backend(None).__module__ == "keylatch.keys._tpm._esys"


def test_a_machine_without_a_tpm_says_so(backend: str, tmp_path: Path, key_file: bytes) -> None:
    (tmp_path / "device.tpm").write_bytes(key_file)
    uri = f"tpm:{tmp_path / 'device.tpm'}?backend={backend}&tcti=device:/dev/no_tpm_here"
    with pytest.raises(KeyStoreMissingError, match="there is no TPM at /dev/no_tpm_here") as caught:
        open_device_key(uri)
    assert caught.value.hint


def test_refusals_write_nothing_to_the_terminal(backend: str, tmp_path: Path, key_file: bytes) -> None:
    (tmp_path / "device.tpm").write_bytes(key_file)
    uri = f"tpm:{tmp_path / 'device.tpm'}?backend={backend}&tcti=swtpm:host=127.0.0.1,port=1"
    program = f"""
from keylatch.errors import KeyStoreMissingError
from keylatch.keys import open_device_key
try:
    open_device_key({uri!r})
except KeyStoreMissingError:
    raise SystemExit(7)
"""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("TSS2_")}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=quiet, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, b"", b"")
    # Somebody who asked for the log gets it.
    ended = subprocess.run(command, env={**quiet, "TSS2_LOG": "all+ERROR"}, capture_output=True, check=False)
    assert ended.returncode == 7 and b"ERROR:tcti" in ended.stderr
