"""Renewing, revoking, rotating keys, and the trust file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ledger_world import SECRET_VALUES, LedgerWorld, payload, rows
from license_world import DAY, SECRET

from keylatch.errors import CosignatureError, LedgerEntryError, LedgerError, SignatureError
from keylatch.keys import (
    CosignerKey,
    FileIssuerKey,
    HybridDeviceKey,
    License,
    Trust,
    decrypt_license,
    read_claims_unverified,
    verify_license,
)
from keylatch.keys._ledger import _revoking as revoking
from keylatch.keys._ledger import _sequence as sequence
from keylatch.keys._ledger import _signers as signers
from keylatch.keys._ledger import (
    check_issuer,
    find_entry,
    publish_revocations,
    renew_license,
    revoke_device,
    revoke_license,
    rotate_issuer,
    trust_of_ledger,
)


def renew(book: LedgerWorld, license_id: str, **changes: Any) -> License:
    arguments = {"issuer": book.issuer, "secret_values": SECRET_VALUES, "not_before": book.now}
    return renew_license(book.ledger, license_id, **{**arguments, "expires_at": book.now + 99 * DAY, **changes})


def test_a_renewed_license_has_the_old_terms_and_its_own_time(book: LedgerWorld, tmp_path: Path) -> None:
    hybrid = HybridDeviceKey.generate(tmp_path / "hybrid.key")
    first = book.issue(book.device, hybrid, max_list_age=7 * DAY)
    old, new = (read_claims_unverified(license) for license in (first, renew(book, payload(first)["jti"])))
    same = ("issuer", "customer", "devices", "model_id", "max_list_age")
    assert [getattr(old, name) for name in same] == [getattr(new, name) for name in same]
    assert new.license_id != old.license_id and new.seq > old.seq and new.expires_at == book.now + 99 * DAY
    entry = find_entry(book.ledger, new.license_id)
    assert entry.renews == old.license_id and entry.model_name == "resnet50"
    assert find_entry(book.ledger, old.license_id).state(book.now) == "valid"


def test_a_renewed_license_opens_on_every_device(book: LedgerWorld, tmp_path: Path) -> None:
    hybrid = HybridDeviceKey.generate(tmp_path / "hybrid.key")
    license = renew(book, book.issue_id(book.device, hybrid))
    claims = verify_license(license, trust_of_ledger(book.ledger), now=book.now)
    for device in (book.device, hybrid):
        assert decrypt_license(license, claims, device)["gate.patch"].tobytes() == SECRET


def test_renewing_can_revoke_the_old_one_in_the_same_step(book: LedgerWorld) -> None:
    old = book.issue_id()
    renew(book, old, revoke=True)
    assert find_entry(book.ledger, old).reason == "renewed"
    with pytest.raises(LedgerError, match="was revoked, and a revoked license is not renewed"):
        renew(book, old)
    assert rows(book.path, "SELECT count(*) FROM licenses") == [(2,)]


def test_a_renewal_that_fails_revokes_nothing(book: LedgerWorld) -> None:
    old = book.issue_id()
    with pytest.raises(LedgerError, match="not in this ledger"):
        renew(book, old, revoke=True, issuer=FileIssuerKey.generate())
    assert find_entry(book.ledger, old).revoked_at is None


def test_a_cosigned_license_is_renewed_with_a_cosigner(book: LedgerWorld) -> None:
    cosigner = CosignerKey.generate()
    old = book.issue_id(cosigner=cosigner)
    with pytest.raises(LedgerError, match="is cosigned"):
        renew(book, old)
    license = renew(book, old, cosigner=cosigner)
    trust = trust_of_ledger(book.ledger)
    assert verify_license(license, trust, now=book.now).cosignature_sha256


def test_revoking_says_when_and_why_and_only_once(book: LedgerWorld) -> None:
    license_id = book.issue_id()
    entry = revoke_license(book.ledger, license_id[:20], reason="lost laptop")
    assert entry.license_id == license_id and entry.reason == "lost laptop" and entry.state(book.now) == "revoked"
    assert entry.revoked_at is not None and abs(entry.revoked_at - book.now) < 3_600
    with pytest.raises(LedgerError, match="was revoked already"):
        revoke_license(book.ledger, license_id)


@pytest.mark.parametrize("reason", ["two\nlines", "x" * 201, "\udcff"])
def test_a_reason_is_one_short_line(book: LedgerWorld, reason: str) -> None:
    license_id = book.issue_id()
    with pytest.raises(LedgerError, match="the reason is"):
        revoke_license(book.ledger, license_id, reason=reason)
    assert find_entry(book.ledger, license_id).revoked_at is None


def test_revoking_a_device_ends_all_its_licenses_and_no_others(book: LedgerWorld) -> None:
    mine = [book.issue_id(book.other_device), book.issue_id(book.device, book.other_device)]
    other, gone = book.issue_id(), book.issue_id(book.other_device)
    revoke_license(book.ledger, gone, reason="before")
    revoked = revoke_device(book.ledger, book.other_device.public.thumbprint[:12], reason="stolen")
    assert [entry.license_id for entry in revoked] == mine
    assert [entry.reason for entry in revoked] == ["stolen", "stolen"]
    assert find_entry(book.ledger, gone).reason == "before"
    assert find_entry(book.ledger, other).revoked_at is None
    with pytest.raises(LedgerEntryError, match="no license that is neither revoked nor expired"):
        revoke_device(book.ledger, book.other_device.public.thumbprint)
    with pytest.raises(LedgerEntryError, match="has no device"):
        revoke_device(book.ledger, "absent")


def test_revoking_a_device_leaves_what_has_expired(book: LedgerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = book.issue_id(days=2), book.issue_id(days=60)
    monkeypatch.setattr(revoking, "current_time", lambda: book.now + 2 * DAY)
    revoked = revoke_device(book.ledger, book.device.public.thumbprint)
    assert [entry.license_id for entry in revoked] == [long]
    assert find_entry(book.ledger, short).revoked_at is None


def test_the_list_names_what_is_revoked_and_not_expired(book: LedgerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from keylatch.keys._revocations import verify_revocation_list

    short, long, kept = book.issue_id(days=2), book.issue_id(days=60), book.issue_id()
    for license_id in (short, long):
        revoke_license(book.ledger, license_id)
    trust = Trust([book.issuer.public])
    first = publish_revocations(book.ledger, issuer=book.issuer, max_age=7 * DAY)
    listed = verify_revocation_list(first.data, trust)
    assert set(listed.license_ids) == {short, long} and kept not in listed.license_ids
    assert listed.seq == first.seq and first.license_count == 2 and listed.max_age == 7 * DAY
    monkeypatch.setattr(revoking, "current_time", lambda: book.now + 3 * DAY)
    second = publish_revocations(book.ledger, issuer=book.issuer, max_age=DAY)
    assert set(verify_revocation_list(second.data, trust).license_ids) == {long}
    assert second.seq > first.seq
    numbers = rows(book.path, "SELECT seq, issuer, license_count FROM revocation_lists ORDER BY seq")
    issuer = book.issuer.public.thumbprint
    assert numbers == [(first.seq, issuer, 2), (second.seq, issuer, 1)]


def test_list_numbers_never_repeat_either(book: LedgerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence.time, "time_ns", lambda: 2_000_000_000_000 * 1_000_000)
    numbers = [publish_revocations(book.ledger, issuer=book.issuer, max_age=DAY).seq for _ in range(3)]
    assert numbers == [2_000_000_000_000, 2_000_000_000_001, 2_000_000_000_002]


def test_a_retired_key_signs_nothing_any_more(book: LedgerWorld) -> None:
    new, license_id = FileIssuerKey.generate(), book.issue_id(days=40)
    assert rotate_issuer(book.ledger, old=book.issuer.public, new=new.public) == book.now + 40 * DAY
    for attempt in (
        lambda: book.issue(),
        lambda: renew(book, license_id),
        lambda: publish_revocations(book.ledger, issuer=book.issuer, max_age=DAY),
        lambda: check_issuer(book.ledger, book.issuer.public),
        lambda: rotate_issuer(book.ledger, old=book.issuer.public, new=FileIssuerKey.generate().public),
    ):
        with pytest.raises(LedgerError, match=f"{book.issuer.public.thumbprint} retired at") as caught:
            attempt()
        assert new.public.thumbprint in str(caught.value.hint)
    assert read_claims_unverified(renew(book, license_id, issuer=new)).issuer == new.public.thumbprint
    assert rows(book.path, "SELECT count(*) FROM issuers WHERE retired_at IS NULL") == [(1,)]


def test_a_key_is_not_rotated_to_one_that_is_there(book: LedgerWorld) -> None:
    with pytest.raises(LedgerError, match="is in this ledger already"):
        rotate_issuer(book.ledger, old=book.issuer.public, new=book.issuer.public)
    check_issuer(book.ledger, book.issuer.public)


def test_the_trust_file_carries_both_keys_until_the_old_ones_licenses_end(
    book: LedgerWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old_license = FileIssuerKey.generate(), book.issue(days=40)
    rotate_issuer(book.ledger, old=book.issuer.public, new=new.public)
    new_license = book.issue(issuer=new, days=400)
    trust_of_ledger(book.ledger).save(tmp_path / "acme.trust")
    trust = Trust.load(tmp_path / "acme.trust")
    assert [key.thumbprint for key in trust.issuers] == [book.issuer.public.thumbprint, new.public.thumbprint]
    assert dict(trust.until) == {book.issuer.public.thumbprint: book.now + 40 * DAY}
    for license in (old_license, new_license):
        assert verify_license(license, trust, now=book.now)
    # What the old key signs behind the ledger's back ends after its last license, or is on nobody's record.
    forged = issue_behind_the_ledger(book, days=41)
    with pytest.raises(SignatureError, match="retired issuer key"):
        verify_license(forged, trust, now=book.now)
    monkeypatch.setattr(signers, "current_time", lambda: book.now + 40 * DAY)
    later = trust_of_ledger(book.ledger)
    assert [key.thumbprint for key in later.issuers] == [new.public.thumbprint] and not later.until


def issue_behind_the_ledger(book: LedgerWorld, days: int) -> License:
    from keylatch.keys import issue_license

    return issue_license(
        issuer=book.issuer, devices=[book.device.public], model_id="ab" * 32, secret_values=SECRET_VALUES,
        customer="x", not_before=book.now, expires_at=book.now + days * DAY,
    )  # fmt: skip


def test_a_key_that_issued_nothing_is_not_trusted_once_retired(book: LedgerWorld) -> None:
    new = FileIssuerKey.generate()
    assert rotate_issuer(book.ledger, old=book.issuer.public, new=new.public) is None
    assert [key.thumbprint for key in trust_of_ledger(book.ledger).issuers] == [new.public.thumbprint]


def test_cosigners_are_demanded_unless_told_otherwise(book: LedgerWorld) -> None:
    cosigner = CosignerKey.generate()
    plain, cosigned = book.issue(), book.issue(cosigner=cosigner)
    trust = trust_of_ledger(book.ledger)
    assert [key.thumbprint for key in trust.cosigners] == [cosigner.public.thumbprint]
    assert verify_license(cosigned, trust, now=book.now)
    with pytest.raises(CosignatureError):
        verify_license(plain, trust, now=book.now)
    relaxed = trust_of_ledger(book.ledger, cosigners=False)
    assert not relaxed.cosigners and verify_license(plain, relaxed, now=book.now)
    assert json.loads(rows(book.path, "SELECT public_key FROM cosigners")[0][0]) == cosigner.public.to_jwk()
