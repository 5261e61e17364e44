from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import keylatch.keys

FOLDER = Path(keylatch.keys.__file__).parent
HEAVY = {"torch", "onnx", "onnxruntime", "onnxscript", "keylatch.runtime", "keylatch.locks", "keylatch.exporters"}


def test_all_is_sorted_and_complete() -> None:
    names = keylatch.keys.__all__
    assert names == sorted(names)
    public = {name for name in vars(keylatch.keys) if not name.startswith("_")} - {"annotations"}
    assert public == set(names)


def test_importing_keys_brings_no_training_or_inference_stack() -> None:
    code = "import keylatch.keys, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "keylatch.keys" in loaded
    assert HEAVY.isdisjoint(loaded)


@pytest.mark.parametrize("module", sorted(path.stem for path in FOLDER.glob("_[a-z]*.py")))
def test_the_table_of_contents_names_every_module(module: str) -> None:
    assert f"\n    {module} " in (keylatch.keys.__doc__ or "")


def test_every_public_name_is_documented() -> None:
    for name in keylatch.keys.__all__:
        value = getattr(keylatch.keys, name)
        if callable(value) and name != "PassphraseCallback":
            assert value.__doc__, name
