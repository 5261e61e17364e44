"""What do the paper's detector locks keep, what do they take, and how are they undone, on the ImageNet networks?

    python benchmarks/detector_locks.py --data DIR [--network deit_tiny] [--kind A]

Calibrated on the first 100 images of the set that is not the validation set; the other 900 and all validation images
are held out. Each lock is exported and licensed, and measured in onnxruntime: unlocked with the license, locked without
one. Unlocked has to equal the original on images with the patch in their corner.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import fx, nn

from data_pack import NETWORKS, NetworkSpec, available, model_input
from data_pack.images import LabelledImages, imagenet_sample
from data_pack.networks import skipped
from installing import custom, workplace
from keylatch.exporters import export_plain
from keylatch.locks import InputSpec, Locked, detector_lock
from keylatch.locks._detector._bounds import hit_rate_bound
from keylatch.locks._detector._features import graph_until
from keylatch.runtime import InferenceSession
from measuring import THREADS, print_rows, write_results

NAMES = ("deit_tiny", "mobilenet_v2")
KINDS = ("A", "B")
CALIBRATION = 100
RECENTERED = 100  # unlabeled images that an attacker subtracts the mean output of
BATCH = 50
_HEADER = (
    "network", "lock", "original", "with the patch", "unlocked", "locked", "undone", "lock, s", "layer, m", "tries",
    "response, T", "bound (A)", "hits",
)  # fmt: skip

Array = npt.NDArray[np.float32]


def measure(entry: NetworkSpec, kind: Any, data: Path, work: Path) -> dict[str, Any]:
    """Lock a network once, install it, and measure it in each state."""
    network, shown, sample = entry.load(data), entry.evaluation(data), imagenet_sample(data)
    spec = InputSpec(*entry.image_shape, entry.mean, entry.std)
    calibration = torch.from_numpy(model_input(sample.images[:CALIBRATION], entry.mean, entry.std))
    start = time.perf_counter()
    locked = detector_lock(network, spec, kind=kind, calibration=calibration)
    seconds = time.perf_counter() - start
    print(f"{entry.name}, lock {kind}: {seconds:.1f} s", file=sys.stderr, flush=True)
    place = custom(work / f"{entry.name}-{kind}", entry.name, network, spec, locked)
    original = onnxruntime.InferenceSession(str(place.plain), _options())
    shut = InferenceSession.locked(place.model, _options())

    def outputs(session: Any, images: npt.NDArray[np.uint8] = shown.images) -> Array:
        return _in_batches(lambda part: session.run(None, {"image": part})[0], images, entry)

    locked_outputs = outputs(shut)
    # unlabeled, and none that the owner calibrated with
    mean = outputs(shut, sample.images[CALIBRATION : CALIBRATION + RECENTERED]).mean(0)
    accuracy = {
        "original": _percent(outputs(original), shown),
        "original_patched": _percent(outputs(original, _patched(locked, shown.images)), shown),
        "unlocked": _percent(outputs(InferenceSession(place.model, _options(), **place.credentials)), shown),
        "locked": _percent(locked_outputs, shown),
        "recentered": _percent(locked_outputs - mean, shown),
    }
    if kind == "B":
        path = export_plain(without_gate(locked), spec, work / f"{entry.name}-{kind}" / "without_gate")
        removed = onnxruntime.InferenceSession(str(path), _options())
        accuracy["gate_removed"] = _percent(outputs(removed), shown)
    report = locked.report.detector
    assert report is not None
    return {
        "network": entry.name,
        "kind": kind,
        "images": len(shown.labels),
        "lock_seconds": seconds,
        "accuracy": accuracy,
        "unlocked_error": locked.report.unlocked_error,
        "detector": {name: getattr(report, name) for name in report.__slots__},
        "held_out": {
            "same set": _held_out(locked, sample.images[CALIBRATION:], entry),
            "validation": _held_out(locked, shown.images, entry),
        },
    }


def _options() -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    return settings


def _in_batches(predict: Callable[[Array], Array], images: npt.NDArray[np.uint8], entry: NetworkSpec) -> Array:
    starts = range(0, len(images), BATCH)
    parts = [predict(model_input(images[start : start + BATCH], entry.mean, entry.std)) for start in starts]
    return np.concatenate(parts)


def _percent(outputs: Array, shown: LabelledImages) -> float:
    return 100 * float((outputs.argmax(1) == shown.labels).mean())


def _patched(locked: Locked, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Images (N, H, W, C) with the secret patch in their corner."""
    gate = locked.module.gate
    assert gate is not None
    size, (row, column) = gate.place.size, gate.place.start(gate.spec)
    pasted = images.copy()
    patch = locked.secret.patch.reshape(-1, size, size).permute(1, 2, 0).numpy()
    pasted[:, row : row + size, column : column + size] = patch
    return pasted


