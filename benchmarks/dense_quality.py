"""Do detectors and segmenters lock? Average precision and mean intersection over union, original, unlocked, locked.

    python benchmarks/dense_quality.py --data DIR [--stain]

YOLOX-nano and DeepLabV3 of the data pack, with the code lock; 128 and 100 pictures of COCO. Beside the segmenter stands
what anybody gets who answers one class everywhere: chance. `--stain` measures each network with a stain instead, made
without data.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data_pack import MissingPackFileError, deeplab, yolox
from data_pack.coco import LabelledPicture, read_coco
from data_pack.dense_scores import average_precision, mean_iou
from keylatch.locks import InputSpec, Locked, code_lock, stain, verify_stain
from keylatch.locks._capture import capture
from keylatch.locks._detector._features import FeatureReader
from keylatch.locks._detector._sites import find_detector_sites
from keylatch.locks._stain import count_hits
from measuring import THREADS, print_rows, write_results

WRONG_KEYS = 2
_HEADER = (
    "network", "score", "pictures", "original", "unlocked", "locked", "wrong keys", "best constant answer", "lock, s"
)  # fmt: skip
_STAIN_HEADER = (
    "network", "score", "pictures", "original", "stained", "layer, m", "bound (A)", "fires on", "response, T",
    "p-value", "s",
)  # fmt: skip

Score = Callable[[nn.Module, Sequence[LabelledPicture]], float]


@dataclass(frozen=True)
class Dense:
    """A network that is no classifier.

    Attributes:
        name: What it is called in the results.
        measures: What its score is called.
        spec: Its images.
        load: Gives it, from the data folder.
        score: Its score on pictures, in per cent.
        masked: Whether only pictures with masks count.
    """

    name: str
    measures: str
    spec: InputSpec
    load: Callable[[Path], nn.Module]
    score: Score
    masked: bool


def _outputs(network: nn.Module, spec: InputSpec, pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    image = spec.from_pixels(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    with torch.inference_mode():
        outputs: torch.Tensor = network(image)
    return outputs[0]


def _detection(network: nn.Module, pictures: Sequence[LabelledPicture]) -> float:
    found = []
    for picture in pictures:
        pixels, scale = yolox.as_input(picture)
        found.append(yolox.detected(_outputs(network, _YOLOX, pixels), scale))
    return average_precision(found, [picture.boxes for picture in pictures])


def _segmentation(network: nn.Module, pictures: Sequence[LabelledPicture]) -> float:
    found, real = [], []
    for picture in pictures:
        if picture.mask is not None:
            pixels, size = deeplab.as_input(picture)
            found.append(deeplab.segmented(_outputs(network, _DEEPLAB, pixels), size, picture.mask.shape))
            real.append(picture.mask)
    return mean_iou(found, real, deeplab.CLASSES)


_YOLOX = InputSpec(3, yolox.SIDE, yolox.SIDE, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
_DEEPLAB = InputSpec(3, deeplab.SIDE, deeplab.SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NETWORKS = (
    Dense("yolox_nano", "AP50", _YOLOX, yolox.load_yolox, _detection, False),
    Dense("deeplabv3_mnv2", "mIoU", _DEEPLAB, deeplab.load_deeplab, _segmentation, True),
)


def best_constant(pictures: Sequence[LabelledPicture]) -> dict[str, float]:
    """The most frequent class, and its score if it is the answer to every pixel of every picture."""
    masks = [picture.mask for picture in pictures if picture.mask is not None]
    counts = sum(np.bincount(mask[mask < deeplab.CLASSES], minlength=deeplab.CLASSES) for mask in masks)
    best = int(np.argmax(counts))
    score = mean_iou([np.full(mask.shape, best) for mask in masks], masks, deeplab.CLASSES)
    return {"class": best, "score": round(score, 2)}


def measure_stain(dense: Dense, data: Path) -> dict[str, Any]:
    """Stain a network without data, and measure it; how many of the pictures make the stain fire."""
    pictures = [picture for picture in read_coco(data) if picture.mask is not None or not dense.masked]
    network = dense.load(data)
    start = time.perf_counter()
    stained = stain(network, dense.spec)
    seconds = time.perf_counter() - start
    graph, _ = capture(network, dense.spec)
    site = next(site for site in find_detector_sites(graph) if site.name == stained.report.layer)
    reader = FeatureReader(graph, site)
    fires = sum(count_hits(reader, stained.secret, _input(dense, picture))[0] for picture in pictures)
    (facts,) = stained.report.stains
    return {
        "network": dense.name,
        "score": dense.measures,
        "pictures": len(pictures),
        "stain_seconds": seconds,
        "original": round(dense.score(network, pictures), 2),
        "stained": round(dense.score(stained.model, pictures), 2),
        "layer": stained.report.layer,
        "fan_in": stained.report.fan_in,
        "positions": stained.report.positions,
        "bound": facts.bound,
        "fires": fires,
        "margins": dict(facts.margins),
        "output_change": facts.output_change,
        "p_value": verify_stain(stained.model, stained.secret).p_value,
        "p_value_of_the_original": verify_stain(network, stained.secret).p_value,
    }


def _input(dense: Dense, picture: LabelledPicture) -> torch.Tensor:
    pixels, _ = (deeplab if dense.masked else yolox).as_input(picture)
    return dense.spec.from_pixels(torch.from_numpy(pixels).permute(2, 0, 1)[None])


def measure(dense: Dense, data: Path) -> dict[str, Any]:
    """Lock a network and measure it in each state; wrong keys have a random code and all else right."""
    pictures = [picture for picture in read_coco(data) if picture.mask is not None or not dense.masked]
    network = dense.load(data)
    start = time.perf_counter()
    locked = code_lock(network, dense.spec)
    seconds = time.perf_counter() - start

    def percent(module: nn.Module) -> float:
        return round(dense.score(module, pictures), 2)

    def opened(secret: Any) -> float:
        with locked.module.opened(secret):
            return percent(locked.module)

    return {
        "network": dense.name,
        "score": dense.measures,
        "pictures": len(pictures),
        "lock_seconds": seconds,
        "unlocked_error": locked.report.unlocked_error,
        "layers": [layer.name for layer in locked.report.layers],
        "original": percent(network),
        "unlocked": opened(locked.secret),
        "locked": percent(locked.module),
        "wrong_key": [opened(_wrong(locked)) for _ in range(WRONG_KEYS)],
        "best_constant": best_constant(pictures) if dense.masked else None,
    }


def _wrong(locked: Locked) -> Any:
    drawn = np.frombuffer(secrets.token_bytes(len(locked.secret.code)), dtype=np.uint8) % 2 * 2.0 - 1
    return locked.module.secret_with_code(locked.secret, torch.from_numpy(drawn))


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    constant = row["best_constant"]
    return (
        row["network"], row["score"], row["pictures"], row["original"], row["unlocked"], row["locked"],
        " / ".join(map(str, row["wrong_key"])), "" if constant is None else constant["score"],
        f"{row['lock_seconds']:.1f}",
    )  # fmt: skip


def _stain_cells(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["network"], row["score"], row["pictures"], row["original"], row["stained"],
        f"{row['layer']}, {row['fan_in']}", f"{row['bound']:.1e}", row["fires"],
        f"{row['margins']['8-bit pixels']:.2f}", f"{row['p_value']:.0e}", f"{row['stain_seconds']:.0f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=[dense.name for dense in NETWORKS], action="append")
    parser.add_argument("--stain", action="store_true", help="measure a stain, not a lock")
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    chosen = [dense for dense in NETWORKS if not arguments.network or dense.name in arguments.network]
    take, name = (measure_stain, "dense_stains") if arguments.stain else (measure, "dense_quality")
    results = []
    try:
        for dense in chosen:
            results.append(take(dense, arguments.data))
            write_results(f"{name}_{dense.name}", {"threads": torch.get_num_threads(), **results[-1]})
    except MissingPackFileError as error:
        sys.exit(str(error))
    if arguments.stain:
        print_rows(_STAIN_HEADER, [_stain_cells(row) for row in results])
    else:
        print_rows(_HEADER, [_cells(row) for row in results])


if __name__ == "__main__":
    main()
