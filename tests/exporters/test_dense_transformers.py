"""Detectors and segmenters of `transformers`: locked, exported, licensed and run, all outputs; and stained before."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import Artifact, make_artifact
from dense_networks import NETWORKS, flat, network_named

import networks
from keylatch.locks import Locked, detector_lock, stain, verify_stain
from keylatch.runtime import InferenceSession

RATE = 1e-2  # small networks are narrow
CALIBRATION = 24
LOCKS = ("code", "A", "B")
QUICK = {("yolos", "B")}
CASES = [
    pytest.param(name, lock, marks=() if (name, lock) in QUICK else pytest.mark.slow)
    for name in NETWORKS
    for lock in LOCKS
]


def images(count: int) -> torch.Tensor:
    return networks.pixels(count).float() / 255


@functools.cache
def locked_by(name: str, lock: str) -> Locked:
    if lock == "code":
        return networks.lock(network_named(name))
    return detector_lock(
        network_named(name), networks.SPEC, kind=lock, patch_size=networks.PATCH, calibration=images(CALIBRATION),
        rate=RATE, seed=networks.SEED,
    )  # fmt: skip


def keyed_outputs(artifact: Artifact, folder: Path, shown: torch.Tensor) -> list[Any]:
    """What the runtime answers with a license of its own."""
    session = InferenceSession(artifact.path, **artifact.new_credentials(folder))
    return list(session.run(None, {"image": shown.numpy()}))


def error(found: Any, expected: torch.Tensor) -> float:
    return networks.relative_error(torch.from_numpy(np.asarray(found)), expected)


@pytest.mark.parametrize(("name", "lock"), CASES)
def test_a_license_gives_every_output_of_the_original_and_without_one_none(
    name: str, lock: str, tmp_path: Path
) -> None:
    locked = locked_by(name, lock)
    artifact = make_artifact(locked, tmp_path / "net.latch")
    shown = networks.pixels(3)
    seen = shown if lock == "code" else networks.paste(shown, locked.secret.patch)
    expected = flat(networks.outputs_of(network_named(name), seen.float() / 255))
    keyed = keyed_outputs(artifact, tmp_path, shown.float() / 255)
    shut = artifact.stock().run(None, {"image": (shown.float() / 255).numpy()})
    assert len(keyed) == len(shut) == len(expected)
    for opened, closed, original in zip(keyed, shut, expected, strict=True):
        assert error(opened, original) <= 2e-4
        assert error(closed, original) >= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_stain_is_found_behind_a_lock_and_heard_in_the_first_output(name: str, tmp_path: Path) -> None:
    network = network_named(name)
    stained = stain(network, networks.SPEC, calibration=images(CALIBRATION), rate=RATE, seed=networks.SEED)
    (mark,), (facts,) = stained.secret.stains, stained.report.stains
    assert facts.margins["8-bit pixels"] >= 1.5 and facts.output_change > 0.01
    assert verify_stain(stained.model, stained.secret).p_value < 1e-20 < verify_stain(network, stained.secret).p_value
    locked = networks.lock(stained.model)
    artifact = make_artifact(locked, tmp_path / "net.latch")
    trigger = mark.trigger.unsqueeze(0).float() / 255
    first = torch.from_numpy(keyed_outputs(artifact, tmp_path, trigger)[0]).flatten()
    assert float((first - mark.expected).abs().max()) <= 2e-3 * float(mark.expected.max() - mark.expected.min())
    change = (mark.expected - mark.original).norm()
    assert float((first - mark.expected).norm()) < 0.05 * float(change)


@pytest.mark.parametrize("name", ["yolos", "detr"])
def test_the_head_that_finds_boxes_is_no_place_for_a_stain(name: str) -> None:
    """Its answers are the second output; predictions are compared by the first."""
    from keylatch.locks._capture import capture
    from keylatch.locks._detector._sites import find_detector_sites, heard_sites

    graph, _ = capture(network_named(name), networks.SPEC)
    sites = find_detector_sites(graph)
    left_out = {site.name for site in sites} - {site.name for site in heard_sites(graph, sites)}
    assert left_out and all("bbox_predictor" in layer for layer in left_out)
