"""Domains that do not fit are refused or warned of, with what to do about it."""

from __future__ import annotations

import pytest
import torch
from mask_world import SPEC, Small, domain, learn, red, trained
from torch import nn

from keylatch.errors import LockError
from keylatch.locks import DomainWarning, InputSpec, learn_domain_masks, masked_model, measure_domains

GREEN = domain("green", 64, 11)
EMPTY = [(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))]


def relabeled(move: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(GREEN[0][0], GREEN[0][1] + move)]


def only(label: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    chosen = GREEN[0][1] == label
    return [(GREEN[0][0][chosen], GREEN[0][1][chosen])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": red(64), "targets": {"green": EMPTY}}, r"the green domain's loader gave no images"),
        ({"source": EMPTY, "targets": {"green": GREEN}}, r"the source domain's loader gave no images"),
        ({"source": red(64), "targets": {}}, r"setting SA takes source and targets, both labeled; got a source"),
        ({"source": red(64)}, r"got a source"),
        ({"setting": "SF", "source": red(64), "targets": {"green": GREEN}}, r"setting SF takes targets, and no source"),
        ({"setting": "DF", "targets": {"green": GREEN}}, r"setting DF takes neither source nor targets; got targets"),
        ({"setting": "XX"}, r"setting is 'XX', expected 'SA', 'SF' or 'DF'"),
        (
            {"source": red(64), "targets": {"green": relabeled(1)}},
            r"classes of domain green reach from 1 to 4",
        ),
        (
            {"source": only(0), "targets": {"green": GREEN}},
            r"domain green has classes 1, 2, 3, which",
        ),
        (
            {"source": red(64), "targets": {"green": [(torch.zeros(4, 3, 9, 9), torch.zeros(4, dtype=torch.int64))]}},
            r"images of the green domain's loader have shape \(4, 3, 9, 9\)",
        ),
        ({"setting": "SF", "targets": {"green": ["no tensor"]}}, r"a batch is a str, expected a tensor of images"),
        (
            {"source": red(64), "targets": {"green": GREEN}, "layers": ["norms.0.weight"]},
            r"norms.0.weight is no weight",
        ),
        ({"source": red(64), "targets": {"green": GREEN}, "granularity": "row"}, r"granularity is 'row'"),
        ({"source": red(64), "targets": {"green": GREEN}, "epochs": 0}, r"epochs is 0, expected 1 or more"),
        ({"source": red(64), "targets": {"green": GREEN}, "target_weight": 0.0}, r"target_weight is 0.0"),
        ({"source": red(64), "targets": {"green": GREEN}, "learning_rate": float("nan")}, r"learning_rate is nan"),
        (
            {"source": red(64), "targets": {"green": GREEN}, "model": nn.Flatten()},
            r"no convolution and no linear",
        ),
        (
            {"source": red(64), "targets": {"green": GREEN}, "model": nn.Conv2d(3, 4, 3)},
            r"returns shape \(2, 4, 6, 6",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_a_hint(options: dict[str, object], message: str) -> None:
    with pytest.raises(LockError, match=message) as refused:
        learn(**options)
    assert refused.value.hint


def test_images_of_another_size_than_the_network_s_are_refused() -> None:
    with pytest.raises(LockError, match="does not take images of shape"):
        learn_domain_masks(trained(), InputSpec(3, 9, 9), setting="DF")


def test_overlapping_domains_are_warned_of_with_the_measured_similarity() -> None:
    with pytest.warns(DomainWarning, match=r"domains source and twin overlap, similarity (0\.[5-9]|1\.0)"):
        learned = learn(source=domain("red", 256, 30), targets={"twin": domain("red", 256, 31)}, epochs=1)
    assert learned.report.overlaps[0].overlapping


def test_shared_images_are_counted() -> None:
    with pytest.warns(DomainWarning, match="64 images are in both"):
        learn(source=red(64), targets={"same": red(64)}, epochs=1)


def test_domains_apart_are_not_warned_of() -> None:
    learned = learn(source=red(), targets={"green": domain("green", 256, 11)}, epochs=1)
    overlap = learned.report.overlaps[0]
    assert overlap.accuracy > 95 and not overlap.overlapping and overlap.shared_images == 0


def test_missing_classes_of_a_target_are_warned_of() -> None:
    with pytest.warns(DomainWarning, match="domain green has no image of classes 1, 2, 3"):
        learn(source=red(64), targets={"green": only(0)}, epochs=1)


def test_a_network_without_normalizations_is_warned_of_where_images_are_made() -> None:
    plain = trained(norm=False)
    with pytest.warns(DomainWarning, match="no batch-normalization statistics .* only the classes .* smoothness"):
        learned = learn(model=plain, setting="SF", targets={"green": GREEN}, epochs=2)
    assert learned.report.normalizations == 0
    learn(model=plain, source=red(64), targets={"green": GREEN}, epochs=1)  # no warning: nothing is made


def test_a_checkpoint_of_other_domains_is_refused(tmp_path: object) -> None:
    path = f"{tmp_path}/masks.pt"
    learn(source=red(64), targets={"green": GREEN}, epochs=1, checkpoint=path)
    with pytest.raises(LockError, match="of another run: epochs 1, expected 2"):
        learn(source=red(64), targets={"green": GREEN}, epochs=2, checkpoint=path)
    with pytest.raises(LockError, match="domains green, expected blue"):
        learn(source=red(64), targets={"blue": GREEN}, epochs=1, checkpoint=path)


def test_masks_of_another_network_are_refused() -> None:
    masks = {"green": {"hidden.weight": torch.ones(32, 512, dtype=torch.bool)}}
    assert int((masked_model(trained(), masks).hidden.weight != 0).sum()) == 0
    with pytest.raises(LockError, match="no parameter gone"):
        masked_model(trained(), {"green": {"gone": torch.ones(1, dtype=torch.bool)}})
    with pytest.raises(LockError, match=r"mask of head.weight is torch.float32 of shape \(4, 32\), expected bool"):
        masked_model(trained(), {"green": {"head.weight": torch.ones(4, 32)}})
    with pytest.raises(LockError, match="there is no domain usps, expected green"):
        masked_model(trained(), masks, paid=["usps"])


def test_measuring_needs_a_source_and_targets_that_are_there() -> None:
    network = Small().eval()
    with pytest.raises(LockError, match="there is no domain blue; given are red"):
        measure_domains(network, network, SPEC, {"red": red(8)}, source="red", targets=["blue"])
    with pytest.raises(LockError, match="there is no target"):
        measure_domains(network, network, SPEC, {"red": red(8)}, source="red", targets=[])
    with pytest.raises(LockError, match="a domain named twice"):
        measure_domains(network, network, SPEC, {"red": red(8)}, source="red", targets=["red"])


def test_a_target_that_lost_nothing_has_no_ratio() -> None:
    network = trained()
    domains = {"red": red(64), "green": GREEN}
    found = measure_domains(network, network, SPEC, domains, source="red", targets=["green"])
    assert found.st_d is None and found.to_json()["st_d"] is None and found.source_drop == 0
