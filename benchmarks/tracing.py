"""Does a leaked model name the license it came from, and never another?

    python benchmarks/tracing.py --data DIR [--network resnet20_cifar10] [--leaks 100]

A network is locked and exported once with a fingerprint; 1,000 customers are simulated, each with a word of his own.
Leaks of random customers are rounded, quantized by onnxruntime, pruned, fine-tuned, averaged and mixed by three
colluders. Innocent models are the unmarked one and ones with words of other issuers, changed in the same ways.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pack import MissingPackFileError
from keylatch.audit import AuditImages, Owner, Target, load_target
from keylatch.exporters import export
from keylatch.keys import Fingerprint, Marked
from keylatch.locks import code_lock
from keylatch.trace import FALSE_ACCUSATION, Marks, judge, trace_predictions, weight_direction
from measuring import THREADS, print_rows, write_results
from strength.leaks import CHANGES, INNOCENT_CHANGES, MIXES, Tensors, fine_tuned, quantized_file, written_copy
from strength.subjects import SUBJECTS, Subject

CUSTOMERS = 1000
COLLUDERS = 3
INNOCENTS = 10_000
ACCURACIES = 5
PREDICTED = 3  # leaks traced from their predictions
_BATCH = 250  # directions compared with all words at once
_HEADER = ("network", "leak", "leaks", "right ones named", "lowest score", "threshold", "others named")

Row = dict[str, Any]


@dataclass(frozen=True)
class Issued:
    """A marked model and its customers.

    Attributes:
        target: The artifact.
        marks: Its marks, with all customers.
        draws: For whatever is drawn at random.
    """

    target: Target
    marks: Marks
    draws: np.random.Generator

    def culprits(self, count: int) -> list[int]:
        """Some customers, drawn at random."""
        return [int(index) for index in self.draws.choice(len(self.marks.licenses), count, replace=False)]

    def copy_of(self, customer: int) -> Tensors:
        """The gate tensors that a customer's license brings."""
        return self.marks.fingerprint.marked(self.marks.values, self.marks.licenses[customer].mark)

    def weights(self, customer: int) -> Tensors:
        """The marked weights alone, float64."""
        copy = self.copy_of(customer)
        return {name: copy[name].astype(np.float64) for name in self.marks.names}


def issue(subject: Subject, data: Path, work: Path) -> tuple[Issued, dict[str, Any]]:
    """Lock and export a network with a fingerprint, and make up its customers."""
    network = subject.network(data, work)
    start = time.perf_counter()
    made = code_lock(network, subject.spec, patch_size=subject.patch_size)
    exported = export(made.module, made.secret, work / f"{subject.name}.latch", report=made.report, fingerprint=True)
    seconds = time.perf_counter() - start
    target, fingerprint = load_target(exported.path), Fingerprint.from_arrays(exported.secret_values)
    if fingerprint is None:
        raise RuntimeError("the export is not marked")
    values = {name: exported.secret_values[name] for name in target.gate_names}
    ids = [str(uuid.uuid4()) for _ in range(CUSTOMERS)]
    licenses = [Marked(mark=name, customer=f"customer {index}", licenses=(name,)) for index, name in enumerate(ids)]
    marks = Marks(fingerprint, values, licenses)
    weights = sum(values[name].size for name in marks.names)
    facts = {
        "lock_and_export_seconds": seconds,
        "marked_weights": weights,
        "license_bytes": sum(value.nbytes for value in values.values()),
        "extra_license_bytes": 0,
        "step_share_of_spread": _shares(marks),
        "output_change": exported.proof.fingerprint_change,
    }
    return Issued(target, marks, np.random.default_rng(0)), facts


def _shares(marks: Marks) -> dict[str, float]:
    """Steps as shares of their channels' spreads, over all marked channels."""
    pairs = [
        (marks.fingerprint.steps[name], marks.base(name).reshape(len(marks.base(name)), -1)) for name in marks.names
    ]
    steps = np.concatenate([np.broadcast_to(steps, len(channels)) for steps, channels in pairs])
    spreads = np.concatenate([channels.std(1) for _, channels in pairs])
    shares = steps[steps > 0] / spreads[steps > 0]
    return {"least": float(shares.min()), "median": float(np.median(shares)), "largest": float(shares.max())}


