"""Domains: in the claims, in the vault's section of a model, and in renewals."""

from __future__ import annotations

import numpy as np
import pytest
from license_world import NOW, World

from keylatch.errors import FormatError
from keylatch.keys import Trust, domain_section, domains_of, for_domains, read_claims_unverified, verify_license

VALUES = np.arange(1, 7, dtype=np.float32)
USPS = np.array([1, 1, 0, 0, 0, 0], dtype=bool)
MNIST_M = np.array([0, 1, 1, 0, 0, 0], dtype=bool)


def answer(number: int) -> dict[str, np.ndarray]:
    return {"known_answer.pairs": np.full((2, 2), number), "known_answer.bits": np.ones(2, dtype=bool)}


def section() -> dict[str, np.ndarray]:
    masks = {"usps": {"gate": USPS}, "mnist_m": {"gate": MNIST_M}}
    answers = {frozenset(): answer(0), frozenset({"usps"}): answer(1), frozenset({"mnist_m"}): answer(2)}
    return {"gate": VALUES, "other": VALUES, **answer(3), **domain_section(masks, answers)}


@pytest.mark.parametrize(
    ("paid", "expected", "number"),
    [
        ((), [0, 0, 0, 4, 5, 6], 0),
        (("usps",), [1, 0, 0, 4, 5, 6], 1),
        (("mnist_m",), [0, 0, 3, 4, 5, 6], 2),
        (("usps", "mnist_m"), [1, 2, 3, 4, 5, 6], 3),
    ],
)
def test_a_license_brings_what_no_unpaid_domain_covers(paid: tuple[str, ...], expected: list[int], number: int) -> None:
    found = for_domains(section(), paid)
    np.testing.assert_array_equal(found["gate"], np.array(expected, dtype=np.float32))
    np.testing.assert_array_equal(found["other"], VALUES)
    assert found["known_answer.pairs"][0, 0] == number
    assert set(found) == {"gate", "other", "known_answer.pairs", "known_answer.bits"}
    assert found["gate"].dtype == np.float32


def test_an_unknown_domain_is_refused_with_the_names_there_are() -> None:
    assert domains_of(section()) == ("mnist_m", "usps")
    with pytest.raises(FormatError, match="no domain 'svhn'") as raised:
        for_domains(section(), ["svhn"])
    assert "mnist_m, usps" in str(raised.value.hint)


def test_a_model_without_domains_takes_none() -> None:
    plain = {"gate": VALUES, **answer(3)}
    assert for_domains(plain, ()) == plain
    with pytest.raises(FormatError, match="no domain 'usps'"):
        for_domains(plain, ["usps"])


def test_a_choice_without_a_known_answer_is_refused() -> None:
    lacking = {name: value for name, value in section().items() if not name.startswith("known_answer_of.0.")}
    with pytest.raises(FormatError, match="no known answer for this choice"):
        for_domains(lacking, ())


@pytest.mark.parametrize("domains", [(), ("usps",), ("usps", "mnist_m")])
def test_domains_are_signed_and_read_back(world: World, domains: tuple[str, ...]) -> None:
    license = world.issue(domains=domains)
    claims = verify_license(license, Trust([world.issuer.public]), now=NOW)
    assert claims.domains == tuple(sorted(domains))
    assert read_claims_unverified(license).domains == claims.domains


def test_a_license_for_a_model_without_domains_says_nothing_of_them(world: World) -> None:
    claims = verify_license(world.issue(), Trust([world.issuer.public]), now=NOW)
    assert claims.domains is None
    assert "domains" not in claims.to_payload()


@pytest.mark.parametrize(
    "domains", ["usps", ["usps", "mnist_m"], ["usps", "usps"], ["US PS"], [1], {"usps": 1}, ["d" * 40], True]
)
def test_malformed_domains_are_refused_though_signed(world: World, domains: object) -> None:
    with pytest.raises(FormatError, match="domains is"):
        world.verify(world.sign(world.header(), {**world.payload(), "domains": domains}))
