"""Cells of the table: one method for one ordered pair of domains, trained once and found again."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from authorization import baselines
from authorization.digits import Domain, Labeled, shifted
from authorization.vgg import WIDTH, NarrowVgg
from keylatch.locks import DomainWarning, InputSpec, TrainingProgress, learn_domain_masks, masked_model, measure_domains

SPEC = InputSpec(3, 32, 32, (0.5,), (0.5,))
Setting = Literal["SA", "SF", "DF"]
MAP_SETTINGS: Mapping[str, Setting] = {"SA-MAP": "SA", "SF-MAP": "SF", "DF-MAP": "DF"}
BASELINES = {"NTL": baselines.ntl, "CUTI": baselines.cuti}
METHODS = (*MAP_SETTINGS, *BASELINES)
SOURCE_EPOCHS, SOURCE_IMAGES, SOURCE_RATE = 6, 6_000, 2e-3
EPOCHS = {"SA-MAP": 10, "SF-MAP": 16, "DF-MAP": 8, "NTL": 10, "CUTI": 10}
IMAGES, BATCH = 1_500, 64


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """All that cells need.

    Attributes:
        domains: By name.
        work: Folder for finished cells, masks and checkpoints.
    """

    domains: Mapping[str, Domain]
    work: Path

    def source_network(self, source: str) -> NarrowVgg:
        """A network that was trained on one domain alone, in evaluation mode."""
        network, state = NarrowVgg(), self.work / f"{source}.source.pt"
        if not state.exists():
            say(f"training on {source}")
            torch.save(_train_source(self.domains[source].train).state_dict(), state)
        network.load_state_dict(torch.load(state, weights_only=True))
        return network.eval()

    def cell(self, method: str, source: str, target: str) -> dict[str, Any]:
        """What a method comes to for an ordered pair, measured on test images of all domains."""
        done = self.work / f"{method}.{source}.{target}.json"
        if not done.exists():
            say(f"{method}, {source} -> {target}")
            done.write_text(json.dumps(self._measure(method, source, target)))
        found: dict[str, Any] = json.loads(done.read_text())
        return found

    def has(self, method: str, source: str, target: str) -> bool:
        """Whether a cell is finished."""
        return (self.work / f"{method}.{source}.{target}.json").exists()

    def masks(self, method: str, source: str, target: str) -> dict[str, dict[str, torch.Tensor]]:
        """The masks of a finished MAP cell."""
        self.cell(method, source, target)
        found: dict[str, dict[str, torch.Tensor]] = torch.load(
            self.work / f"{method}.{source}.{target}.masks", weights_only=True
        )
        return found

    def _measure(self, method: str, source: str, target: str) -> dict[str, Any]:
        network, start = self.source_network(source), time.monotonic()
        made, facts = self._make(method, source, target, network)
        seconds = time.monotonic() - start
        loaders = {name: domain.test.loader() for name, domain in self.domains.items()}
        report = measure_domains(network, made, SPEC, loaders, source=source, targets=[target])
        return {"method": method, "source": source, "target": target, "seconds": seconds, **facts, **report.to_json()}

    def _make(self, method: str, source: str, target: str, network: NarrowVgg) -> tuple[nn.Module, dict[str, Any]]:
        ours, theirs = (self.domains[name].train.first(IMAGES) for name in (source, target))
        if method in BASELINES:
            loss = BASELINES[method]
            return baselines.train(network, SPEC, loss, ours, theirs, epochs=EPOCHS[method], batch=BATCH), {}
        setting, given = _given(MAP_SETTINGS[method], ours, target, theirs)
        # DF looks at no target: its masks are learned once for a source.
        learned_for = source if setting == "DF" else f"{source}.{target}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DomainWarning)  # overlaps are in the report
            learned = learn_domain_masks(
                network,
                SPEC,
                setting=setting,
                epochs=EPOCHS[method],
                batch=BATCH,
                checkpoint=self.work / f"{method}.{learned_for}.checkpoint",
                augment=shifted,
                mixed_precision=True,
                progress=_tell,
                **given,
            )
        torch.save(learned.masks, self.work / f"{method}.{source}.{target}.masks")
        report = learned.report
        facts = {
            "seconds": report.seconds,
            "withheld_share": report.domains[0].share,
            "overlaps": [overlap.to_json() for overlap in report.overlaps],
        }
        return masked_model(network, learned.masks), facts


def _given(setting: Setting, ours: Labeled, target: str, theirs: Labeled) -> tuple[Setting, dict[str, Any]]:
    """What a setting may look at."""
    if setting == "SA":
        return setting, {"source": ours.loader(), "targets": {target: theirs.loader()}}
    return setting, {"targets": {target: [theirs.images]}} if setting == "SF" else {}


def _train_source(images: Labeled) -> NarrowVgg:
    """Adam, one cycle."""
    given = images.first(SOURCE_IMAGES)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = convert_conv2d_weight_memory_format(NarrowVgg(WIDTH), torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), lr=SOURCE_RATE)
        # Few images are seen more often, so that each network takes as many steps.
        epochs = SOURCE_EPOCHS * SOURCE_IMAGES // max(len(given), SOURCE_IMAGES // 4)
        steps = epochs * -(-len(given) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, SOURCE_RATE, total_steps=steps)
        for _ in range(epochs):
            for chosen in torch.split(torch.randperm(len(given)), BATCH):
                if len(chosen) < 2:
                    continue
                with torch.autocast("cpu", torch.bfloat16):
                    scores = network(SPEC.from_pixels(shifted(given.images[chosen])))
                optimizer.zero_grad()
                functional.cross_entropy(scores.float(), given.labels[chosen]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    return convert_conv2d_weight_memory_format(network.eval(), torch.contiguous_format)


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def _tell(state: TrainingProgress) -> None:
    say(f"  {state.epoch}/{state.epochs} loss {state.loss:.3f}, source {state.accuracy:.1f} %, {state.seconds:.0f} s")
