"""The table of attacks."""

from __future__ import annotations

import re
from pathlib import Path

from attack_world import World

import keylatch.audit.attacks
from keylatch.audit.attacks import ATTACKS


def test_every_attack_s_file_is_in_the_table() -> None:
    folder = Path(keylatch.audit.attacks.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert files == {type(attack).__module__.rpartition(".")[2] for attack in ATTACKS}


def test_names_are_unique_and_summaries_are_sentences() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in names)
    assert all(attack.summary.endswith(".") and attack.summary[0].isupper() for attack in ATTACKS)


def test_no_variant_asks_for_more_than_there_is(world: World) -> None:
    for attack in ATTACKS:
        for variant in world.variants(attack):
            given = variant.given
            assert max(given.unlabeled, given.labeled, given.pairs) <= world.resources.pool, attack.name


def test_only_what_the_owner_makes_does_not_count(world: World) -> None:
    uncounted = {attack.name for attack in ATTACKS for variant in world.variants(attack) if not variant.counts}
    assert uncounted == {"near-key"}  # and interception, of locks that change the image
