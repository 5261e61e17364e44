"""Starts that are trained again and again."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from attack_world import World

from keylatch.audit._attack import Given, Variant
from keylatch.audit.attacks import _fitting
from keylatch.audit.attacks._fitting import Start, at_rates, fit_best
from keylatch.audit.attacks._free_gates import attacked_network


def test_a_start_is_built_once_and_trained_from_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    case, built, entered, rates = world.case(Variant(Given(labeled=150))), [], [], []
    train = _fitting.fit

    def build() -> Start:
        network = attacked_network(case)
        built.append(network)
        return Start(network, list(network.parameters()))

    def watched(network: Any, parameters: Iterable[torch.Tensor], *others: Any, **options: Any) -> int:
        entered.append(sum(float(each.detach().double().abs().sum()) for each in parameters))
        rates.append(options["learning_rate"])
        return train(network, parameters, *others, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(_fitting, "fit", watched)
    outcome = fit_best(case, at_rates({"as it is": build}, (1e-3, 1e-2)), steps=8)
    assert len(built) == 1 and outcome.predict is built[0]
    assert len(set(entered)) == 1 and rates[:2] == [1e-3, 1e-2] and len(rates) == 3
    assert sum(float(each.detach().double().abs().sum()) for each in built[0].parameters()) != entered[0]
    assert outcome.cost == {"steps": 12} and not outcome.truncated


def test_an_untrained_start_that_wins_is_given_as_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    case = world.case(Variant(Given(labeled=150)))

    def spoil(network: Any, parameters: Iterable[torch.Tensor], *others: Any, **options: Any) -> int:
        del network, others
        with torch.no_grad():
            for parameter in parameters:
                parameter.zero_()
        return int(options["steps"])

    def build() -> Start:
        network = copy.deepcopy(world.base)
        return Start(network, list(network.parameters()))

    monkeypatch.setattr(_fitting, "fit", spoil)
    outcome = fit_best(case, at_rates({"open": build}, (1e-3,)), steps=8)
    assert "untrained" in outcome.note and world.accuracy(outcome.predict) > 80
