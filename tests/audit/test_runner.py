"""The runner gives each attack what its variant says and no more, and measures what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from audit_world import FakeAttack, Shipped, distinct_images, knowing, run, small_scene

from keylatch.audit import Case, Given, Outcome, Scene, Variant
from keylatch.audit._draw import draw_images, seeded
from keylatch.errors import InputError


@pytest.fixture
def scene(shipped: Shipped) -> Scene:
    return small_scene(shipped.target)


def right(scene: Scene, percent: float) -> FakeAttack:
    return FakeAttack(lambda case: Outcome(knowing(scene.images.evaluation, percent)))


def test_an_attack_is_given_what_its_variant_says_and_no_more(scene: Scene, shipped: Shipped, tmp_path: Path) -> None:
    budgets = [Variant(Given(labeled=20)), Variant(Given(unlabeled=30)), Variant(Given(labeled=5, unlabeled=40))]
    attack = right(scene, 50)
    attack.budgets = [*budgets, Variant(Given()), Variant(Given(pairs=3)), Variant(Given(key="a near key"))]
    run(small_scene(shipped.target, shipped.owner), [attack], tmp_path, seeds=[0])
    sizes = [(len(case.images), len(case.labels)) for case in attack.cases]
    assert sizes == [(20, 20), (30, 0), (40, 5), (0, 0), (3, 0), (0, 0)]
    assert [case.owner is not None for case in attack.cases] == [False, False, False, False, True, True]
    assert all(case.base is None and case.classes == 10 for case in attack.cases)


def test_attackers_never_see_the_images_that_are_measured_on(scene: Scene, tmp_path: Path) -> None:
    attack = right(scene, 50)
    attack.budgets = [Variant(Given(labeled=200))]
    run(scene, [attack], tmp_path)
    pool = {float(image[0, 0, 0]): int(label) for image, label in zip(*_parts(scene.images.attacker), strict=True)}
    measured = {float(image[0, 0, 0]) for image in scene.images.evaluation.images}
    for case in attack.cases:
        seen = {float(image[0, 0, 0]): int(label) for image, label in zip(case.images, case.labels, strict=True)}
        assert seen == pool and not measured & set(seen)


def _parts(images):  # type: ignore[no-untyped-def]
    return images.images, images.labels


def test_attacks_with_equal_budgets_and_seeds_are_given_the_same_images(scene: Scene, tmp_path: Path) -> None:
    first, second = right(scene, 50), right(scene, 50)
    first.budgets = second.budgets = [Variant(Given(labeled=20))]
    second.name = "other"
    run(scene, [first, second], tmp_path)
    for mine, theirs in zip(first.cases, second.cases, strict=True):
        assert torch.equal(mine.images, theirs.images)
    assert not torch.equal(first.cases[0].images, first.cases[1].images)


@pytest.mark.parametrize("count", [7, 10, 25, 96])
def test_classes_are_drawn_by_their_shares(count: int) -> None:
    pool = distinct_images(240)
    pool.labels[:] = torch.tensor([0] * 120 + [1] * 80 + [2] * 40)
    drawn = draw_images(pool, count, seeded(3, "images"))
    for label, share in ((0, 1 / 2), (1, 1 / 3), (2, 1 / 6)):
        assert abs(int((drawn.labels == label).sum()) - count * share) <= 1.5
    order = draw_images(pool, 240, seeded(3, "images")).labels
    assert int((order[:120] == 0).sum()) not in (0, 120) and not torch.equal(order, order.sort().values)


def test_accuracy_is_measured_on_the_evaluation_images(scene: Scene, tmp_path: Path) -> None:
    runner = run(scene, [right(scene, 37)], tmp_path)
    assert [measurement.accuracy for _, measurement in runner.measured] == [pytest.approx(37)] * 2


def test_pytorch_s_own_generator_is_seeded_inside_and_untouched_outside(scene: Scene, tmp_path: Path) -> None:
    drawn: list[float] = []

    def work(case: Case) -> Outcome:
        drawn.append(float(torch.rand(())))
        return Outcome(knowing(scene.images.evaluation, 10))

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    run(scene, [FakeAttack(work)], tmp_path / "first")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    run(scene, [FakeAttack(work)], tmp_path / "second")
    assert drawn[:2] == drawn[2:] and drawn[0] != drawn[1]


def test_cells_come_seed_by_seed_baselines_first_and_cheap_ones_before_expensive_ones(scene: Scene) -> None:
    from keylatch.audit import Resources
    from keylatch.audit._plan import plan_cells

    slow = FakeAttack(lambda case: Outcome(lambda x: x), [Variant(Given(labeled=20), weight=5.0)], name="slow")
    quick = FakeAttack(lambda case: Outcome(lambda x: x), [Variant(Given(labeled=10), weight=0.1)], name="quick")
    base = FakeAttack(lambda case: Outcome(lambda x: x), name="base")
    base.variants = lambda target, resources: [Variant(Given(labeled=n)) for n in resources.labeled]
    resources = Resources(200, 200, (10, 20, 100), 10, False, False)
    cells = plan_cells([slow, quick], [base], scene, resources, [4, 9])
    names = [(cell.seed, cell.attack.name, cell.variant.given.labeled) for cell in cells]
    first = [("base", 10), ("base", 20), ("quick", 10), ("slow", 20)]  # no baseline for 100, which nobody uses
    assert names == [(seed, *cell) for seed in (4, 9) for cell in first]
    # A baseline has at least the time of the attacks that are compared with it.
    assert [cell.variant.weight >= other.variant.weight for cell, other in zip(cells[:2], cells[2:4], strict=True)]


def test_an_attack_that_gives_up_is_listed_with_its_reason(scene: Scene, tmp_path: Path) -> None:
    def refuse(case: Case) -> Outcome:
        raise InputError("no gates were found")

    runner = run(scene, [FakeAttack(refuse, name="lost"), right(scene, 50)], tmp_path)
    assert [(cut.cell.attack.name, cut.reason) for cut in runner.skipped] == [
        ("lost", "skipped: no gates were found")
    ] * 2
    assert len(runner.measured) == 2
    assert len(list(tmp_path.iterdir())) == 2  # a reason is not kept: the next run tries again


def test_a_defect_is_not_taken_for_a_result(scene: Scene, tmp_path: Path) -> None:
    def defect(case: Case) -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(scene, [FakeAttack(defect)], tmp_path)


def test_too_small_a_pool_is_a_reason(scene: Scene, tmp_path: Path) -> None:
    attack = right(scene, 50)
    attack.budgets = [Variant(Given(unlabeled=201))]
    assert "201 images are needed, the attacker's pool has 200" in run(scene, [attack], tmp_path).skipped[0].reason


def test_recovered_signs_are_compared_with_the_owner_s(shipped: Shipped, tmp_path: Path) -> None:
    signs = list(shipped.owner.signs(shipped.target))
    signs[0] = -signs[0]
    signs[1] = torch.cat([-signs[1][:16], signs[1][16:]])
    for owner in (shipped.owner, None):
        scene = small_scene(shipped.target, owner)
        attack = FakeAttack(lambda case: Outcome(knowing(scene.images.evaluation, 10), signs=tuple(signs)))  # noqa: B023
        runner = run(scene, [attack], tmp_path, seeds=[0])
        expected = [0.0, 100 * (1 - 16 / len(signs[1])), 100.0] if owner else []
        assert list(runner.measured[0][1].signs_right) == pytest.approx(expected)
