"""A license and its row, together or not at all; numbers that never repeat; no secret in the file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_world import OTHER_MODEL_ID, SECRET_VALUES, LedgerWorld, payload, rows
from license_world import MODEL_ID, SECRET

from keylatch.errors import FormatError, LedgerError
from keylatch.keys import (
    CosignerKey,
    FileIssuerKey,
    HybridDeviceKey,
    IssuerPublicKey,
    SecretBytes,
    Trust,
    current_time,
    decrypt_license,
    parse_license,
    read_claims_unverified,
    verify_license,
    write_license,
)
from keylatch.keys import _clock as clock
from keylatch.keys._ledger import (
    KnownDevice,
    Ledger,
    LicensedModel,
    LicenseTerms,
    issue_and_record,
    read_recorded_license,
)
from keylatch.keys._ledger import _issuing as issuing
from keylatch.keys._ledger import _sequence as sequence


def test_the_row_says_what_the_claims_say(book: LedgerWorld) -> None:
    license = book.issue(book.device, book.other_device, max_list_age=86_400)
    claims = read_claims_unverified(license)
    (row,) = rows(
        book.path,
        "SELECT license_id, seq, model_id, customer, issuer, issued_at, not_before, expires_at, max_list_age, renews, "
        "sha256 FROM licenses",
    )
    digest = hashlib.sha256(license.serialize()).hexdigest()
    assert row == (
        claims.license_id, claims.seq, claims.model_id, claims.customer, claims.issuer, claims.issued_at,
        claims.not_before, claims.expires_at, claims.max_list_age, None, digest,
    )  # fmt: skip
    assert rows(book.path, "SELECT device FROM license_devices ORDER BY device") == [(d,) for d in claims.devices]
    assert rows(book.path, "SELECT model_id, name FROM models") == [(MODEL_ID, "resnet50")]
    assert rows(book.path, "SELECT name FROM customers") == [("ACME Vision",)]
    keys = {json.loads(jwk)["kid"]: json.loads(jwk) for (jwk,) in rows(book.path, "SELECT public_key FROM devices")}
    assert keys == {key.public.thumbprint: key.public.to_jwk() for key in (book.device, book.other_device)}


def test_a_license_from_the_ledger_opens_and_is_byte_identical(book: LedgerWorld, tmp_path: Path) -> None:
    license = book.issue()
    write_license(tmp_path / "first.license", license)
    again = read_recorded_license(book.ledger, read_claims_unverified(license).license_id)
    write_license(tmp_path / "again.license", again)
    assert (tmp_path / "again.license").read_bytes() == (tmp_path / "first.license").read_bytes()
    claims = verify_license(again, Trust([book.issuer.public]), now=book.now)
    values = decrypt_license(again, claims, book.device)
    assert values["gate.patch"].tobytes() == SECRET


def test_numbers_rise_from_the_time_in_milliseconds(book: LedgerWorld) -> None:
    numbers = [read_claims_unverified(book.issue()).seq for _ in range(20)]
    assert numbers == sorted(set(numbers))
    assert abs(numbers[0] - book.now * 1_000) < 3_600_000


def test_numbers_rise_when_the_clock_stands_still_or_goes_back(
    book: LedgerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([2_000_000_000_000, 2_000_000_000_000, 1_900_000_000_000, 0])
    monkeypatch.setattr(sequence.time, "time_ns", lambda: next(moments) * 1_000_000)
    numbers = [read_claims_unverified(book.issue()).seq for _ in range(4)]
    assert numbers == [2_000_000_000_000 + count for count in range(4)]


def test_a_ledger_restored_from_an_old_backup_goes_on_above_what_it_lost(book: LedgerWorld) -> None:
    book.issue()
    book.ledger.close()
    shutil.copy(book.path, book.folder / "backup")
    with Ledger.open(book.path) as ledger:
        lost = [read_claims_unverified(book.issue(ledger=ledger)).seq for _ in range(5)]
    shutil.copy(book.folder / "backup", book.path)
    with Ledger.open(book.path) as ledger:
        assert read_claims_unverified(book.issue(ledger=ledger)).seq > max(lost)


def test_a_ledger_made_anew_goes_on_above_the_lost_one(book: LedgerWorld) -> None:
    lost = [read_claims_unverified(book.issue()).seq for _ in range(5)]
    with Ledger.create(book.folder / "new.ledger", book.issuer.public) as ledger:
        assert read_claims_unverified(book.issue(ledger=ledger)).seq > max(lost)


def test_a_clock_before_this_release_does_not_lower_the_numbers(
    book: LedgerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence.time, "time_ns", lambda: 0)
    assert read_claims_unverified(book.issue()).seq == clock.BUILD_TIME * 1_000


@pytest.mark.parametrize(
    "changes", [{"customer": ""}, {"customer": "two\nlines"}, {"expires_at": 1}, {"max_list_age": -1}]
)
def test_what_no_license_can_carry_leaves_nothing_behind(book: LedgerWorld, changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        book.issue(**changes)
    for table in ("licenses", "license_files", "models", "customers", "devices"):
        assert rows(book.path, f"SELECT count(*) FROM {table}") == [(0,)], table
    assert book.issue()


@pytest.mark.parametrize("step", ["_record_parties", "_record_license"])
def test_an_interruption_inside_leaves_nothing_behind(
    book: LedgerWorld, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    original = getattr(issuing, step)

    def interrupted(*arguments: Any) -> None:
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(issuing, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        book.issue()
    assert rows(book.path, "SELECT (SELECT count(*) FROM licenses) + (SELECT count(*) FROM devices)") == [(0,)]
    monkeypatch.undo()
    assert book.issue()


def test_a_license_is_on_record_before_it_is_returned(book: LedgerWorld) -> None:
    license = book.issue()
    # Another connection sees it: committed, not only in this one's transaction.
    assert rows(book.path, "SELECT seq FROM licenses") == [(read_claims_unverified(license).seq,)]


def test_an_unknown_issuer_key_is_refused(book: LedgerWorld) -> None:
    with pytest.raises(LedgerError, match="is not in this ledger") as caught:
        book.issue(issuer=FileIssuerKey.generate())
    assert book.issuer.public.thumbprint in caught.value.message
    assert rows(book.path, "SELECT count(*) FROM licenses") == [(0,)]


def test_facts_of_a_device_are_kept_and_not_lost_again(book: LedgerWorld) -> None:
    def issue(facts: dict[str, str]) -> None:
        issue_and_record(
            book.ledger,
            issuer=book.issuer,
            model=LicensedModel(model_id=OTHER_MODEL_ID, name="other", secret_values=SECRET_VALUES),
            devices=[KnownDevice(book.device.public, facts)],
            terms=LicenseTerms(customer="x", not_before=book.now, expires_at=book.now + 10),
        )
        stored.append(json.loads(rows(book.path, "SELECT facts FROM devices")[0][0]))

    stored: list[dict[str, str]] = []
    for facts in ({"hostname": "edge-7"}, {}, {"hostname": "edge-8"}):
        issue(facts)
    assert stored == [{"hostname": "edge-7"}, {"hostname": "edge-7"}, {"hostname": "edge-8"}]


def secrets_in(value: Any) -> Iterator[bytes]:
    """The bytes of a key in the forms it could leak in."""
    raw = value.reveal() if isinstance(value, SecretBytes) else value
    yield from (raw, raw.hex().encode())


def test_the_ledger_holds_no_secret(book: LedgerWorld, tmp_path: Path) -> None:
    cosigner = CosignerKey.generate()
    hybrid = HybridDeviceKey.generate(tmp_path / "hybrid.key")
    book.issue(book.device, hybrid, cosigner=cosigner)
    forbidden = [
        *secrets_in(SECRET),
        *secrets_in(book.issuer._key.private_bytes_raw()),
        *secrets_in(book.issuer.vault_key()),
        *secrets_in(cosigner._key.private_bytes_raw()),
        *secrets_in(hybrid.private_seed()),
        b"PRIVATE KEY",
        b'"d":',
        b'"priv":',
    ]
    with_log = {file.name: file.read_bytes() for file in book.folder.iterdir()}
    assert len(with_log["issuer.ledger-wal"]) > 4096
    book.ledger.close()
    for data in (*with_log.values(), book.path.read_bytes()):
        assert not [secret for secret in forbidden if secret in data]
    # The search finds what is there: the license file lies in the ledger as it is.
    assert payload(parse_license(rows(book.path, "SELECT file FROM license_files")[0][0]))["model_id"] == MODEL_ID
    assert book.issuer.public.to_jwk()["x"].encode() in book.path.read_bytes()


def test_a_license_altered_in_the_ledger_is_not_given_out(book: LedgerWorld) -> None:
    license_id = book.issue_id()
    with book.ledger.writing() as db:
        file = bytearray(db.execute("SELECT file FROM license_files").fetchone()[0])
        file[-1] ^= 1
        db.execute("UPDATE license_files SET file = ?", (bytes(file),))
    with pytest.raises(FormatError, match="SHA-256 differs"):
        read_recorded_license(book.ledger, license_id)


def test_a_license_is_tied_to_known_keys_by_the_database_itself(book: LedgerWorld) -> None:
    book.issue()
    with pytest.raises(LedgerError), book.ledger.writing() as db:
        db.execute("UPDATE licenses SET issuer = 'nobody'")
    assert rows(book.path, "SELECT issuer FROM licenses") == [(book.issuer.public.thumbprint,)]


def test_the_issuers_public_key_is_in_the_ledger(book: LedgerWorld) -> None:
    ((jwk, created_at, retired_at),) = rows(book.path, "SELECT public_key, created_at, retired_at FROM issuers")
    assert IssuerPublicKey.from_jwk(json.loads(jwk)).thumbprint == book.issuer.public.thumbprint
    assert abs(created_at - current_time()) < 3_600 and retired_at is None
