"""A prompt that stands on a list of styles is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from attack_world import World

import networks
from keylatch.audit import load_target
from keylatch.audit._attack import Outcome
from keylatch.audit._owner import Owner
from keylatch.audit._training import accuracy
from keylatch.audit.attacks.prompt_guessing import PromptGuessing, style_prompts
from keylatch.exporters import export
from keylatch.locks import EditKey, EditSettings, InputSpec, KeyedEdit, PixelEditor, model_lock
from keylatch.locks._model_lock._styles import STYLE_PROMPTS

SPEC = InputSpec(3, 32, 32)
LISTED = STYLE_PROMPTS[3]
FEW = {"prompts": 12}


class Edited:
    """A network behind an edit whose prompt alone an attacker does not know; right is what it answers with the key."""

    def __init__(self, folder: Path, prompt: str) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            editor = PixelEditor(16).eval().requires_grad_(False)
        for name, weight in editor.named_parameters():
            if "film" in name or "condition" in name:
                weight.mul_(4)  # as if it had learned to listen to prompts
        settings = EditSettings(1, guided=False)
        key = EditKey.draw(editor, prompt, SPEC, settings=settings, seed=networks.SEED)
        default = KeyedEdit(editor.edit(32, 32, settings), editor.digest, settings).get_buffer("noise_0")
        self.key = replace(key, values={**key.values, "noise_0": default.clone()})
        locked = model_lock(networks.settle(networks.PaddedConvs), SPEC, editor, self.key)
        exported = export(locked.module, locked.secret, folder / "edited.latch")
        self.target = load_target(exported.path)
        self.owner = Owner({name: exported.secret_values[name] for name in self.target.gate_names}, locked.secret)
        self.images = networks.prepare(networks.pixels(60), SPEC)
        with torch.no_grad():
            self.labels = self.owner.unlocked(self.target)(self.images).argmax(1)

    def run(self, **options: Any) -> Outcome:
        world = World(self.target, self.owner, self.images, self.labels, self.target.network())
        resources = replace(world.resources, pool=60, labeled=(30,))
        variant = PromptGuessing().variants(self.target, resources)[-1]
        case = world.case(replace(variant, settings=FEW), **options)
        return PromptGuessing().run(case)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    return Edited(tmp_path_factory.mktemp("listed"), LISTED)


def test_a_prompt_on_the_list_is_found(listed: Edited) -> None:
    outcome = listed.run()
    assert outcome.note == f"the best prompt is {LISTED!r}"
    assert outcome.cost == {"prompts": 12}
    assert accuracy(outcome.predict, listed.images[30:], listed.labels[30:]) == 100
    assert not outcome.truncated


def test_time_that_is_over_ends_the_search(listed: Edited) -> None:
    outcome = listed.run(seconds=0)
    assert outcome.truncated
    assert outcome.cost == {"prompts": 1}


def test_the_list_has_200_different_prompts_and_other_locks_no_prompt(world: World) -> None:
    assert len(set(style_prompts())) == 200
    assert not world.variants(PromptGuessing())
