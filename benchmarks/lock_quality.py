"""Does the code lock hold on real weights? Four accuracies, near keys and lock time for the networks of the data pack.

    python benchmarks/lock_quality.py --data DIR

Networks whose files are absent are skipped, and it says so.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data_pack import NETWORKS, NetworkSpec, available, top1
from data_pack.networks import skipped
from keylatch.locks import InputSpec, Locked, code_lock
from measuring import RESULTS, THREADS, print_rows, write_results

WRONG_BITS = (1, 2, 4, 8, 64)
DRAWS = 2  # wrong keys of each kind: with ten classes, one wrong key may be several points above or below chance
_SMALL_IMAGE = 64


def measure(entry: NetworkSpec, data: Path, *, calibrated: bool) -> dict[str, Any]:
    network, images = entry.load(data), entry.evaluation(data)
    spec = InputSpec(*entry.image_shape, entry.mean, entry.std)
    patch_size = 16 if spec.height >= _SMALL_IMAGE else 8
    calibration = _calibration(entry, data, spec) if calibrated else None
    start = time.perf_counter()
    locked = code_lock(network, spec, patch_size=patch_size, calibration=calibration)
    seconds = time.perf_counter() - start

    def percent(module: nn.Module) -> float:
        return round(top1(module, images.images, images.labels, entry.mean, entry.std), 2)

    def keyed(wrong_bits: int | None, draw: int = 0) -> float:
        with locked.module.opened(_secret(locked, wrong_bits, draw)):
            return percent(locked.module)

    def wrong(wrong_bits: int | None) -> list[float]:
        return [keyed(wrong_bits, draw) for draw in range(DRAWS)]

    accuracy = {
        "original": percent(network),
        "unlocked": keyed(0),
        "locked": percent(locked.module),
        "wrong_key": wrong(None),
        "random_patch": percent(_RandomPatch(locked.module, locked)),
    }
    return {
        "network": entry.name,
        "centering": sorted({layer.means for layer in locked.report.layers}),
        "classes": len(np.unique(images.labels)) if "cifar" in entry.name else 1000,
        "images": len(images.labels),
        "code_bits": locked.report.code_bits,
        "lock_seconds": seconds,
        "accuracy": accuracy,
        "wrong_bits": {str(bits): wrong(bits) for bits in WRONG_BITS},
        "layers": [layer.name for layer in locked.report.layers],
        "gated_share": locked.report.gated_parameters / locked.report.parameters,
        "unlocked_error": locked.report.unlocked_error,
    }


def _calibration(entry: NetworkSpec, data: Path, spec: InputSpec) -> torch.Tensor:
    pixels = torch.from_numpy(entry.calibration(data)[:100].copy()).permute(0, 3, 1, 2)
    return spec.from_pixels(pixels)


def _secret(locked: Locked, wrong_bits: int | None, draw: int) -> Any:
    """The secret with some code bits wrong; None draws a new code. The channel means stay right: a thief has less."""
    code = locked.secret.code.clone()
    if wrong_bits == 0:
        return locked.secret
    if wrong_bits is None:
        code = torch.from_numpy(np.frombuffer(secrets.token_bytes(len(code)), dtype=np.uint8) % 2 * 2.0 - 1)
    else:
        places = np.random.default_rng((wrong_bits, draw)).choice(len(code), wrong_bits, replace=False)
        code[torch.from_numpy(places)] *= -1
    return locked.module.secret_with_code(locked.secret, code)


class _RandomPatch(nn.Module):
    """A network that sees a random patch in the secret one's place, in every image."""

    def __init__(self, network: nn.Module, locked: Locked) -> None:
        super().__init__()
        gate = locked.module.gate
        if gate is None:
            raise ValueError("a lock without a code has no patch")
        self.network, self.size = network, gate.place.size
        self.row, self.column = gate.place.start(gate.spec)
        pixels = np.frombuffer(secrets.token_bytes(len(locked.secret.patch)), dtype=np.uint8).copy()
        self.value = gate.patch_value(torch.from_numpy(pixels))

    def forward(self, image: torch.Tensor) -> Any:
        pasted = image.clone()
        pasted[:, :, self.row : self.row + self.size, self.column : self.column + self.size] = self.value
        return self.network(pasted)


def _cell(value: float | list[float]) -> str:
    """One figure, or the mean of several with their range."""
    if isinstance(value, list):
        return f"{np.mean(value):.1f} ({min(value):.1f} to {max(value):.1f})"
    return f"{value:.1f}"


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against wrong code bits, one line a network."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    places = range(len(WRONG_BITS) + 2)
    for result in results:
        near = [float(np.mean(result["wrong_bits"][str(bits)])) for bits in WRONG_BITS]
        values = [result["accuracy"]["unlocked"], *near, result["accuracy"]["locked"]]
        axes.plot(places, values, marker="o", label=result["network"])
    axes.set_xticks(list(places), ["0", *(str(bits) for bits in WRONG_BITS), "no key"])
    axes.set(
        xlabel="wrong code bits", ylabel="top-1 accuracy, %", title="Accuracy with a nearly right key", ylim=(0, 100)
    )
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=sorted(NETWORKS), action="append")
    parser.add_argument("--calibrated", action="store_true", help="center with 100 unlabelled images of the pack")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    for reason in skipped(arguments.data).values():
        print(reason, file=sys.stderr)
    entries = [entry for entry in available(arguments.data) if not arguments.network or entry.name in arguments.network]
    if not entries:
        sys.exit("no network of the data pack is available")
    results = [measure(entry, arguments.data, calibrated=arguments.calibrated) for entry in entries]
    columns = ("original", "unlocked", "locked", "wrong_key", "random_patch")
    rows: list[tuple[object, ...]] = [
        (
            result["network"],
            *(_cell(result["accuracy"][column]) for column in columns),
            *(_cell(result["wrong_bits"][str(bits)]) for bits in WRONG_BITS),
            f"{result['lock_seconds']:.1f}",
        )
        for result in results
    ]
    near = tuple(f"{bits} wrong" for bits in WRONG_BITS)
    print_rows(("network", *(column.replace("_", " ") for column in columns), *near, "lock, s"), rows)
    name = "lock_quality_calibrated" if arguments.calibrated else "lock_quality"
    write_results(name, {"threads": THREADS, "results": results})
    draw(results, RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
