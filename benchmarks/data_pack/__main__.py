"""Measure every network of a data folder: ``python -m data_pack DATA`` with ``benchmarks/`` on the Python path."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_pack.networks import NetworkSpec, available, skipped
from data_pack.top1 import top1

__all__ = ["main"]

# Kernels round differently from machine to machine: two images in a thousand may change sides.
TOLERANCE_POINTS = 0.25


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of measured and expected accuracies.

    Returns:
        0 when every network that is in the folder shows its accuracy; 1 when one does not, or none is there.
    """
    parser = argparse.ArgumentParser(prog="python -m data_pack", description="measure the networks of a data folder")
    parser.add_argument("data", type=Path, help="the folder with models/, imagenet/ and cifar10/")
    data = parser.parse_args(arguments).data
    specs = available(data)
    print(f"{'network':<18} {'measured':>8} {'expected':>8}  top-1 in percent")
    agreed = [_print_row(data, spec) for spec in specs]
    for sentence in skipped(data).values():
        print(sentence)
    return 0 if agreed and all(agreed) else 1


def _print_row(data: Path, spec: NetworkSpec) -> bool:
    measured = _measure(data, spec)
    agrees = abs(measured - spec.expected_top1) <= TOLERANCE_POINTS
    print(f"{spec.name:<18} {measured:>8.1f} {spec.expected_top1:>8.1f}{'' if agrees else '  differs'}", flush=True)
    return agrees


def _measure(data: Path, spec: NetworkSpec) -> float:
    images = spec.evaluation(data)
    return top1(spec.load(data), images.images, images.labels, spec.mean, spec.std)


if __name__ == "__main__":
    sys.exit(main())
