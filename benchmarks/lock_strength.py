"""What do locks withstand? The whole audit on networks with real weights, beside honest baselines.

    python benchmarks/lock_strength.py --data DIR [--network NAME] [--minutes 20]

Each network is locked with the defaults, and with signs alone (nothing withheld), which is how locks were made before
this benchmark showed that it does not hold. The dial withholds more and more of a small network. Locked models and
single measurements stay in --work, so that the benchmark goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data_pack import MissingPackFileError
from keylatch.audit import AuditOptions, Clock, Scene, Survival, keep_freed_memory, load_plain, run_audit
from keylatch.audit.attacks import ATTACKS
from keylatch.audit.report import write_report
from keylatch.audit.survival import measure as measure_change
from keylatch.audit.survival import survival_changes
from measuring import RESULTS, THREADS, print_rows, write_results
from strength.dial import DIAL_ATTACK, DIAL_LABELED, DIAL_SHARES, draw_dial
from strength.lines import Lines
from strength.locking import DEFAULT, SIGNS_ALONE, Locking, locked, plain
from strength.subjects import SUBJECTS, Subject

SIGN_ATTACKS = ("no-key", "sign-recovery", "branch-removal", "fine-tune-all")  # what signs alone fall to
SEEDS = (0, 1)
_SIGNS_SHARE = 0.4  # of the minutes
_DIAL_NETWORK = "resnet20_cifar10"
_HEADER = (
    "network", "lock", "original", "unlocked", "locked", "strongest attack", "recovered", "baseline", "verdict",
)  # fmt: skip


def audit(
    subject: Subject,
    locking: Locking,
    data: Path,
    work: Path,
    *,
    minutes: float,
    labeled: tuple[int, ...] | None = None,
    attacks: Sequence[str] = (),
    seeds: tuple[int, ...] = SEEDS,
) -> dict[str, Any]:
    """Audit a network that was locked in one way; the JSON of the result."""
    print(f"{subject.name}, {locking.name}", file=sys.stderr, flush=True)
    network = subject.network(data, work)
    target, owner = locked(subject, locking, network, work)
    scene = _scene(subject, data, work, network, target, owner)
    start = time.monotonic()
    result = run_audit(
        scene,
        [attack for attack in ATTACKS if not attacks or attack.name in attacks],
        AuditOptions(labeled or subject.labeled, seeds=seeds, minutes=minutes, command=_command()),
        folder=work / f"{subject.name}.{locking.name.replace(' ', '_')}.cells",
        clock=Clock(60 * minutes),
        watch=Lines(),
        survival=None if attacks else Survival(survival_changes(), measure_change),
    )
    print(f"  {result.verdict} after {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return result.to_json()


def _scene(subject: Subject, data: Path, work: Path, network: nn.Module, target: Any, owner: Any) -> Scene:
    original = load_plain(plain(f"{subject.name}.plain", network, subject, work), subject.spec)
    base = None
    if subject.base is not None:
        base = load_plain(plain(f"{subject.name}.base", subject.base(data), subject, work), subject.spec)
    return Scene(target, subject.images(data, original.classes), owner, base, original)


def _command() -> str:
    return " ".join(["python", "benchmarks/lock_strength.py", "--data", "DATA"])


def dial(data: Path, work: Path, minutes: float) -> list[dict[str, Any]]:
    """Recovery by fine-tuning against the share of weights that is withheld."""
    rows = []
    for share in DIAL_SHARES:
        found = audit(
            SUBJECTS[_DIAL_NETWORK], Locking(f"sealed {share:g}", share), data, work,
            minutes=minutes / len(DIAL_SHARES), labeled=DIAL_LABELED, attacks=[DIAL_ATTACK],
        )  # fmt: skip
        best = max(found["attacks"], key=lambda row: float(row["recovered"]))
        keys = ("recovered", "low", "high", "baseline")
        rows.append({"share": share, **{key: best[key] for key in keys}, "original": found["accuracy"]["original"]})
    return rows


def require_known(names: Sequence[str]) -> None:
    """Stop at a name that no attack has."""
    unknown = sorted(set(names) - {attack.name for attack in ATTACKS})
    if unknown:
        sys.exit(f"there is no attack {unknown[0]}")


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    found = entry["audit"]
    counted = [row for row in found["attacks"] if row["counts"]]
    worst = max(counted, key=lambda row: float(row["recovered"]) - float(row["baseline"]))
    accuracy = found["accuracy"]
    return (
        entry["network"], entry["lock"], accuracy["original"], accuracy["unlocked"], accuracy["locked"],
        f"{worst['name']}, {worst['variant'] or worst['given']}",
        f"{worst['recovered']} ({worst['low']} to {worst['high']})",
        f"{worst['baseline']} ({worst['baseline_name']})", found["verdict"],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data pack")
    parser.add_argument("--network", choices=sorted(SUBJECTS), action="append")
    parser.add_argument("--minutes", type=float, default=20.0, help="for each network with the default lock")
    parser.add_argument("--work", type=Path, default=Path("lock-strength"), help="where everything is kept")
    parser.add_argument("--attack", action="append", default=[], help="only this attack on default locks; repeatable")
    parser.add_argument("--seed", type=int, action="append", help="only this draw; repeatable; default: 0 and 1")
    parser.add_argument("--default-lock-only", action="store_true", help="leave signs alone out")
    parser.add_argument("--no-dial", action="store_true", help="leave the sealed shares out")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    require_known(arguments.attack)
    arguments.work.mkdir(exist_ok=True)
    entries: list[dict[str, Any]] = []
    ways = [(DEFAULT, 1.0, tuple(arguments.attack))]
    ways += [] if arguments.default_lock_only else [(SIGNS_ALONE, _SIGNS_SHARE, SIGN_ATTACKS)]
    for name in arguments.network or SUBJECTS:
        for locking, share, attacks in ways:
            minutes = arguments.minutes * share
            try:
                found = audit(
                    SUBJECTS[name], locking, arguments.data, arguments.work,
                    minutes=minutes, attacks=attacks, seeds=tuple(arguments.seed or SEEDS),
                )  # fmt: skip
            except MissingPackFileError as error:
                print(f"{name} is skipped: {error}", file=sys.stderr)
                break
            entries.append({"network": name, "lock": locking.name, "audit": found})
            write_report(found, arguments.work / f"{name}.{locking.name.replace(' ', '_')}.html")
            suffix = "" if locking is DEFAULT else "_signs_alone"
            write_results(f"lock_strength_{name}{suffix}", {"threads": torch.get_num_threads(), **entries[-1]})
    if not entries:
        sys.exit("no network of the data pack is available")
    rows = [] if arguments.no_dial else dial(arguments.data, arguments.work, arguments.minutes)
    print_rows(_HEADER, [_row(entry) for entry in entries])
    if rows:
        write_results("lock_strength_dial", {"threads": THREADS, "network": _DIAL_NETWORK, "rows": rows})
        draw_dial(rows, RESULTS / "lock_strength_dial.png")


if __name__ == "__main__":
    main()
