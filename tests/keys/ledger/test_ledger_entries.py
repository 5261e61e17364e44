"""Finding and listing: by id, beginning, seq, model, customer, device, time, state; never a guess."""

from __future__ import annotations

from typing import Any

import pytest
from ledger_world import OTHER_MODEL_ID, LedgerWorld
from license_world import DAY, MODEL_ID

from keylatch.errors import LedgerEntryError
from keylatch.keys import read_claims_unverified
from keylatch.keys._ledger import find_entry, list_entries, revoke_license


@pytest.fixture
def filled(book: LedgerWorld) -> dict[str, str]:
    """Four licenses by what is special about them."""
    return {
        "plain": book.issue_id(days=30),
        "soon": book.issue_id(days=3, customer="Bolt"),
        "later": book.issue_id(start=DAY, days=90, model="vit", model_id=OTHER_MODEL_ID),
        "both": book.issue_id(book.device, book.other_device, days=60),
    }


def test_a_license_is_found_by_id_beginning_and_seq(book: LedgerWorld, filled: dict[str, str]) -> None:
    wanted = filled["soon"]
    entry = find_entry(book.ledger, wanted)
    assert entry.license_id == wanted and entry.customer == "Bolt" and entry.devices == (book.device.public.thumbprint,)
    assert find_entry(book.ledger, str(entry.seq)) == entry
    others = [license_id for license_id in filled.values() if license_id != wanted]
    length = next(n for n in range(1, 37) if not any(other.startswith(wanted[:n]) for other in others))
    assert find_entry(book.ledger, wanted[:length]) == entry
    assert find_entry(book.ledger, wanted[:length].upper()) == entry


@pytest.mark.parametrize("name", ["", "zz", "%", "________", "*", "9" * 13, "9" * 40, "\udcff", "é", "' OR 1=1 --"])
def test_what_is_not_there_is_not_found(book: LedgerWorld, filled: dict[str, str], name: str) -> None:
    with pytest.raises(LedgerEntryError, match="ledger has no license"):
        find_entry(book.ledger, name)


def test_a_beginning_of_two_ids_is_refused_with_both(book: LedgerWorld) -> None:
    ids = [book.issue_id() for _ in range(17)]  # more than there are hex digits
    shared = next(d for d in "0123456789abcdef" if sum(license_id.startswith(d) for license_id in ids) > 1)
    with pytest.raises(LedgerEntryError, match=f"{shared} could be license") as caught:
        find_entry(book.ledger, shared)
    assert any(license_id in caught.value.message for license_id in ids)
    assert "more of the license's id" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["plain", "soon", "later", "both"]),
        ({"model": "resnet50"}, ["plain", "soon", "both"]),
        ({"model": "vit"}, ["later"]),
        ({"model": OTHER_MODEL_ID[:4]}, ["later"]),
        ({"model": MODEL_ID}, ["plain", "soon", "both"]),
        ({"customer": "Bolt"}, ["soon"]),
        ({"device": "other"}, ["both"]),
        ({"device": "first", "customer": "ACME Vision"}, ["plain", "later", "both"]),
        ({"expires_before": 31 * DAY}, ["plain", "soon"]),
        ({"expires_before": 31 * DAY, "expires_after": 4 * DAY}, ["plain"]),
        ({"revoked": True}, ["both"]),
        ({"revoked": False}, ["plain", "soon", "later"]),
    ],
)
def test_listing_takes_what_is_asked_for_in_order(
    book: LedgerWorld, filled: dict[str, str], filters: dict[str, Any], expected: list[str]
) -> None:
    revoke_license(book.ledger, filled["both"])
    devices = {"first": book.device.public.thumbprint[:10], "other": book.other_device.public.thumbprint[:10]}
    if "device" in filters:
        filters = {**filters, "device": devices[filters["device"]]}
    times = {name: filters[name] + book.now for name in ("expires_before", "expires_after") if name in filters}
    found = list_entries(book.ledger, **{**filters, **times})
    assert [entry.license_id for entry in found] == [filled[name] for name in expected]


@pytest.mark.parametrize(
    "filters",
    [{"model": "3f9"}, {"model": "absent"}, {"model": ""}, {"customer": "Nobody"}, {"customer": "\udcff"},
     {"device": "?"}, {"device": ""}, {"model": "%"}],
)  # fmt: skip
def test_a_filter_that_fits_nothing_or_two_is_refused(
    book: LedgerWorld, filled: dict[str, str], filters: dict[str, Any]
) -> None:
    with pytest.raises(LedgerEntryError):
        list_entries(book.ledger, **filters)


def test_the_state_follows_the_time_and_the_revocation(book: LedgerWorld) -> None:
    license = book.issue(start=DAY, days=3)
    name = read_claims_unverified(license).license_id
    entry, now = find_entry(book.ledger, name), book.now
    states = [entry.state(now + seconds) for seconds in (0, DAY - 1, DAY, 3 * DAY - 1, 3 * DAY)]
    assert states == ["not yet", "not yet", "valid", "valid", "expired"]
    assert revoke_license(book.ledger, name).state(now + 3 * DAY) == "revoked"