def leaks_of(
    issued: Issued, images: AuditImages, leaks: int, slow_leaks: int
) -> Iterator[tuple[str, Iterator[tuple[list[int], Tensors]]]]:
    """By kind: each leak with those it came from."""
    draws = issued.draws
    for kind, change in CHANGES.items():
        yield kind, (([who], change(issued.weights(who), draws)) for who in issued.culprits(leaks))
    for kind, mix in MIXES.items():
        groups = [issued.culprits(COLLUDERS) for _ in range(leaks)]
        yield kind, ((group, mix([issued.weights(who) for who in group], draws)) for group in groups)
    yield "int8, onnxruntime", (([who], _quantized(issued, who)) for who in issued.culprits(slow_leaks))
    pool = images.attacker
    yield (
        f"one epoch on {len(pool)} images",
        (
            ([who], fine_tuned(issued.target, issued.copy_of(who), issued.marks.names, pool, seed))
            for seed, who in enumerate(issued.culprits(slow_leaks))
        ),
    )


def _quantized(issued: Issued, customer: int) -> Tensors:
    with tempfile.TemporaryDirectory() as folder:
        return quantized_file(written_copy(issued.target, issued.copy_of(customer), Path(folder)))


def traced(issued: Issued, leaks: Iterator[tuple[list[int], Tensors]]) -> Row:
    """Trace leaks and count who is named."""
    culprits, directions = [], []
    for group, leak in leaks:
        culprits.append(group)
        directions.append(weight_direction(leak, issued.marks)[0])
    scores = issued.marks.scores(directions)
    right, others, whole, lowest = 0, 0, 0, np.inf
    for group, row in zip(culprits, scores, strict=True):
        named = _named(issued.marks, row)
        right += len(named & set(group))
        whole += named >= set(group)
        others += len(named - set(group))
        lowest = min(lowest, float(row[group].min()))
    count = sum(map(len, culprits))
    threshold = float(np.sqrt(2 * np.log(len(issued.marks.licenses) / FALSE_ACCUSATION)))
    return {
        "leaks": len(culprits), "culprits": count, "named": right, "all_named": whole,
        "lowest_score": lowest, "others_named": others, "threshold": threshold,
    }  # fmt: skip


def _named(marks: Marks, scores: Any) -> set[int]:
    found = judge(marks.licenses, scores[None], source="weights", limit=FALSE_ACCUSATION, evidence=[])
    ids = {suspect.licenses for suspect in found.named}
    return {index for index, marked in enumerate(marks.licenses) if marked.licenses in ids} if ids else set()


def innocents(issued: Issued, count: int) -> Row:
    """Models that came from nobody: false accusations, and the highest score of all."""
    marks, draws, accused, highest = issued.marks, issued.draws, 0, -np.inf
    for start in range(0, count, _BATCH):
        directions = []
        for _ in range(min(_BATCH, count - start)):
            foreign = Fingerprint(secrets.token_bytes(32), marks.fingerprint.steps)
            values = marks.values if draws.random() < 0.1 else foreign.marked(marks.values, "somebody")
            weights = {name: values[name].astype(np.float64) for name in marks.names}
            change = INNOCENT_CHANGES[int(draws.integers(len(INNOCENT_CHANGES)))]
            directions.append(weight_direction(change(weights, draws), marks)[0])
        scores = marks.scores(directions)
        highest = max(highest, float(scores.max()))
        accused += sum(bool(_named(marks, row)) for row in scores)
    return {"models": count, "accused": accused, "highest_score": highest}


