"""One artifact, a license for each domain: what each choice of domains opens, and how it is proved."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from withheld_artifacts import DOMAINS, IMAGES, Mixed, license_of, opened, output, random_masks, stock

from keylatch.errors import ExportError, FormatError, IntegrityError
from keylatch.exporters import Exported, export, export_plain
from keylatch.keys import domains_of
from keylatch.locks import domain_lock
from keylatch.runtime import InferenceSession, values_to_license
from networks import SPEC, lock, settle

CHOICES = [(), ("usps",), ("mnist_m",), DOMAINS]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return settle(Mixed)


@pytest.fixture(scope="module")
def alone(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    locked = domain_lock(network, SPEC, random_masks(network))
    return export(locked.module, locked.secret, tmp_path_factory.mktemp("alone") / "net.latch", report=locked.report)


@pytest.fixture(scope="module")
def behind_a_code(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    coded = lock(network, layers=["square"], sealed_share=0.2)
    locked = domain_lock(coded, SPEC, _coded_masks(network))
    return export(locked.module, locked.secret, tmp_path_factory.mktemp("coded") / "net.latch", report=locked.report)


def _coded_masks(network: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    return {
        domain: {name: mask for name, mask in own.items() if name != "square.weight"}
        for domain, own in random_masks(network).items()
    }


def _expected(network: nn.Module, masks: dict[str, dict[str, torch.Tensor]], paid: Collection[str]) -> np.ndarray:
    left = copy.deepcopy(network)
    for domain in set(masks) - set(paid):
        for name, mask in masks[domain].items():
            left.get_parameter(name).data[mask] = 0
    with torch.no_grad():
        result: np.ndarray = left(torch.from_numpy(IMAGES)).numpy()
    return result


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.ptp(expected))


@pytest.mark.parametrize("paid", CHOICES)
def test_each_license_opens_the_network_without_the_unpaid_domains(
    network: nn.Module, alone: Exported, paid: tuple[str, ...], tmp_path: Path
) -> None:
    session = opened(alone.path, license_of(alone, tmp_path, paid), tmp_path)
    assert _error(output(session), _expected(network, random_masks(network), paid)) < 1e-5


@pytest.mark.parametrize("paid", CHOICES)
def test_behind_a_code_each_license_does_so_too(
    network: nn.Module, behind_a_code: Exported, paid: tuple[str, ...], tmp_path: Path
) -> None:
    session = opened(behind_a_code.path, license_of(behind_a_code, tmp_path, paid), tmp_path)
    assert _error(output(session), _expected(network, _coded_masks(network), paid)) < 1e-5
    locked = InferenceSession.locked(behind_a_code.path, providers=["CPUExecutionProvider"])
    assert _error(output(locked), _expected(network, _coded_masks(network), ())) > 0.05


def test_all_domains_are_the_plain_export_bit_for_bit(network: nn.Module, alone: Exported, tmp_path: Path) -> None:
    plain = export_plain(network, SPEC, tmp_path / "plain")
    session = opened(alone.path, license_of(alone, tmp_path, DOMAINS), tmp_path)
    np.testing.assert_array_equal(output(session), output(stock(plain)))


def test_without_a_license_the_source_domain_is_served(network: nn.Module, alone: Exported) -> None:
    session = InferenceSession.locked(alone.path, providers=["CPUExecutionProvider"])
    assert _error(output(session), _expected(network, random_masks(network), ())) < 1e-5


def test_a_license_has_nothing_of_what_is_not_paid_for(alone: Exported) -> None:
    own = values_to_license(alone.secret_values, ["usps"])
    gate = {name: value for name, value in own.items() if name.startswith("withheld_")}
    for name, value in gate.items():
        mask = alone.secret_values[f"domain.mnist_m.{name}"]
        assert mask.any()
        assert not value[mask].any()
        assert alone.secret_values[name][mask].all()
    assert not any(name.startswith(("domain.", "known_answer_of.")) for name in own)


def test_the_known_answer_is_that_of_the_choice(alone: Exported, tmp_path: Path) -> None:
    # The values of one choice beside the known answer of another: a session that opened something else.
    values = values_to_license(alone.secret_values, DOMAINS)
    gate = {name: value for name, value in values.items() if name.startswith("withheld_")}
    session = opened(alone.path, license_of(alone, tmp_path, ["usps"], **gate), tmp_path)
    with pytest.raises(IntegrityError):
        output(session)


def test_an_unknown_domain_is_refused(alone: Exported) -> None:
    assert domains_of(alone.secret_values) == DOMAINS
    with pytest.raises(FormatError, match="no domain 'svhn'"):
        values_to_license(alone.secret_values, ["svhn"])


def test_domains_do_not_lie_beside_the_model(network: nn.Module, tmp_path: Path) -> None:
    locked = domain_lock(network, SPEC, random_masks(network))
    with pytest.raises(ExportError, match="with domains each license brings other values"):
        export(locked.module, locked.secret, tmp_path / "net.latch", side_file=True)
