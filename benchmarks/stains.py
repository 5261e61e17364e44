"""Do stains cost accuracy, fire on other images, and stay? Fifty of them in each ImageNet network of the data pack.

    python benchmarks/stains.py --data DIR

Calibrated on the first 200 images of one set; the rest of it and all validation images are held out.
"""

from __future__ import annotations

import argparse
import io
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pack import NETWORKS, NetworkSpec, available, model_input
from data_pack.images import imagenet_sample
from data_pack.networks import skipped
from keylatch.locks import InputSpec, stain, verify_stain, verify_stain_predictions
from keylatch.locks._capture import capture
from keylatch.locks._detector._bounds import (
    direction_p_value,
    expected_rate,
    hit_rate_bound,
    quoted_rate,
    threshold_for,
)
from keylatch.locks._detector._draw import MAX_TRIES, Detector, draw_detectors, draw_direction
from keylatch.locks._detector._features import FeatureReader, FeatureSpread, batches_of, measure_spread, responses
from keylatch.locks._detector._placing import (
    RANKING_IMAGES,
    SILENCING_IMAGES,
    least_missed_units,
    placements,
    quieter_half,
)
from keylatch.locks._detector._rows import written
from keylatch.locks._detector._silencing import ResumableRun, quiet_units
from keylatch.locks._detector._sites import find_detector_sites, heard_sites
from keylatch.locks._detector._trigger import pixels_to_input
from keylatch.locks._detector._units import POOL, rank_units
from keylatch.locks._detector._useful_sites import useful_sites
from keylatch.locks._randomness import SeededDraws
from keylatch.locks._stain import FALSE_POSITIVE_RATE
from keylatch.locks._stain_making import MadeStain, StainMaker, answer_scale
from measuring import print_rows, write_results

THREADS = 1
NAMES = ("mobilenet_v2", "deit_tiny")
CALIBRATION = 200
QUALITIES = (75, 50)
HELD_TO = 0.1  # points of accuracy that a stain may change
# Where bounds are far from zero: many more directions, which need no trigger to be counted.
LOOSE_RATES = (1e-1, 1e-2, 1e-3)
LOOSE_DIRECTIONS = 2000


class Bench:
    """One network with its images, one layer, and detectors in it."""

    def __init__(self, entry: NetworkSpec, data: Path, layer: str | None) -> None:
        self.entry, self.network = entry, entry.load(data)
        self.spec = InputSpec(*entry.image_shape, entry.mean, entry.std)
        validation, sample = entry.evaluation(data), imagenet_sample(data)
        self.labels = torch.from_numpy(validation.labels)
        self.sets = {
            "calibration": sample.images[:CALIBRATION],
            "held out, same set": sample.images[CALIBRATION:],
            "validation": validation.images,
        }
        self.graph, _ = capture(self.network, self.spec)
        self.graph.requires_grad_(False)
        sites = heard_sites(self.graph, find_detector_sites(self.graph))
        self.draws = SeededDraws(secrets.token_bytes(32), "benchmark")
        self.layers = [layer] if layer else None
        useful = useful_sites(sites, self.layers, FALSE_POSITIVE_RATE, MAX_TRIES)
        self.site = next(placements(self.graph, useful, self.inputs("calibration"), 1, self.draws)).site
        self.reader = FeatureReader(self.graph, self.site)

    def inputs(self, name: str) -> torch.Tensor:
        """One set of images as the network takes them."""
        return torch.from_numpy(model_input(self.sets[name], self.entry.mean, self.entry.std))

    def units(self) -> dict[int, float | None]:
        """The units of which `stain` takes one at random, with how far outputs move without them if that is little."""
        images = self.inputs("calibration")
        ranked = rank_units(self.graph, self.site, images[:RANKING_IMAGES], 1, self.draws).tolist()
        pool = ranked[: max(1, int(POOL * self.site.units))]
        changes = quiet_units(self.graph, self.site, images[:SILENCING_IMAGES], pool)
        if changes:
            return {unit: changes[unit] for unit in quieter_half(changes, 1)}
        return dict.fromkeys(least_missed_units(self.graph, self.site, images, 1, self.draws))


