"""The benchmarks of speed run from start to end, on a tiny network, and write what the report reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import report

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

SHARED = {
    "network", "provider", "precision", "batch", "mode", "pairs",
    "plain_p50_ms", "plain_p99_ms", "keyed_p50_ms", "keyed_p99_ms", "ratio_p50", "ratio_ci95",
}  # fmt: skip
OWN = {
    "overhead": set(),
    "end_to_end": {"preprocessing_p50_ms"},
    "throughput": {"plain_images_per_second", "keyed_images_per_second", "runs_a_round"},
    "gate_only": {"gate_us", "copy_us"},
    "block_overhead": {"block_size"},
    "open_time": {"megabytes", "license_p50_ms", "peak_rss_mb"},
}
MODES = {
    "overhead": ["run", "io_binding"],
    "end_to_end": ["from uint8"],
    "throughput": ["1 thread", "2 threads", "4 threads", "run_async"],
    "gate_only": ["keyed", "locked"],
    "block_overhead": ["shf", "shf+np", "shf+np+ffx"],
    "open_time": ["open", "open, sealed"],
}


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


def row(**facts: Any) -> dict[str, Any]:
    return {
        "network": "resnet50", "provider": "cpu", "precision": "float32", "batch": 1, "mode": "run", "pairs": 3,
        "plain_p50_ms": 2.0, "plain_p99_ms": 3.0, "keyed_p50_ms": 2.0, "keyed_p99_ms": 3.0,
        "ratio_p50": 1.0, "ratio_ci95": [0.99, 1.02],
    } | facts  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("question", OWN)
def test_benchmark_writes_rows_with_machine_and_command(question: str, results: Path, artifacts: Path) -> None:
    done = run(question, "--quick", "--results", str(results), "--artifacts", str(artifacts))
    assert done.returncode == 0, done.stderr
    written = json.loads((results / f"{question}.json").read_text())
    assert written["command"].startswith(f"python benchmarks/{question}.py")
    assert {"processor", "cores", "versions"} <= written["machine"].keys()
    assert [found["mode"] for found in written["rows"]] == MODES[question]
    for found in written["rows"]:
        assert found.keys() >= SHARED | OWN[question]
    assert ("call" in written) == (question == "overhead")


@pytest.mark.slow
def test_benchmark_on_a_missing_provider_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    done = run("overhead", "--quick", "--provider", "cuda", "--results", str(tmp_path))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("CUDAExecutionProvider ")
    assert list(tmp_path.iterdir()) == []


# The report


def write(folder: Path, question: str, *rows: dict[str, Any]) -> None:
    machine = {"processor": "P", "cores": 2, "system": "Linux", "python": "3", "versions": {"numpy": "2"}}
    data = {"command": f"python benchmarks/{question}.py", "machine": machine, "rows": list(rows)}
    (folder / f"{question}.json").write_text(json.dumps(data))


def test_report_shows_each_row_with_its_bar_and_whether_it_holds(tmp_path: Path) -> None:
    write(tmp_path, "overhead", row(), row(batch=8, ratio_p50=1.05))
    found, notes = report.read_rows(tmp_path)
    report.write_table(found, notes, tmp_path / "performance.md")
    text = (tmp_path / "performance.md").read_text()
    assert "| keyed / plain | resnet50 | batch 1, run | 2.00 (3.00) | 2.00 (3.00) | 1.0000 (0.9900 to 1.0200) |" in text
    assert "| 1.0000 (0.9900 to 1.0200) | 1.01 | holds |" in text
    assert "| 1.0500 (0.9900 to 1.0200) | 1.01 | **misses** |" in text
    assert "- throughput: not measured" in text


def test_report_shows_a_row_that_failed_as_failed(tmp_path: Path) -> None:
    failed = {"network": "vit_b16", "provider": "cuda", "precision": "float16", "batch": 8, "mode": "cuda_graph"}
    write(tmp_path, "overhead_cuda", {**failed, "failed": "Fail: no capture"}, row(provider="cuda"))
    found, _ = report.read_rows(tmp_path)
    assert report.table(found)[0][2:] == ("batch 8, cuda_graph, float16", "", "", "Fail: no capture", "1.01", "failed")
    report.draw(found, tmp_path / "performance.png")
    assert (tmp_path / "performance.png").read_bytes().startswith(b"\x89PNG")


def test_report_leaves_results_of_an_older_version_out_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "open_time.json").write_text(json.dumps({"results": []}))
    found, notes = report.read_rows(tmp_path)
    assert found == {}
    assert "opening: of an older version, not shown" in notes


@pytest.mark.parametrize(
    ("question", "facts", "bar"),
    [
        ("overhead", {"batch": 8}, 1.01),
        ("overhead_cuda", {"provider": "cuda", "mode": "run"}, None),
        ("overhead_cuda", {"provider": "cuda", "mode": "io_binding"}, 1.02),
        ("overhead_cuda", {"provider": "cuda", "mode": "cuda_graph"}, 1.01),
        ("overhead_cuda", {"provider": "cuda", "mode": "run", "batch": 32}, 1.01),
        ("end_to_end", {"network": "mobilenet_v2"}, 0.95),
        ("end_to_end", {}, 1.00),
        ("end_to_end_cuda", {"provider": "cuda", "batch": 32}, 0.8),
        ("end_to_end_cuda", {"provider": "cuda", "batch": 8}, None),
        ("throughput", {}, None),
        ("gate_only", {"mode": "keyed"}, 2.0),
        ("gate_only", {"mode": "locked"}, None),
        ("open_time", {"megabytes": 14.0, "mode": "open"}, None),
        ("open_time", {"megabytes": 103.0, "mode": "open"}, 1.10),
        ("open_time", {"megabytes": 103.0, "mode": "open, sealed"}, 1.25),
    ],
)
def test_bars_are_those_of_the_issue(question: str, facts: dict[str, Any], bar: float | None) -> None:
    assert report.bar_of(question, row(**facts)) == bar
