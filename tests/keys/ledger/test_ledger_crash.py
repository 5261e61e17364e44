"""Processes that issue together and are killed at random moments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CRASH_RUN = Path(__file__).with_name("crash_run.py")


def crash_run(folder: Path, *, licenses: int, kills: int, processes: int = 4) -> dict[str, Any]:
    numbers = (str(number) for number in (licenses, processes, kills))
    # One thread: it forks.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(CRASH_RUN), str(folder), *numbers]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return json.loads(done.stdout)


def assert_nothing_is_lost_or_doubled(result: dict[str, Any]) -> None:
    assert result["died_by_themselves"] == 0
    assert result["duplicate_numbers"] == result["numbers_out_of_order"] == 0
    assert result["lost_rows"] == result["files_without_their_row"] == result["claims_that_disagree"] == 0
    assert result["integrity_check"] == "ok" and result["broken_references"] == 0
    assert result["ledger_and_files_agree"] is True
    # A kill leaves at most one license between its steps.
    assert 0 <= result["licenses"] - result["returned"] <= result["kills"]
    assert 0 <= result["returned"] - result["files_before"] <= result["kills"]


def test_killed_processes_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    result = crash_run(tmp_path, licenses=400, kills=12)
    assert result["licenses"] >= 400 and result["kills"] >= 16
    assert_nothing_is_lost_or_doubled(result)


@pytest.mark.slow
def test_ten_thousand_licenses_under_kills(tmp_path: Path) -> None:
    result = crash_run(tmp_path, licenses=10_000, kills=200)
    assert result["licenses"] >= 10_000 and result["kills"] >= 204
    assert_nothing_is_lost_or_doubled(result)
