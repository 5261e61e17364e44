"""What a deployment server gets: the runtime without the training stack, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING_STACK = {"torch", "onnx", "onnxscript", "onnx-ir", "transformers", "scikit-learn", "matplotlib"}


def test_base_and_cpu_extra_name_no_training_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    names = {requirement.split(">")[0].split("[")[0] for requirement in required}
    assert not names & TRAINING_STACK
    assert "onnxruntime" in names


@pytest.mark.slow
def test_a_clean_install_of_the_cpu_extra_runs_and_has_no_training_stack(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{ROOT}[cpu]"]
    subprocess.run(install, check=True, cwd=tmp_path)
    listed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
    assert "onnxruntime" in listed
    assert not {line.split()[0].lower() for line in listed.splitlines() if line} & TRAINING_STACK
    program = "import keylatch.runtime, sys; assert not {'torch', 'onnx'} & set(sys.modules)"
    subprocess.run([python, "-W", "error", "-c", program], check=True, cwd=tmp_path)
    asked = subprocess.run(
        [python, "-m", "keylatch.cli", "--help"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert asked.returncode == 0, asked.stderr