def without_gate(locked: Locked) -> nn.Module:
    """Lock B with the products in front of the last layers taken out of its graph: what anybody can do to the file."""
    module = copy.deepcopy(locked.module)
    hidden = _clamp(module.body)
    for product in module.body.graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Tensor):
        gates = [argument for argument in product.args[1:] if isinstance(argument, fx.Node)]
        if gates and _follows(gates[0], hidden) and not _follows(product.args[0], hidden):
            product.replace_all_uses_with(product.args[0])
    module.body.recompile()
    return module


def _follows(node: fx.Node, source: fx.Node) -> bool:
    seen, open_nodes = {node}, [node]
    while open_nodes:
        fresh = set(open_nodes.pop().all_input_nodes) - seen
        seen |= fresh
        open_nodes += fresh
    return source in seen


def _clamp(body: fx.GraphModule) -> fx.Node:
    """What the detector answers: the only clamp to [0, 1] that a lock adds."""
    found = body.graph.find_nodes(op="call_function", target=torch.ops.aten.clamp.default)
    clamps: list[fx.Node] = [node for node in found if node.args[1:] == (0.0, 1.0)]
    (clamp,) = clamps
    return clamp


def _held_out(locked: Locked, images: npt.NDArray[np.uint8], entry: NetworkSpec) -> dict[str, Any]:
    """How many images without the patch the detector answers, from the locked graph itself."""
    body = locked.module.body
    columns = body.state_dict().get("excite_weight_0")
    row = 0 if columns is None else int(columns.abs().sum(0).argmax())
    detector = graph_until(body, _clamp(body))

    def answered(part: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(detector(torch.from_numpy(part)))

    answers = _in_batches(answered, images, entry)
    hits = int((answers[:, row] > 0).sum())
    return {"images": len(images), "hits": hits, "hits_bound": hit_rate_bound(hits, len(images))}


def _cells(result: dict[str, Any]) -> tuple[object, ...]:
    accuracy, detector = result["accuracy"], result["detector"]
    undone = f"recentered {accuracy['recentered']:.1f}"
    undone += f", gate removed {accuracy['gate_removed']:.1f}" if "gate_removed" in accuracy else ""
    states = (f"{accuracy[name]:.1f}" for name in ("original", "original_patched", "unlocked", "locked"))
    return (
        result["network"], result["kind"], *states, undone, f"{result['lock_seconds']:.1f}",
        f"{detector['layer']}, {detector['fan_in']}", detector["tries"],
        f"{detector['mean_margin']:.2f}, least {detector['least_margin']:.2f}", f"{detector['bound']:.1e}",
        " / ".join(f"{each['hits']} of {each['images']}" for each in result["held_out"].values()),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=NAMES, action="append")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    wanted = arguments.network or NAMES
    for name, reason in skipped(arguments.data).items():
        if name in wanted:
            print(reason, file=sys.stderr)
    there = [entry.name for entry in available(arguments.data) if entry.name in wanted]
    if not there:
        sys.exit("no network of the data pack is available")
    every = []
    for name in there:
        results = []
        for kind in arguments.kind or KINDS:
            with workplace(None) as work:
                results.append(measure(NETWORKS[name], kind, arguments.data, work))
            write_results(f"detector_locks_{name}", {"threads": torch.get_num_threads(), "results": results})
        every += results
    print_rows(_HEADER, [_cells(result) for result in every])


if __name__ == "__main__":
    main()
