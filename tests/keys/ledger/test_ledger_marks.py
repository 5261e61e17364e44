from __future__ import annotations

from typing import Any

import numpy as np
from ledger_world import OTHER_MODEL_ID, SECRET_VALUES, LedgerWorld
from license_world import DAY, MODEL_ID

from keylatch.keys import (
    Fingerprint,
    License,
    Marked,
    Trust,
    decrypt_license,
    list_marks,
    renew_license,
    verify_license,
)
from keylatch.keys._ledger import KnownDevice, LicensedModel, LicenseTerms, issue_and_record
from keylatch.keys._token import read_claims_unverified

VALUES = {**SECRET_VALUES, "body.sealed_0": np.zeros(64, dtype=np.float32)}
FINGERPRINT = Fingerprint(bytes(range(32)), {"body.sealed_0": np.ones(1)})


def word_in(book: LedgerWorld, license: License) -> Any:
    claims = verify_license(license, Trust([book.issuer.public]), now=book.now)
    return decrypt_license(license, claims, book.device)["body.sealed_0"]


def issue(book: LedgerWorld, customer: str) -> License:
    return issue_and_record(
        book.ledger,
        issuer=book.issuer,
        model=LicensedModel(model_id=MODEL_ID, name="resnet50", secret_values=VALUES, fingerprint=FINGERPRINT),
        devices=[KnownDevice(book.device.public)],
        terms=LicenseTerms(customer=customer, not_before=book.now, expires_at=book.now + DAY),
    )


def renew(book: LedgerWorld, license: License) -> License:
    return renew_license(
        book.ledger, license_id(license), issuer=book.issuer, secret_values=VALUES, fingerprint=FINGERPRINT,
        not_before=book.now, expires_at=book.now + 2 * DAY,
    )  # fmt: skip


def license_id(license: License) -> str:
    return read_claims_unverified(license.jwt).license_id


def test_each_issued_license_has_a_word_and_renewals_keep_it(book: LedgerWorld) -> None:
    first, other = issue(book, "ACME"), issue(book, "Bolt")
    renewed = renew(book, first)
    again = renew(book, renewed)
    expected = FINGERPRINT.word(license_id(first), "body.sealed_0", 64)
    assert all(np.array_equal(word_in(book, license), expected) for license in (first, renewed, again))
    assert not np.array_equal(word_in(book, other), expected)
    assert list_marks(book.ledger, MODEL_ID) == [
        Marked(mark=license_id(first), customer="ACME", licenses=tuple(map(license_id, (first, renewed, again)))),
        Marked(mark=license_id(other), customer="Bolt", licenses=(license_id(other),)),
    ]


def test_only_the_models_own_licenses_are_listed(book: LedgerWorld) -> None:
    book.issue(model_id=OTHER_MODEL_ID, model="vit")
    assert list_marks(book.ledger, MODEL_ID) == []
