"""Fuzzes the parsers: `python tests/fuzz/run.py --seconds 60 [--only NAME] [--jobs 2] [--minimize] [--json FILE]`.

Each harness runs as its own process under Atheris, with its committed corpus, for that many seconds. A table says what
each one did. Exits with 1 after a finding, whose input is kept and named: replay it with `--replay NAME FILE`. Exits
with 2 where nothing could be run. New inputs go to a temporary folder; `--minimize` takes those that reach new code
into the committed corpus, which stays small.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz.harnesses import CORPUS, MAX_INPUT_BYTES, load, names

# Of each harness: a corpus that is replayed in every test run has to be small.
MAX_CORPUS_FILES = 100
MAX_CORPUS_BYTES = 64 * 1024
# What a process may take beside the time it fuzzes for, in seconds: imports, replaying the corpus, one slow input.
GRACE_SECONDS = 120
_PACKAGES = ("keylatch", "atheris", "cryptography", "joserfc", "safetensors", "onnx", "numpy")


@dataclass(frozen=True)
class Outcome:
    """What one harness did."""

    harness: str
    executions: int
    seconds: float
    coverage: int
    corpus_files: int
    findings: tuple[str, ...]

    @property
    def per_second(self) -> int:
        return round(self.executions / self.seconds) if self.seconds else 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.replay:
        load(options.replay[0])(Path(options.replay[1]).read_bytes())
        print("no finding")
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing needs atheris, which is not installed\n  hint: pip install 'keylatch[fuzz]'", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="keylatch-fuzz-"))
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(lambda name: _fuzz(name, folder / name, options.seconds), options.only or names()))
    _print_table(outcomes)
    if options.minimize:
        for outcome in outcomes:
            _minimize(outcome.harness, folder / outcome.harness)
    if options.json:
        _write_figures(options.json, outcomes, sys.argv[1:] if arguments is None else arguments)
    if any(outcome.findings for outcome in outcomes):
        return 1
    shutil.rmtree(folder)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzzes Keylatch's parsers.")
    parser.add_argument("--seconds", type=_positive, default=60, help="for each harness")
    parser.add_argument("--only", action="append", choices=names(), metavar="NAME", help="this harness; may repeat")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--minimize", action="store_true", help="take new inputs into the committed corpus")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--replay", nargs=2, metavar=("NAME", "FILE"), help="run one input, without Atheris")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError("expected a whole number from 1 on")
    return int(text)


def _fuzz(name: str, folder: Path, seconds: int) -> Outcome:
    folders = [str(folder / kind) for kind in ("corpus", "seeds", "committed")]
    code, log, elapsed = _run(name, folder, [*folders, f"-max_total_time={seconds}"], seconds + GRACE_SECONDS)
    findings = tuple(str(path) for path in sorted((folder / "findings").glob("*")))
    if code != 0:
        # A process that died without an input to blame is one too: it did not fuzz.
        findings = findings or (str(folder / "log"),)
        print(f"{name}:\n{_explanation(log)}", file=sys.stderr)
    executions = _last(r"stat::number_of_executed_units: (\d+)", log) or _last(r"^#(\d+)", log)
    files = sum(1 for kind in ("corpus", "committed") for _ in (folder / kind).glob("*"))
    spent = float(_last(r"Done \d+ runs in (\d+) second", log) or elapsed)
    outcome = Outcome(name, executions, spent, _last(r"cov: (\d+)", log), files, findings)
    print(f"{name}: {executions} executions in {elapsed:.0f} s, {len(findings)} findings", flush=True)
    return outcome


def _run(name: str, folder: Path, flags: list[str], timeout_seconds: int) -> tuple[int, str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(Path(__file__).with_name("target.py")), name, str(folder), *flags]
    # Sets keep their order from run to run; what a harness writes goes with the folder, as libFuzzer exits hard.
    environment = {**os.environ, "PYTHONHASHSEED": "0", "TMPDIR": str(folder)}
    started = time.monotonic()
    with (folder / "log").open("wb") as log:
        try:
            code = subprocess.run(
                command, stdout=log, stderr=log, timeout=timeout_seconds, env=environment, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    return code, (folder / "log").read_text(errors="replace"), time.monotonic() - started


def _last(pattern: str, log: str) -> int:
    found = re.findall(pattern, log, re.MULTILINE)
    return int(found[-1]) if found else 0


def _explanation(log: str) -> str:
    """The log from the exception on, or its end."""
    start = log.find("=== Uncaught Python exception")
    return log[start if start >= 0 else -2000 :][:6000]


def _minimize(name: str, folder: Path) -> None:
    """Keeps of the committed corpus and the new inputs a small set that reaches the same code."""
    merged = folder / "merged"
    merged.mkdir()
    inputs = [str(folder / kind) for kind in ("committed", "seeds", "corpus")]
    code, log, _ = _run(name, folder, ["-set_cover_merge=1", str(merged), *inputs], 10 * GRACE_SECONDS)
    found = sorted(merged.glob("*"), key=lambda path: (path.stat().st_size, path.name))
    if code != 0 or not found:
        print(f"{name}: the corpus was not minimized\n{log[-1000:]}", file=sys.stderr)
        return
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    for path in (CORPUS / name).glob("*"):
        # What was once found stays, by whatever name says what it was.
        if re.fullmatch("[0-9a-f]{16}", path.name):
            path.unlink()
    left = MAX_CORPUS_BYTES
    for path in found[:MAX_CORPUS_FILES]:
        data = path.read_bytes()
        left -= len(data)
        if left >= 0 and len(data) <= MAX_INPUT_BYTES:
            (CORPUS / name / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def _print_table(outcomes: Sequence[Outcome]) -> None:
    row = "| {:<16} | {:>11} | {:>8} | {:>8} | {:>6} | {:>8} |"
    print("\n" + row.format("harness", "executions", "per sec.", "coverage", "corpus", "findings"))
    print(row.format("---", "--:", "--:", "--:", "--:", "--:"))
    for o in outcomes:
        print(row.format(o.harness, o.executions, o.per_second, o.coverage, o.corpus_files, len(o.findings)))
    total = sum(o.executions for o in outcomes)
    print(row.format("total", total, "", "", "", sum(len(o.findings) for o in outcomes)))
    for outcome in outcomes:
        for finding in outcome.findings:
            print(f"finding: {outcome.harness} {finding}")


def _write_figures(path: Path, outcomes: Sequence[Outcome], arguments: Sequence[str]) -> None:
    figures = {
        "command": " ".join(["python", "tests/fuzz/run.py", *(Path(word).name for word in arguments)]),
        "machine": _machine(),
        "executions": sum(outcome.executions for outcome in outcomes),
        "findings": sum(len(outcome.findings) for outcome in outcomes),
        "results": [
            {**asdict(outcome), "per_second": outcome.per_second, "findings": len(outcome.findings)}
            for outcome in outcomes
        ],
    }
    path.write_text(json.dumps(figures, indent=2) + "\n")


def _machine() -> dict[str, Any]:
    # As the benchmarks tell it; they are no package.
    spec = importlib.util.spec_from_file_location(
        "measuring", Path(__file__).parents[2] / "benchmarks" / "measuring.py"
    )
    assert spec is not None and spec.loader is not None
    measuring = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measuring)
    return {**measuring.machine(), "versions": {name: metadata.version(name) for name in _PACKAGES}}


if __name__ == "__main__":
    sys.exit(main())
