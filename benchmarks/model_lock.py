"""ModelLock: what the key gives back, what is left without it, which prompts do, and what attacks get out of it.

    python benchmarks/model_lock.py ranking|lock|attacks|sealed|runtime|latency|segmentation [--cache build/model_lock]

Handwritten digits in color (scikit-learn's), a small network, and the project's own editor, which is trained the first
time. `lock` takes the prompt that `ranking` put first. `runtime`, `latency` and `segmentation` export and license.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import edited_attacks
import edited_runtime
import edited_scenes
from edited_digits import (
    COLORINGS,
    SPEC,
    digits,
    editor,
    key_of,
    unseen,
)
from edited_recipes import MADE_UP, OURS, PROMPTS, RECIPES, locked, original, ours, plain, split
from keylatch.locks import (
    edit_images,
    rank_prompts,
    score_on,
)
from measuring import print_rows, write_results

_RANKING_IMAGES = 300


def ranking(cache: Path) -> dict[str, Any]:
    """Rank twelve prompts, then train a lock with each and see whether the order was right."""
    network, accuracy = original(cache)
    images, labels = (part[:_RANKING_IMAGES] for part in digits()[0])
    began = time.monotonic()
    artist = editor(cache, 0)
    ranks = rank_prompts(
        network, SPEC, artist, images, labels, prompts=PROMPTS, settings=key_of(artist, "").settings,
        cache=cache / "edited",
    )  # fmt: skip
    seconds = time.monotonic() - began
    rows = []
    for rank in ranks:
        report = locked(network, rank.prompt, cache).report
        rows.append({**rank.to_json(), "unlocked": report.unlocked, "locked": report.locked})
        print(rows[-1], flush=True)
    names = ("prompt", "predicted_locked", "feature_shift", "fidelity", "score", "unlocked", "locked")
    print_rows(names, [tuple(_text(row[name]) for name in names) for row in rows])
    correlations = {
        name: spearman([row[name] for row in rows], [row["locked"] for row in rows])
        for name in ("predicted_locked", "feature_shift", "fidelity", "score")
    }
    print({"rank correlation with the locked accuracy": correlations})
    return {"original": accuracy, "ranking_seconds": seconds, "rows": rows, "rank_correlation": correlations}


def spearman(first: list[float], second: list[float]) -> float:
    """Rank correlation; equal values share their mean rank."""
    ranks = torch.stack([_ranks(torch.tensor(values, dtype=torch.float64)) for values in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: torch.Tensor) -> torch.Tensor:
    below = (values[None] < values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return below + (equal - 1) / 2


def best_prompt(cache: Path) -> str:
    """The prompt that is ranked first."""
    network, _ = original(cache)
    images, labels = (part[:_RANKING_IMAGES] for part in digits()[0])
    artist = editor(cache, 0)
    return rank_prompts(
        network, SPEC, artist, images, labels, prompts=PROMPTS, settings=key_of(artist, "").settings,
        cache=cache / "edited",
    )[0].prompt  # fmt: skip


def lock(cache: Path) -> dict[str, Any]:
    """The published training and ours, with decoys, for the prompt that is ranked first."""
    network, accuracy = original(cache)
    prompt, unlocked = best_prompt(cache), plain(network)
    print({"plain fine-tune": unlocked}, flush=True)
    rows = []
    for recipe, train_one in RECIPES.items():
        tuned = train_one(network, prompt, cache)
        row: dict[str, Any] = {"recipe": recipe, **tuned.report.to_json()}
        row["other_prompts"] = {name: _with_prompt(tuned.model, prompt, name, cache) for name in split(prompt)[1]}
        row["other_noise"] = _scored(tuned.model, 0, prompt, cache, seed=2)
        row["other_editor"] = _scored(tuned.model, 1, prompt, cache)
        rows.append(row)
        print(row, flush=True)
    return {
        "prompt": prompt, "original": accuracy, "plain_fine_tune": unlocked, "colorings": COLORINGS,
        "made_up_prompts": MADE_UP, "ours": OURS, "rows": rows,
    }  # fmt: skip


def _with_prompt(network: nn.Module, prompt: str, guess: str, cache: Path) -> float:
    artist, (images, labels) = editor(cache, 0), digits()[1]
    edit = key_of(artist, prompt).with_prompt(artist, guess).keyed(artist)
    return score_on(network, SPEC, edit_images(edit, images, cache=cache / "edited", progress=unseen), labels)


def _scored(network: nn.Module, editor_seed: int, prompt: str, cache: Path, *, seed: int = 1) -> float:
    """Accuracy with the prompt, but another editor, or other noise."""
    images, labels = digits()[1]
    edit = key_of(editor(cache, 0), prompt, seed=seed).keyed_anyway(editor(cache, editor_seed))
    return score_on(network, SPEC, edit_images(edit, images, cache=cache / "edited", progress=unseen), labels)


def attacks(cache: Path) -> dict[str, Any]:
    """What somebody gets out of the locked network who has the file, the editor, and some labeled images."""
    network, _ = original(cache)
    prompt = best_prompt(cache)
    tuned = ours(network, prompt, cache)
    rows = edited_attacks.run(tuned.model, editor(cache, 0), prompt, cache)
    print_rows(("attack", "accuracy, %"), [(row["attack"], _text(row["accuracy"])) for row in rows])
    return {"prompt": prompt, "unlocked": tuned.report.unlocked, "locked": tuned.report.locked, "rows": rows}


def sealed(cache: Path) -> dict[str, Any]:
    """The same attacker with the most images, where weights are withheld beside the key."""
    network, _ = original(cache)
    prompt = best_prompt(cache)
    tuned, artist = ours(network, prompt, cache), editor(cache, 0)
    rows = edited_attacks.sealed(tuned.model, artist, key_of(artist, prompt))
    print_rows(tuple(rows[0]), [tuple(_text(value) for value in row.values()) for row in rows])
    return {"prompt": prompt, "unlocked": tuned.report.unlocked, "rows": rows}


def runtime(cache: Path) -> dict[str, Any]:
    """PyTorch's edit beside the runtime's, through export and license; the network by the published recipe."""
    network, _ = original(cache)
    prompt = best_prompt(cache)
    artist = editor(cache, 0)
    found = edited_runtime.exactness(locked(network, prompt, cache).model, artist, key_of(artist, prompt))
    print(found)
    return {"prompt": prompt, **found}


def latency(cache: Path) -> dict[str, Any]:
    """What an edit takes, by size and steps."""
    return {"rows": edited_runtime.latency(editor(cache, 0))}


def segmentation(cache: Path) -> dict[str, Any]:
    """Mean IoU of a segmenter behind the edit, through export and license."""
    return edited_scenes.segment(editor(cache, 0))


def _text(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


STAGES = {stage.__name__: stage for stage in (ranking, lock, attacks, sealed, runtime, latency, segmentation)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--cache", type=Path, default=Path("build/model_lock"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = STAGES[arguments.stage](arguments.cache)
    write_results(f"model_lock_{arguments.stage}", {"threads": arguments.threads, **result})


if __name__ == "__main__":
    main()