def measure(
    entry: NetworkSpec, data: Path, count: int, tested: int, layer: str | None, save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Everything about one network; `save` gets what is known so far after each part, for parts take minutes."""
    bench = Bench(entry, data, layer)
    site, reader = bench.site, bench.reader
    calibration = bench.inputs("calibration")
    spread = measure_spread(reader, calibration)
    threshold = threshold_for(spread.radii, site.fan_in, FALSE_POSITIVE_RATE, MAX_TRIES)
    start = time.perf_counter()
    detectors = draw_detectors(reader, spread, threshold, bench.spec, bench.draws, count)
    seconds = time.perf_counter() - start
    print(f"{entry.name}: {count} triggers in {seconds:.0f} s", file=sys.stderr, flush=True)
    taken = bench.units()
    units = list(taken)
    scale = answer_scale(bench.graph, site, calibration)
    maker = StainMaker(bench.graph, site, bench.spec, reader, spread, threshold, "replacement", scale)
    # here all of them get their share of the stains
    made = [maker.make(detector, units[place % len(units)]) for place, detector in enumerate(detectors)]
    facts: dict[str, Any] = {
        "network": entry.name,
        "layer": site.name,
        "fan_in": site.fan_in,
        "positions": site.positions,
        "threshold": threshold,
        "largest_radius": spread.largest_radius,
        "units": taken,
        "stains": count,
        "tries": [detector.tries for detector in detectors],
        "trigger_seconds": seconds / count,
        "margins": _margins(detectors),
        "output_change": _spread_of([one.output_change for one in made]),
        "prediction_changed": sum(int(one.mark.expected.argmax()) != int(one.mark.original.argmax()) for one in made),
    }
    phases: dict[str, Callable[[], Any]] = {
        "accuracy": lambda: _accuracies(bench, made[:tested], spread),
        "false_positives": lambda: _false_positives(bench, spread, threshold, detectors),
        "files": lambda: _through_files(bench, spread, threshold, detectors),
        "white_box": lambda: _white_box(bench, made),
        "whole": lambda: _whole(bench, calibration),
    }
    for name, phase in phases.items():
        facts[name] = phase()
        save(facts)
        print(f"{entry.name}: {name} after {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return facts


def _margins(detectors: list[Detector]) -> dict[str, Any]:
    names = detectors[0].trigger.margins
    return {name: _spread_of([detector.trigger.margins[name] for detector in detectors]) for name in names}


def _through_files(
    bench: Bench, spread: FeatureSpread, threshold: float, detectors: list[Detector]
) -> dict[str, dict[str, float]]:
    """Margins after real JPEG files."""
    return {
        f"JPEG {quality}": _spread_of(
            [_margin_of(bench, spread, threshold, detector, quality) for detector in detectors]
        )
        for quality in QUALITIES
    }


def _margin_of(bench: Bench, spread: FeatureSpread, threshold: float, detector: Detector, quality: int) -> float:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(detector.trigger.pixels.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
    pixels = torch.from_numpy(np.asarray(Image.open(buffer)).copy()).permute(2, 0, 1).unsqueeze(0)
    with torch.no_grad():
        features = bench.reader(pixels_to_input(pixels.float() / 255, bench.spec))
    return float(responses(features, spread.center, detector.direction.unsqueeze(0))) / threshold


def _false_positives(
    bench: Bench, spread: FeatureSpread, threshold: float, detectors: list[Detector]
) -> dict[str, Any]:
    """One pass over all images for all detectors, and for many more directions at thresholds with looser bounds."""
    fan_in = bench.site.fan_in
    own = torch.stack([detector.direction for detector in detectors])
    loose = torch.stack([draw_direction(bench.draws, fan_in) for _ in range(LOOSE_DIRECTIONS)])
    loosened = {rate: _threshold_at(spread, fan_in, rate) for rate in LOOSE_RATES}
    found = {}
    for name in bench.sets:
        with torch.no_grad():
            parts = [_answers(bench.reader(part), spread.center, own, loose) for part in batches_of(bench.inputs(name))]
        answers, many, radii = (torch.cat([part[index] for part in parts]) for index in range(3))
        hits = int((answers > threshold).sum())
        found[name] = {
            "images": len(answers),
            "hits": hits,
            "largest_answer": float(answers.max()) / threshold,
            "rate": hits / answers.numel(),
            "bound": quoted_rate(expected_rate(radii, threshold, fan_in), 1),
            "hits_bound": hit_rate_bound(hits, len(answers)),
            "largest_radius": float(radii.max()),
            "loose": {
                str(rate): {
                    "bound_on_calibration": expected_rate(spread.radii, level, fan_in),
                    "bound": expected_rate(radii, level, fan_in),
                    "rate": float((many > level).double().mean()),
                    "beyond_quoted": float(
                        ((many > level).double().mean(0) > quoted_rate(expected_rate(radii, level, fan_in), 1))
                        .double()
                        .mean()
                    ),
                }
                for rate, level in loosened.items()
            },
        }
    return found


def _threshold_at(spread: FeatureSpread, fan_in: int, rate: float) -> float:
    """Where the uncorrected bound (A) is `rate`."""
    low, high = 0.0, spread.largest_radius
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if expected_rate(spread.radii, middle, fan_in) <= rate else (middle, high)
    return high


def _answers(
    features: torch.Tensor, center: torch.Tensor, own: torch.Tensor, loose: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    centered = features - center
    zero = torch.zeros_like(center)
    return responses(centered, zero, own), responses(centered, zero, loose), centered.norm(dim=2)


def _accuracies(bench: Bench, made: list[MadeStain], spread: FeatureSpread) -> dict[str, Any]:
    """Top-1 of each stained network; what lies before the stained layer is computed once."""
    right = torch.zeros(len(made) + 1, dtype=torch.int64)
    changed = torch.zeros(len(made), dtype=torch.int64)
    shown, labels = bench.inputs("validation"), bench.labels
    for part, truth in zip(batches_of(shown), batches_of(labels), strict=True):
        with torch.no_grad():
            run = ResumableRun(bench.graph, bench.site.node.prev, part)
            original = run.outputs[0]
            right[0] += (original.argmax(1) == truth).sum()
            for place, one in enumerate(made, 1):
                with written(bench.graph, bench.site, one.mark.unit, one.row, spread):
                    output = run.again()[0]
                right[place] += (output.argmax(1) == truth).sum()
                changed[place - 1] += (output.argmax(1) != original.argmax(1)).sum()
    percent = (100 * right.double() / len(labels)).tolist()
    return {
        "original": percent[0],
        "networks": len(made),
        "units": len({one.mark.unit for one in made}),
        "stained": _spread_of(percent[1:]),
        "mean": sum(percent[1:]) / len(made),
        "within_a_tenth": sum(abs(each - percent[0]) < HELD_TO + 1e-6 for each in percent[1:]),
        "predictions_changed": _spread_of((100 * changed.double() / len(labels)).tolist()),
    }


def _white_box(bench: Bench, made: list[MadeStain]) -> dict[str, Any]:
    """Cosine of the row and largest p-value of all stains, after what is done to weights."""
    weight = bench.network.get_parameter(bench.site.weight).detach().flatten(1)

    def found(change: Any) -> dict[str, float]:
        cosines, p_values = [], []
        for one in made:
            stained = weight.clone()
            stained[one.mark.unit] = one.row.weights.float()
            rows = torch.nn.functional.normalize(change(stained).double(), dim=1) @ one.mark.direction.double()
            cosines.append(float(rows.max()))
            p_values.append(direction_p_value(float(rows.max()), weight.shape[1], len(weight)))
        return {"smallest_cosine": min(cosines), "largest_p_value": max(p_values)}

    return {
        "as it is": found(lambda rows: rows),
        "fp16": found(lambda rows: rows.half()),
        "int8": found(lambda rows: (rows / rows.abs().max() * 127).round()),
        "30 % pruned": found(lambda rows: rows * (rows.abs() > rows.abs().flatten().quantile(0.3))),
        "70 % pruned": found(lambda rows: rows * (rows.abs() > rows.abs().flatten().quantile(0.7))),
        "no stain": found_without(weight, made),
    }


def found_without(weight: torch.Tensor, made: list[MadeStain]) -> dict[str, float]:
    rows = torch.nn.functional.normalize(weight.double(), dim=1)
    cosines = [float((rows @ one.mark.direction.double()).max()) for one in made]
    p_values = [direction_p_value(cosine, weight.shape[1], len(weight)) for cosine in cosines]
    return {"largest_cosine": max(cosines), "smallest_p_value": min(p_values)}


def _whole(bench: Bench, calibration: torch.Tensor) -> dict[str, Any]:
    """`stain` and both verifications from end to end: four stains, sixteen decoys."""
    start = time.perf_counter()
    one = stain(bench.network, bench.spec, layers=bench.layers, calibration=calibration)
    one_seconds = time.perf_counter() - start
    start = time.perf_counter()
    several = stain(bench.network, bench.spec, count=4, decoys=16, layers=bench.layers, calibration=calibration)
    seconds = time.perf_counter() - start
    verdicts = {}
    for name, suspect in (("stained", several.model), ("original", bench.network)):
        inputs = pixels_to_input(several.secret.probes().float() / 255, bench.spec)
        with torch.no_grad():
            predictions = suspect(inputs).numpy()
        by_predictions = verify_stain_predictions(predictions, several.secret)
        by_classes = verify_stain_predictions(predictions.argmax(1), several.secret)
        verdicts[name] = {
            "weights": verify_stain(suspect, several.secret).p_value,
            "predictions": by_predictions.p_value,
            "likeness": by_predictions.likeness,
            "decoy_likeness": by_predictions.decoy_likeness,
            "classes": by_classes.p_value,
        }
    return {
        "one_stain_seconds": one_seconds,
        "four_stains_sixteen_decoys_seconds": seconds,
        "layers": [one.report.layer, several.report.layer],
        "silenced_change": [one.report.silenced_change, several.report.silenced_change],
        "bound": max(facts.bound for facts in (*one.report.stains, *several.report.stains)),
        "verdicts": verdicts,
    }


def _spread_of(values: list[float]) -> dict[str, float]:
    return {"smallest": min(values), "median": float(np.median(values)), "largest": max(values)}


def _rows(results: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for result in results:
        accuracy, found = result["accuracy"], result["false_positives"]
        rows.append(
            (
                result["network"], f"{result['layer']}, m = {result['fan_in']}", f"{accuracy['original']:.1f}",
                f"{accuracy['stained']['smallest']:.1f} to {accuracy['stained']['largest']:.1f}",
                " / ".join(str(entry["hits"]) for entry in found.values()),
                f"{max(entry['bound'] for entry in found.values()):.1e}",
                f"{max(entry['largest_answer'] for entry in found.values()):.2f}",
                f"{result['margins']['8-bit pixels']['smallest']:.2f}",
                f"{result['files']['JPEG 75']['smallest']:.2f} / {result['files']['JPEG 50']['smallest']:.2f}",
                f"{result['whole']['one_stain_seconds']:.0f}",
            )
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=NAMES, action="append")
    parser.add_argument("--layer", help="the layer to stain; default: as `stain` chooses")
    parser.add_argument("--stains", type=int, default=50)
    parser.add_argument("--tested", type=int, default=50, help="of how many stained networks the accuracy is measured")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    wanted = arguments.network or NAMES
    for name, reason in skipped(arguments.data).items():
        if name in wanted:
            print(reason, file=sys.stderr)
    there = {entry.name for entry in available(arguments.data)}
    name = "stains" if not arguments.network else f"stains_{'_'.join(arguments.network)}"
    results: dict[str, dict[str, Any]] = {}

    def save(facts: dict[str, Any]) -> None:
        results[facts["network"]] = facts
        write_results(name, {"threads": THREADS, "results": list(results.values())})

    for wanted_name in (wanted_name for wanted_name in wanted if wanted_name in there):
        entry = NETWORKS[wanted_name]
        measure(entry, arguments.data, arguments.stains, arguments.tested, arguments.layer, save)
    if not results:
        sys.exit("no network of the data pack is available")
    header = ("network", "layer", "original", "stained", "hits: calibration / same set / validation", "bound (A)",
              "largest answer / T", "trigger / T", "after JPEG 75 / 50", "one stain, s")  # fmt: skip
    print_rows(header, _rows(list(results.values())))


if __name__ == "__main__":
    main()
