from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keylatch.errors import DeviceKeyError, FormatError, KeylatchError, PassphraseError
from keylatch.keys import FileDeviceKey, FileIssuerKey, Vault, read_vault, write_vault
from keylatch.keys._sealed import _derive_file_key

MODEL_ID = "b71c" * 16
SECRET = b"thirty-two bytes of pure secrecy"
ISSUER = FileIssuerKey.generate()


def make_vault() -> Vault:
    gate = {"gate.patch": np.arange(6, dtype=np.float32).reshape(2, 3), "a/b/c": np.array(7)}
    return Vault({"lock": {"seed": np.frombuffer(SECRET, np.uint8)}, MODEL_ID: gate})


def assert_same(first: Vault, second: Vault) -> None:
    assert {s: set(t) for s, t in first.sections.items()} == {s: set(t) for s, t in second.sections.items()}
    for section, tensors in first.sections.items():
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(tensor, second.section(section)[name], strict=True)


def test_a_vault_round_trips_under_an_issuer_key(tmp_path: Path) -> None:
    write_vault(tmp_path / "v", make_vault(), issuer=ISSUER)
    assert_same(read_vault(tmp_path / "v", issuer=ISSUER), make_vault())


def test_a_vault_round_trips_under_a_passphrase_and_no_other(tmp_path: Path) -> None:
    write_vault(tmp_path / "v", make_vault(), passphrase=lambda what: b"open sesame")
    asked: list[str] = []
    assert_same(read_vault(tmp_path / "v", passphrase=lambda what: asked.append(what) or b"open sesame"), make_vault())
    assert asked == [f"vault {tmp_path / 'v'}"]
    with pytest.raises(PassphraseError, match="wrong passphrase"):
        read_vault(tmp_path / "v", passphrase=lambda what: b"open barley")
    with pytest.raises(FormatError, match="sealed under a passphrase, got an issuer key") as caught:
        read_vault(tmp_path / "v", issuer=ISSUER)
    assert caught.value.hint


def test_a_vault_without_sections_round_trips(tmp_path: Path) -> None:
    write_vault(tmp_path / "v", Vault({}), issuer=ISSUER)
    assert read_vault(tmp_path / "v", issuer=ISSUER).sections == {}


def test_the_file_is_private_and_holds_nothing_in_clear(tmp_path: Path) -> None:
    write_vault(tmp_path / "v", make_vault(), issuer=ISSUER)
    data = (tmp_path / "v").read_bytes()
    assert stat.S_IMODE((tmp_path / "v").stat().st_mode) == 0o600
    for clear in (SECRET, b"gate.patch", MODEL_ID.encode(), b"seed"):
        assert clear not in data


def test_two_vaults_share_neither_salt_nor_nonce_nor_ciphertext(tmp_path: Path) -> None:
    for name in "ab":
        write_vault(tmp_path / name, make_vault(), issuer=ISSUER)
    first, second = ((tmp_path / name).read_bytes() for name in "ab")
    assert first[-200:] != second[-200:]
    assert first.split(b'"salt":')[1][:24] != second.split(b'"salt":')[1][:24]


def test_each_salt_and_each_kind_of_file_has_its_own_key() -> None:
    salts, kinds = (bytes(16), bytes(15) + b"\1"), ("vault", "device key")
    keys = {_derive_file_key(ISSUER.vault_key(), salt, kind).reveal() for salt in salts for kind in kinds}
    assert len(keys | {ISSUER.vault_key().reveal()}) == 5


def test_a_vault_that_could_not_be_read_back_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keylatch.keys._vault.MAX_VAULT_BYTES", 5000)
    with pytest.raises(FormatError, match="larger than 5000 bytes"):
        write_vault(tmp_path / "v", Vault({"lock": {"s": np.zeros(4900, np.uint8)}}), issuer=ISSUER)
    write_vault(tmp_path / "v", Vault({"lock": {"s": np.zeros(3500, np.uint8)}}), issuer=ISSUER)
    assert read_vault(tmp_path / "v", issuer=ISSUER)


def test_a_vault_of_another_issuer_names_both_keys(tmp_path: Path) -> None:
    write_vault(tmp_path / "v", make_vault(), issuer=ISSUER)
    other = FileIssuerKey.generate()
    with pytest.raises(DeviceKeyError) as caught:
        read_vault(tmp_path / "v", issuer=other)
    assert ISSUER.public.thumbprint in caught.value.message
    assert other.public.thumbprint in caught.value.message
    assert caught.value.hint


