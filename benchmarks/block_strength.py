"""What do block transforms withstand? Attacks on networks that were fine-tuned under a key, for each transform and M.

    python benchmarks/block_strength.py --data DIR --work block-training [--method shf+np] [--block-size 4]

The networks are those of `block_training.py`, trained first if they are not in --work. The published key estimation
(arXiv 2103.03525: exchange entries, keep what one batch of 128 images does not like less, ten sweeps) is whole up to
--queries: by default for M = 2, and for np and ffx at M = 4; of others it sees the first so many changes. The gradient
has 1,000 labeled images. What was measured before is read again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data_pack import NETWORKS
from keylatch.audit import (
    Attack,
    AuditImages,
    Case,
    Clock,
    Owner,
    Resources,
    Target,
    Variant,
    keep_freed_memory,
    load_plain,
)
from keylatch.audit.attacks import ATTACKS
from keylatch.audit.attacks.block_key_search import BlockKeySearch
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.locks import Locked, block_lock, code_lock
from measuring import THREADS, print_rows, write_results
from strength.block_networks import EPOCHS, METHODS, PLAIN, Run
from strength.locking import plain, shipped
from strength.subjects import SUBJECTS

_LABELED, _CLASSES, _SEEDS = 1000, 10, (0, 1)
_QUERIES = 1000
_CODE = "code+"
_METHODS = (*(method for method in METHODS if method != PLAIN), f"{_CODE}shf+np")
_NAMES = {
    "no-key",
    "random-key",
    "random-block-key",
    "near-block-key",
    "block-key-search",
    "block-key-gradient",
    "block-feature-matching",
    "known-pair",
}
_HEADER = ("method", "M", "images", "right key", "attack", "given", "recovered", "cost")


def attacked(run: Run, code: bool, attacks: Sequence[Attack], data: Path, work: Path) -> dict[str, Any]:
    """Lock a trained network with its key, and a code if asked, export it, and attack the artifact."""
    network, subject = run.network_trained(data, work), SUBJECTS[run.network]

    def lock() -> Locked:
        if code:
            return code_lock(network, run.spec, patch_size=subject.patch_size, blocks=run.key)
        return block_lock(network, run.spec, run.key)

    name = f"{run.name}.code" if code else run.name
    target, owner = shipped(name, lock, work)
    images = subject.images(data, _CLASSES)
    resources = Resources(len(images.attacker), len(images.attacker), (_LABELED,), _CLASSES, base=True, owner=True)
    base = load_plain(plain(f"{run.network}.base", NETWORKS[run.network].load(data), subject, work), run.spec).network
    method = _CODE + run.method if code else run.method
    row = {
        "network": run.network,
        "method": method,
        "block_size": run.block_size,
        "images": run.images,
        "hints": run.hints,
    }
    opened = _percent(owner.unlocked(target), images)
    found = [
        _measured(attack, variant, target, owner, base, images, work / f"{name}.{attack.name}.{number}.json")
        for attack in attacks
        for number, variant in enumerate(attack.variants(target, resources))
    ]
    return {**row, "right_key": opened, "attacks": found}


def _measured(
    attack: Attack,
    variant: Variant,
    target: Target,
    owner: Owner,
    base: OnnxNetwork,
    images: AuditImages,
    kept: Path,
) -> dict[str, Any]:
    settings = dict(variant.settings)
    if kept.exists():
        earlier: dict[str, Any] = json.loads(kept.read_text())
        if (earlier["settings"], earlier["model_id"]) == (settings, target.model_id):
            return earlier
    print(f"  {target.name}: {attack.name}, {variant.given}", file=sys.stderr, flush=True)
    outcomes = [attack.run(_case(variant, target, owner, base, images, seed)) for seed in _SEEDS]
    row = {
        "name": attack.name,
        "given": str(variant.given),
        "settings": settings,
        "model_id": target.model_id,
        "recovered": [_percent(outcome.predict, images) for outcome in outcomes],
        "cost": [dict(outcome.cost) for outcome in outcomes],
        "notes": [outcome.note for outcome in outcomes],
    }
    kept.write_text(json.dumps(row))
    return row


def _case(variant: Variant, target: Target, owner: Owner, base: OnnxNetwork, images: AuditImages, seed: int) -> Case:
    given, pool = variant.given, images.attacker
    shuffled = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
    chosen = shuffled[: max(given.labeled, given.unlabeled, given.pairs)]
    return Case(
        target, variant, pool.images[chosen], pool.labels[chosen][: given.labeled], _CLASSES,
        torch.Generator().manual_seed(seed), Clock(), base if given.base else None,
        owner if given.key or given.pairs else None,
    )  # fmt: skip


def _percent(predict: Any, images: AuditImages) -> float:
    shown, labels = images.evaluation.images, images.evaluation.labels
    with torch.no_grad():
        classes = torch.cat([predict(part).argmax(1) for part in torch.split(shown, 100)])
    return round(100 * float((classes == labels).double().mean()), 2)


def chosen_attacks(names: Collection[str], queries: int) -> Iterator[Attack]:
    """Those of these names, the published search as long as asked."""
    for attack in ATTACKS:
        if attack.name in names:
            yield replace(attack, queries=queries) if isinstance(attack, BlockKeySearch) else attack


def _rows(entry: dict[str, Any]) -> list[tuple[object, ...]]:
    head = (entry["method"], entry["block_size"], entry["images"], entry["right_key"])
    return [
        (
            *head,
            row["name"],
            row["given"],
            " / ".join(f"{percent:.1f}" for percent in row["recovered"]),
            " / ".join(", ".join(f"{value} {unit}" for unit, value in cost.items()) for cost in row["cost"]),
        )
        for row in entry["attacks"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=("resnet20_cifar10",), default="resnet20_cifar10")
    parser.add_argument("--method", choices=_METHODS, action="append")
    parser.add_argument("--block-size", type=int, choices=(2, 4, 8, 16), action="append")
    parser.add_argument("--images", type=int, choices=sorted(EPOCHS), default=10_000, help="of the training")
    parser.add_argument("--hints", action="store_true", help="networks that learned their own feature maps too")
    parser.add_argument("--attack", choices=sorted(_NAMES), action="append")
    parser.add_argument("--queries", type=int, default=_QUERIES, help="of the published search, at most")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--work", type=Path, default=Path("block-training"), help="where everything is kept")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    arguments.work.mkdir(exist_ok=True)
    attacks = list(chosen_attacks(arguments.attack or _NAMES, arguments.queries))
    entries, sizes = [], arguments.block_size or [4]
    for size in sizes:
        for method in arguments.method or _METHODS:
            if (method, size) != ("np", 2):  # 9.9 bits: refused
                run = Run(arguments.network, method.removeprefix(_CODE), size, arguments.images, arguments.hints)
                code = method.startswith(_CODE)
                entries.append(attacked(run, code, attacks, arguments.data, arguments.work))
    print_rows(_HEADER, [row for entry in entries for row in _rows(entry)])
    name = f"block_strength_{'_'.join(map(str, sizes))}{'_hints' if arguments.hints else ''}"
    write_results(name, {"threads": arguments.threads, "rows": entries})


if __name__ == "__main__":
    main()
