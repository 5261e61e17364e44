"""What does bfloat16 cost in accuracy, and does the known answer hold in it? Without a GPU: in two stand-ins for one.

Top-1 of networks of the data pack, locked, exported in bfloat16 and keyed: in onnxruntime with the result of every
operator rounded to bfloat16, and in PyTorch, which computes in bfloat16 on CPUs, slowly, so on fewer images. Beside it
the float32 network. Neither stand-in is the GPU that such an artifact is for.

    python benchmarks/bfloat16.py --data DIR
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from data_pack import NetworkSpec, available, top1
from data_pack.images import LabelledImages
from data_pack.top1 import top1_of
from keylatch.exporters import Exported, export, export_plain
from keylatch.exporters._float32_twin import write_twin
from keylatch.exporters._proof import open_stock
from keylatch.locks import InputSpec, Locked, code_lock
from keylatch.runtime import known_answer_input, wrong_answers
from measuring import THREADS, print_rows, write_results

SMALL_IMAGE = 64
SLOW_IMAGES = 100  # of PyTorch in bfloat16


def measure(entry: NetworkSpec, data: Path, folder: Path, count: int | None) -> dict[str, Any]:
    network, images = entry.load(data), entry.evaluation(data)
    shown = LabelledImages(images.images[:count], images.labels[:count])
    spec = InputSpec(*entry.image_shape, entry.mean, entry.std)
    locked = code_lock(network, spec, patch_size=16 if spec.height >= SMALL_IMAGE else 8)
    start = time.perf_counter()
    exported = export(locked.module, locked.secret, folder / "net.latch", precision="bfloat16")
    seconds = time.perf_counter() - start
    plain = export_plain(network, spec, folder / "plain", precision="bfloat16")
    proof = exported.proof
    return {
        "network": entry.name,
        "images": len(shown.labels),
        "export_seconds": seconds,
        "proof": {"keyed_error": proof.keyed_error, "rounding_error": proof.rounding_error, "ran_on": proof.ran_on},
        "weights_bytes": (exported.path / "model.onnx.data").stat().st_size,
        "parameters": sum(value.numel() for value in network.parameters()),
        "top1": {
            "float32": top1(network, shown.images, shown.labels, entry.mean, entry.std),
            "plain": _rounded(plain.parent, {}, entry, shown),
            "keyed": _rounded(exported.path, _gate_values(exported), entry, shown),
            "locked": _rounded(exported.path, {}, entry, shown),
        },
        "pytorch": _in_pytorch(entry, locked, exported, shown),
    }


def _gate_values(exported: Exported) -> dict[str, Any]:
    return {name: value for name, value in exported.secret_values.items() if not name.startswith("known_answer.")}


def _rounded(folder: Path, values: dict[str, Any], entry: NetworkSpec, images: LabelledImages) -> float:
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        write_twin(folder, Path(place), rounded=True)
        session = open_stock(Path(place), values)
        predict = lambda batch: session.run(None, {"image": batch})[0]  # noqa: E731
        return top1_of(predict, images.images, images.labels, entry.mean, entry.std)


def _in_pytorch(entry: NetworkSpec, locked: Locked, exported: Exported, images: LabelledImages) -> dict[str, Any]:
    """Top-1 of the module cast to bfloat16 on the first images, and wrong orders of the known answer."""
    module, few = copy.deepcopy(locked.module).bfloat16(), slice(SLOW_IMAGES)
    pixels, labels = images.images[few], images.labels[few]
    question = exported.secret_values
    image = torch.from_numpy(known_answer_input(question, locked.module.spec.shape, "float32"))

    def seen(network: torch.nn.Module) -> dict[str, Any]:
        with torch.inference_mode():
            answer = network(image).float().numpy()
        return {
            "top1": top1(network, pixels, labels, entry.mean, entry.std),
            "wrong_pairs": wrong_answers(question, answer),
        }

    found = {"images": len(labels), "pairs": len(question["known_answer.pairs"]), "locked": seen(module)}
    with module.opened(locked.secret):
        return found | {"keyed": seen(module)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", action="append", help="default: all that are there")
    parser.add_argument("--images", type=int, help="default: all")
    settings = parser.parse_args()
    torch.set_num_threads(THREADS)
    results = []
    for entry in available(settings.data):
        if settings.network is None or entry.name in settings.network:
            with tempfile.TemporaryDirectory() as folder:
                results.append(measure(entry, settings.data, Path(folder), settings.images))
    header = ("network", "float32", "plain bf16", "keyed bf16", "locked bf16", "moved by", "known answer, PyTorch")
    print_rows(header, [_shown(result) for result in results])
    write_results("bfloat16", {"networks": results})


def _shown(result: dict[str, Any]) -> tuple[object, ...]:
    answers = result["pytorch"]
    orders = ", ".join(f"{answers[name]['wrong_pairs']} {name}" for name in ("keyed", "locked"))
    accuracies = (f"{result['top1'][name]:.1f}" for name in ("float32", "plain", "keyed", "locked"))
    return (result["network"], *accuracies, f"{result['proof']['rounding_error']:.1e}", orders)


if __name__ == "__main__":
    main()