def test_every_single_bit_flip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v"
    write_vault(path, Vault({"lock": {"s": np.zeros(1, np.uint8)}}), issuer=ISSUER)
    data = path.read_bytes()
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(KeylatchError):
            read_vault(path, issuer=ISSUER)


def test_truncated_and_extended_vaults_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v"
    write_vault(path, Vault({"lock": {"s": np.zeros(1, np.uint8)}}), issuer=ISSUER)
    data = path.read_bytes()
    for changed in [data[:length] for length in range(len(data))] + [data + b"\0"]:
        path.write_bytes(changed)
        with pytest.raises(FormatError) as caught:
            read_vault(path, issuer=ISSUER)
        assert caught.value.hint


def test_an_existing_vault_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "v"
    write_vault(path, make_vault(), issuer=ISSUER)
    with pytest.raises(KeylatchError, match="exists already"):
        write_vault(path, Vault({}), issuer=ISSUER)
    assert_same(read_vault(path, issuer=ISSUER), make_vault())
    write_vault(path, Vault({}), issuer=ISSUER, overwrite=True)
    assert read_vault(path, issuer=ISSUER).sections == {}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_while_replacing_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "v"
    write_vault(path, make_vault(), issuer=ISSUER)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(KeylatchError, match="No space left"):
            write_vault(path, Vault({}), issuer=ISSUER, overwrite=True)
    assert_same(read_vault(path, issuer=ISSUER), make_vault())
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_disk_before_the_name_points_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: order.append("fsync") or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: order.append("replace") or replace(a, b))
    write_vault(tmp_path / "v", make_vault(), issuer=ISSUER, overwrite=True)
    assert order == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("sealing", [{}, {"issuer": ISSUER, "passphrase": lambda what: b"x"}])
def test_exactly_one_way_of_sealing_is_taken(tmp_path: Path, sealing: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="exactly one"):
        write_vault(tmp_path / "v", make_vault(), **sealing)


def test_a_vault_is_not_read_without_a_way_to_open_it(tmp_path: Path) -> None:
    write_vault(tmp_path / "v", make_vault(), issuer=ISSUER)
    with pytest.raises(FormatError, match="exactly one"):
        read_vault(tmp_path / "v")


def test_given_both_ways_a_vault_is_opened_in_its_own(tmp_path: Path) -> None:
    write_vault(tmp_path / "i", make_vault(), issuer=ISSUER)
    write_vault(tmp_path / "p", make_vault(), passphrase=lambda what: b"x")
    for name in ("i", "p"):
        assert_same(read_vault(tmp_path / name, issuer=ISSUER, passphrase=lambda what: b"x"), make_vault())
    with pytest.raises(PassphraseError):
        read_vault(tmp_path / "p", issuer=ISSUER, passphrase=lambda what: b"y")


@pytest.mark.parametrize(
    "sections",
    [
        {"other": {"a": np.zeros(1)}},
        {"LOCK": {"a": np.zeros(1)}},
        {"lock\n": {"a": np.zeros(1)}},
        {"locksmith": {"a": np.zeros(1)}},
        {"AB" * 32: {"a": np.zeros(1)}},
        {"lock": {}},
        {"lock": {"": np.zeros(1)}},
        {"lock": {"a\0": np.zeros(1)}},
        {"lock": {"a": [1]}},
        {"lock": {"a": np.array(["x"])}},
    ],
)
def test_sections_and_tensors_that_cannot_be_kept_are_refused(sections: Any) -> None:
    with pytest.raises(FormatError) as caught:
        Vault(sections)
    assert caught.value.hint


def test_a_missing_section_says_which_are_there() -> None:
    with pytest.raises(FormatError) as caught:
        make_vault().section("3f9a" * 16)
    assert caught.value.message == "vault has no secrets for model 3f9a3f9a…, only for model b71cb71c…, lock"
    assert caught.value.hint


def test_repr_shows_sections_and_counts_only() -> None:
    assert repr(make_vault()) == f"Vault({MODEL_ID}: 2 tensors, lock: 1 tensors)"


def test_what_is_no_vault_says_so(tmp_path: Path) -> None:
    FileDeviceKey.generate(tmp_path / "key", lambda what: b"x")
    with pytest.raises(FormatError, match="is a sealed device key, expected a sealed vault"):
        read_vault(tmp_path / "key", passphrase=lambda what: b"x")
    (tmp_path / "text").write_text("no vault")
    for path in (tmp_path / "text", tmp_path / "missing", tmp_path):
        with pytest.raises(FormatError) as caught:
            read_vault(path, issuer=ISSUER)
        assert caught.value.hint