def predicted(issued: Issued, images: AuditImages) -> list[Row]:
    """Leaks traced from their outputs, probabilities and labels on the attacker's images."""
    pool = images.attacker.images[:_PREDICTION_IMAGES]
    rows = []
    for who in issued.culprits(PREDICTED):
        with torch.no_grad():
            logits = Owner(dict(issued.copy_of(who)), None).unlocked(issued.target)(pool).double()
        forms = {"scores": logits, "probabilities": logits.softmax(1), "labels": logits.argmax(1)[:, None].double()}
        for form, outputs in forms.items():
            found = trace_predictions(outputs.numpy(), pool.numpy(), issued.target, issued.marks)
            ids = {suspect.licenses for suspect in found.named}
            own = issued.marks.licenses[who].licenses
            rows.append(
                {
                    "form": form, "images": len(pool), "named": own in ids, "others_named": len(ids - {own}),
                    "highest_score": found.suspects[0].score, "threshold": found.threshold,
                }
            )  # fmt: skip
    return rows


_PREDICTION_IMAGES = 200


def accuracies(issued: Issued, images: AuditImages) -> Row:
    """Top-1 of the unmarked model and of some customers' copies, in per cent."""
    evaluation = images.evaluation

    def percent(values: Tensors) -> float:
        network = Owner(dict(values), None).unlocked(issued.target)
        with torch.no_grad():
            labels = torch.cat([network(part).argmax(1) for part in torch.split(evaluation.images, 50)])
        return 100 * float((labels == evaluation.labels).double().mean())

    marked = [percent(issued.copy_of(who)) for who in issued.culprits(ACCURACIES)]
    return {"images": len(evaluation), "unmarked": percent(issued.marks.values), "marked": marked}


def measure(
    subject: Subject, data: Path, work: Path, leaks: int, slow_leaks: int, count: int, save: Callable[[Row], None]
) -> Row:
    """Everything about one network; `save` gets what is known so far after each part, for parts take minutes."""
    issued, facts = issue(subject, data, work)
    images = subject.images(data, 0)
    rows: list[Row] = []
    found: Row = {"network": subject.name, "customers": CUSTOMERS, "limit": FALSE_ACCUSATION, **facts, "leaks": rows}
    start = time.perf_counter()

    def note(part: str) -> None:
        save(found)
        print(f"{subject.name}: {part} after {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    for kind, made in leaks_of(issued, images, leaks, slow_leaks):
        rows.append({"leak": kind, **traced(issued, made)})
        note(kind)
    parts: dict[str, Callable[[], Any]] = {
        "accuracy": lambda: accuracies(issued, images),
        "innocents": lambda: innocents(issued, count),
        "predictions": lambda: predicted(issued, images),  # last, as it takes longest
    }
    for name, part in parts.items():
        found[name] = part()
        note(name)
    return found


def _rows(result: dict[str, Any]) -> Sequence[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (
            result["network"], row["leak"], row["leaks"], f"{row['named']} of {row['culprits']}",
            f"{row['lowest_score']:.1f}", f"{row['threshold']:.1f}", row["others_named"],
        )
        for row in result["leaks"]
    ]  # fmt: skip
    found = result["innocents"]
    rows.append(
        (
            result["network"],
            "innocent",
            found["models"],
            "",
            f"highest {found['highest_score']:.1f}",
            "",
            found["accused"],
        )
    )
    return rows


def _save(found: Row) -> None:
    write_results(f"tracing_{found['network']}", {"threads": torch.get_num_threads(), **found})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=sorted(SUBJECTS), action="append", help="default: resnet20_cifar10")
    parser.add_argument("--leaks", type=int, default=100, help="of each kind that is quickly made")
    parser.add_argument("--slow-leaks", type=int, default=20, help="of each kind that is quantized or trained")
    parser.add_argument("--innocents", type=int, default=INNOCENTS)
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[tuple[object, ...]] = []
    for name in arguments.network or ["resnet20_cifar10"]:
        with tempfile.TemporaryDirectory() as work:
            try:
                result = measure(
                    SUBJECTS[name], arguments.data, Path(work), arguments.leaks, arguments.slow_leaks,
                    arguments.innocents, _save,
                )  # fmt: skip
            except MissingPackFileError as error:
                sys.exit(f"{name}: {error}")
        rows += _rows(result)
    print_rows(_HEADER, rows)


if __name__ == "__main__":
    main()
