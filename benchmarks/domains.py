"""Which domains does a network serve when masks withhold weights? Source drop, target drop and ST-D for ordered pairs.

    python benchmarks/domains.py --data DIR [--work domains-work] [--method SA-MAP] [--pair mnist usps] [--attacks]

A narrow VGG-11 on MNIST, USPS and MNIST-M as the data pack has them, scikit-learn's digits as a third domain: MAP with
source and target (SA), with unlabeled target only (SF), with the model only (DF), NTL and CUTI on the same networks and
images. Each SA-MAP network is locked, exported, licensed for its target and run. --attacks runs the audit's attacks on
the first pair. Each finished cell is kept in --work, and a stopped run goes on there. One thread.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from authorization.attacks import attacked_cells
from authorization.cells import BATCH, EPOCHS, IMAGES, METHODS, SOURCE_EPOCHS, SOURCE_IMAGES, Bench
from authorization.digits import PACK_DOMAINS, load_domains
from authorization.licensed import licensed_cell
from measuring import print_rows, write_results

# Mean over the ordered pairs of MNIST, USPS, SVHN and MNIST-M with a VGG-11 (arXiv 2403.04149).
_PUBLISHED = {"SA-MAP": -0.004, "NTL": 0.013, "CUTI": 0.004}
_ROLES = ("source", "target")
_LARGEST_SOURCE_DROP, _LARGEST_ST_D = 1.0, 0.02


def summary(rows: Sequence[dict[str, Any]], method: str) -> dict[str, Any]:
    """Means of a method over its pairs; ST-D as the mean of the pairs' and of the means' ratio."""
    cells = [row for row in rows if row["method"] == method]
    relative = {
        role: _mean([d["relative_drop"] for row in cells for d in row["domains"] if d["role"] == role])
        for role in ("source", "target")
    }
    known = [row["st_d"] for row in cells if row["st_d"] is not None]
    return {
        "method": method,
        "pairs": len(cells),
        "source_drop": _mean([row["source_drop"] for row in cells]),
        "target_drop": _mean([row["target_drop"] for row in cells]),
        "st_d": _mean(known) if known else None,
        "st_d_of_means": relative["source"] / relative["target"] if relative["target"] > 0 else None,
        "published_st_d": _PUBLISHED.get(method),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _print(rows: Sequence[dict[str, Any]], means: Sequence[dict[str, Any]]) -> None:
    table: list[tuple[object, ...]] = []
    for row in rows:
        source, target, *third = row["domains"]
        others = ", ".join(f"{d['name']} {d['original']:.1f} to {d['masked']:.1f}" for d in third)
        accuracies = [f"{d['original']:.1f} to {d['masked']:.1f}" for d in (source, target)]
        pair = f"{row['source']} to {row['target']}"
        table.append((row["method"], pair, *accuracies, _number(row["st_d"], 3), others, f"{row['seconds']:.0f}"))
    print_rows(("method", "source to target", "source, %", "target, %", "ST-D", "third domains, %", "s"), table)
    shown = [
        (m["method"], m["pairs"], *(_number(m[key], 1) for key in ("source_drop", "target_drop")),
         *(_number(m[key], 3) for key in ("st_d", "st_d_of_means", "published_st_d")))
        for m in means
    ]  # fmt: skip
    print()
    print_rows(("method", "pairs", "source drop", "target drop", "ST-D", "ST-D of means", "published"), shown)


def _print_licensed(rows: Sequence[dict[str, Any]]) -> None:
    table: list[tuple[object, ...]] = [
        (
            f"{row['source']} to {row['target']}",
            *(f"{found['source']:.1f} / {found['target']:.1f}" for found in row["accuracy"].values()),
            "yes" if row["equal_target_outputs"] else f"within {row['largest_difference']:.1e}",
            f"{row['license_bytes'] / 1000:.0f}",
        )
        for row in rows
    ]
    print()
    header = ("source to target", "original, %", "no license, %", "license, %", "same outputs", "license, kB")
    print_rows(header, table)


def _print_attacks(rows: Sequence[dict[str, Any]]) -> None:
    table: list[tuple[object, ...]] = [
        (row["attack"], f"{row['images']} of {row['images_of']}", *(f"{row['accuracy'][role]:.1f}" for role in _ROLES))
        for row in rows
    ]
    print()
    print_rows(("attack", "labeled images", "source, %", "target, %"), table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--work", type=Path, default=Path("domains-work"), help="where finished cells are kept")
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--pair", nargs=2, choices=PACK_DOMAINS, action="append", metavar=("SOURCE", "TARGET"))
    parser.add_argument("--attacks", action="store_true", help="also attack the first pair's artifact")
    parser.add_argument("--finished", action="store_true", help="what --work has, nothing new")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(exist_ok=True, parents=True)
    bench = Bench(load_domains(arguments.data), arguments.work)
    methods = arguments.method or METHODS
    pairs = [tuple(pair) for pair in arguments.pair or itertools.permutations(PACK_DOMAINS, 2)]
    cells = [(method, *pair) for method in methods for pair in pairs]
    rows = [bench.cell(*cell) for cell in cells if bench.has(*cell) or not arguments.finished]
    licensed = [licensed_cell(bench, *pair) for pair in pairs] if "SA-MAP" in methods else []
    attacks = attacked_cells(bench, *pairs[0]) if arguments.attacks else []
    means = [summary(rows, method) for method in dict.fromkeys(row["method"] for row in rows)]
    _print(rows, means)
    _print_licensed(licensed)
    _print_attacks(attacks)
    settings = {"threads": 1, "precision": "bfloat16", "batch": BATCH, "images": IMAGES, "epochs": EPOCHS}
    trained = {"source_images": SOURCE_IMAGES, "source_epochs": SOURCE_EPOCHS}
    held = {"largest_source_drop": _LARGEST_SOURCE_DROP, "largest_st_d": _LARGEST_ST_D}
    found = {"means": means, "rows": rows, "licensed": licensed, "attacks": attacks}
    write_results("domains", {**settings, **trained, "held_to": held, **found})


if __name__ == "__main__":
    main()
