from __future__ import annotations

from pathlib import Path

import pytest

from keylatch.errors import DeviceKeyError, PassphraseError
from keylatch.keys._pkcs11._uri import KeyUri, parse_key_uri, read_pin

MODULE = "module-path=/usr/lib/softhsm/libsofthsm2.so"
SECRET_PIN = "31415926"


def test_all_supported_attributes_are_read_and_decoded() -> None:
    path = "token=My%20token;serial=27cab5;slot-id=52879458;object=cl%C3%A9;id=%00%01%FFa"
    assert parse_key_uri(f"{path}?{MODULE}&pin-source=file:/etc/keylatch/pin") == KeyUri(
        module_path=Path("/usr/lib/softhsm/libsofthsm2.so"),
        token="My token",
        serial="27cab5",
        slot_id=52879458,
        label="clé",
        key_id=b"\x00\x01\xffa",
        pin_source=Path("/etc/keylatch/pin"),
    )


def test_absent_attributes_are_none() -> None:
    uri = parse_key_uri(f"slot-id=0;id=%01?{MODULE}")
    assert (uri.token, uri.serial, uri.label, uri.pin_source) == (None, None, None, None)
    assert (uri.slot_id, uri.key_id) == (0, b"\1")


@pytest.mark.parametrize(
    ("path", "token", "key"),
    [
        ("token=t;object=k", "token t", "key k on token t"),
        ("serial=5;id=%0a", "token with serial 5", "key with id 0a on token with serial 5"),
        ("slot-id=7;object=k;id=%0a", "token in slot 7", "key k on token in slot 7"),
    ],
)
def test_errors_call_token_and_key_by_what_the_uri_gives(path: str, token: str, key: str) -> None:
    uri = parse_key_uri(f"{path}?{MODULE}")
    assert (uri.token_name, uri.key_name) == (token, key)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (f"token=t;object=k?{MODULE}&pin-value={SECRET_PIN}", "holds a PIN"),
        (f"token=t;object=k;pin-value={SECRET_PIN}?{MODULE}", "holds a PIN"),
        ("token=t;object=k?module-name=softhsm2", "module-name"),
        (f"token=t;object=k;type=private?{MODULE}", "unknown attribute 'type', expected id, object, serial"),
        (f"token=t;object=k?{MODULE}&verbose=1", "unknown attribute 'verbose', expected module-path, pin-source"),
        (f"token=t;object=k;module-path=/x?{MODULE}", "unknown attribute 'module-path'"),
        (f"token=t;object=k?{MODULE}&token=t", "unknown attribute 'token'"),
        (f"Token=t;object=k?{MODULE}", "unknown attribute 'Token'"),
        (f"token=t;;object=k?{MODULE}", "unknown attribute ''"),
        (f"token=t;token=t;object=k?{MODULE}", "repeats token"),
        (f"token=t;object=k;id=%01;id=%02?{MODULE}", "repeats id"),
        (f"token=t;object=k?{MODULE}&{MODULE}", "repeats module-path"),
        ("", "names no module"),
        ("token=t;object=k", "names no module"),
        ("token=t;object=k?", "names no module"),
        (f"object=k?{MODULE}", "names no token"),
        (f"token=t?{MODULE}", "names no key"),
        (f"token=;object=k?{MODULE}", "empty or unencoded token"),
        (f"token=a b;object=k?{MODULE}", "empty or unencoded token"),
        (f"token=é;object=k?{MODULE}", "empty or unencoded token"),
        (f"token=a%2;object=k?{MODULE}", "empty or unencoded token"),
        (f"token=a%zz;object=k?{MODULE}", "empty or unencoded token"),
        (f"token=a/b;object=k?{MODULE}", "empty or unencoded token"),
        (f"token=t;object=k?{MODULE}#x", "empty or unencoded module-path"),
        (f"token=a%00;object=k?{MODULE}", "token that is not printable UTF-8"),
        (f"token=a%0Ab;object=k?{MODULE}", "token that is not printable UTF-8"),
        (f"token=t;object=%FF?{MODULE}", "object that is not printable UTF-8"),
        (f"token=t;slot-id=x;object=k?{MODULE}", "slot-id that is no decimal number"),
        (f"token=t;slot-id=-1;object=k?{MODULE}", "slot-id that is no decimal number"),
        (f"token=t;slot-id=%D9%A1;object=k?{MODULE}", "slot-id that is no decimal number"),
        (f"token=t;slot-id={'9' * 5000};object=k?{MODULE}", "slot-id that is no decimal number"),
        ("token=t;object=k?module-path=libsofthsm2.so", "not an absolute path"),
        ("token=t;object=k?module-path=./libsofthsm2.so", "not an absolute path"),
        (f"token=t;object=k?{MODULE}&pin-source=/etc/pin", "pin-source that is no file:"),
        (f"token=t;object=k?{MODULE}&pin-source=|/bin/pin", "pin-source that is no file:"),
        (f"token=t;object=k?{MODULE}&pin-source=file://host/pin", "another host"),
    ],
)
def test_uris_that_do_not_do_say_why_and_show_no_pin(location: str, message: str) -> None:
    with pytest.raises(DeviceKeyError, match=message) as caught:
        parse_key_uri(location)
    assert caught.value.hint
    assert SECRET_PIN not in str(caught.value)


def pin_uri(source: Path | None) -> KeyUri:
    return parse_key_uri(f"token=t;object=k?{MODULE}" + (f"&pin-source=file:{source}" if source else ""))


def write_pin(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("data", [b"12 34", b"12 34\n", b"12 34\r\n"])
def test_a_pin_file_may_end_in_one_line_break(tmp_path: Path, data: bytes) -> None:
    asked = pytest.fail
    assert read_pin(pin_uri(write_pin(tmp_path / "pin", data)), asked) == "12 34"


def test_the_callback_is_told_which_pin() -> None:
    asked: list[str] = []

    def ask(description: str) -> bytes:
        asked.append(description)
        return "Ångström".encode()

    assert read_pin(pin_uri(None), ask) == "Ångström"
    assert asked == ["PIN of token t"]


def test_a_pin_file_is_checked_as_key_files_are(tmp_path: Path) -> None:
    for path, message in (
        (write_pin(tmp_path / "open", b"1234", 0o644), "mode 0644, expected 0600"),
        (write_pin(tmp_path / "large", b"1" * 1025), "1025 bytes, expected at most 1024"),
        (tmp_path / "missing", "does not exist"),
    ):
        with pytest.raises(DeviceKeyError, match=message) as caught:
            read_pin(pin_uri(path), None)
        assert caught.value.hint
    (tmp_path / "link").symlink_to(write_pin(tmp_path / "pin", b"1234"))
    with pytest.raises(DeviceKeyError, match="is a link"):
        read_pin(pin_uri(tmp_path / "link"), None)


def test_no_pin_or_no_utf8_is_a_passphrase_error(tmp_path: Path) -> None:
    with pytest.raises(PassphraseError, match="PIN of token t is needed") as caught:
        read_pin(pin_uri(None), None)
    assert "pin-source=file:" in str(caught.value.hint)
    with pytest.raises(PassphraseError, match="is not UTF-8"):
        read_pin(pin_uri(write_pin(tmp_path / "pin", b"\xff")), None)
    with pytest.raises(PassphraseError):
        read_pin(pin_uri(None), lambda description: b"")
