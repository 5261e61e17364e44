"""Imports run one way: errors <- keys <- runtime <- exporters <- audit, and errors <- locks <- exporters."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_world import LockedModel

import keylatch.runtime
from keylatch.keys import write_license

ROOT = Path(__file__).resolve().parents[2]
PORTIONS = [ROOT / name / "keylatch" for name in ("keys", "runtime", "locks", "exporters")]
MAY_IMPORT = {
    "errors": set(),
    "keys": {"errors"},
    "runtime": {"errors", "keys"},
    "locks": {"errors"},
    "exporters": {"errors", "keys", "runtime", "locks"},
    "audit": {"errors", "keys", "runtime", "locks", "exporters"},
    "trace": {"errors", "keys", "runtime", "audit"},
}
HEAVY = {
    "torch",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "transformers",
    "sklearn",
    "matplotlib",
    "PIL",
    "hypothesis",
    "pytest",
}


def modules() -> dict[str, Path]:
    """Dotted name to file, for every module of the source tree."""
    found = {}
    for portion in PORTIONS:
        for path in portion.rglob("*.py"):
            parts = path.relative_to(portion.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, *, everywhere: bool) -> Iterator[str]:
    """Names of the modules that are imported: anywhere, or only when the module itself is."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or _for_types_only(node)
        if everywhere or not lazy:
            yield from imported(node, everywhere=everywhere)


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def package_of(name: str) -> str:
    return name.split(".")[1]


def test_every_package_is_listed() -> None:
    assert {package_of(name) for name in modules()} - {"cli"} == set(MAY_IMPORT)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    for name, path in modules().items():
        if package_of(name) == package:
            names = set(imported(ast.parse(path.read_bytes()), everywhere=True))
            used = {package_of(target) for target in names if target.startswith("keylatch.")}
            assert used <= MAY_IMPORT[package] | {package}, path


def test_the_runtime_imports_nothing_that_locks_or_exports() -> None:
    for name, path in modules().items():
        if package_of(name) in {"errors", "keys", "runtime"}:
            names = imported(ast.parse(path.read_bytes()), everywhere=True)
            assert not {target.split(".")[0] for target in names} & HEAVY, path


def test_the_command_imports_the_rest_lazily() -> None:
    """Followed through everything that `import keylatch.cli` imports."""
    known = modules()
    reached, left = set(), ["keylatch.cli"]
    while left:
        name = left.pop()
        if name not in known:
            name = name.rpartition(".")[0]
        if name in known and name not in reached:
            reached.add(name)
            left.extend(imported(ast.parse(known[name].read_bytes()), everywhere=False))
    assert {package_of(name) for name in reached} <= {"cli", "errors", "keys"}


def test_nothing_but_the_command_imports_the_command() -> None:
    for name, path in modules().items():
        if package_of(name) != "cli":
            names = imported(ast.parse(path.read_bytes()), everywhere=True)
            assert not any(target.startswith("keylatch.cli") for target in names), path


def test_keylatch_is_a_namespace_without_init() -> None:
    for portion in PORTIONS:
        assert portion.is_dir()
        assert not (portion / "__init__.py").exists()
    assert sys.modules["keylatch"].__file__ is None


def test_the_public_names_are_complete_and_in_order() -> None:
    names = keylatch.runtime.__all__
    constants = [name for name in names if name.isupper()]
    classes = [name for name in names if not name.isupper() and name[0].isupper()]
    functions = [name for name in names if name[0].islower()]
    assert names == [*sorted(constants), *sorted(classes), *sorted(functions)]
    tree = ast.parse(Path(keylatch.runtime.__file__).read_bytes())
    brought = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("keylatch.runtime.")
        for alias in node.names
    }
    assert set(names) == brought
    assert all(getattr(keylatch.runtime, name) is not None for name in names)


def test_the_public_names_are_these() -> None:
    """The surface others build on: a change here is a change of the interface."""
    assert keylatch.runtime.__all__ == [
        "FORMAT", "GATE_NAME", "GRAPH_NAME", "KEY_BYTES", "KEY_NAME", "MANIFEST_NAME", "SEALED_NAME", "VALUES_KEY_NAME",
        "VALUES_LABEL", "VALUES_NAME", "WEIGHTS_NAME",
        "Comparison", "FileDigest", "GateTensor", "GraphFacts", "InferenceSession", "Manifest", "ModelFiles",
        "SealedWeights", "choose_pairs", "compare", "known_answer_input", "model_id_of", "new_question", "pack_values",
        "parse_manifest", "read_manifest", "read_model_files", "read_sealed_values", "scan_graph", "seal_weights",
        "values_to_license", "wrong_answers",
    ]  # fmt: skip


def test_the_table_of_contents_names_every_module() -> None:
    folder = Path(keylatch.runtime.__file__).parent
    for path in folder.glob("_[a-z]*.py"):
        assert f"\n    {path.stem} " in str(keylatch.runtime.__doc__), path.name


def python(code: str, **environment: str) -> Any:
    """What a fresh interpreter prints last, as JSON; warnings are errors there too."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout.splitlines()[-1])


LOADED = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


def test_a_fresh_runtime_opens_a_model_without_the_training_stack(made: LockedModel, tmp_path: Path) -> None:
    write_license(tmp_path / "acme.license", made.license())
    made.issuer.public.save(tmp_path / "issuer.pub")
    files = (made.path, tmp_path / "acme.license", made.path.parent / "device.key", tmp_path / "issuer.pub")
    arguments = [str(path) for path in files]
    code = f"""
import numpy as np
from keylatch.runtime import InferenceSession
session = InferenceSession({arguments[0]!r}, license={arguments[1]!r}, key={arguments[2]!r}, trust={arguments[3]!r})
assert session.run(None, {{"image": np.zeros((1, 3, 32, 32), np.float32)}})[0].shape == (1, {made.keyed.shape[1]})
{LOADED}
"""
    loaded = set(python(code))
    assert loaded >= {"keylatch", "onnxruntime", "numpy"}
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        ("keylatch.errors", {"numpy", "cryptography", "onnxruntime", *HEAVY}),
        ("keylatch.keys", {"onnxruntime", *HEAVY}),
        ("keylatch.runtime", HEAVY),
    ],
)
def test_importing_a_package_brings_only_what_it_needs(module: str, foreign: set[str]) -> None:
    assert not set(python(f"import {module}\n{LOADED}")) & foreign


def test_without_onnxruntime_the_extra_is_named() -> None:
    code = """
import json, sys
sys.modules["onnxruntime"] = None
try:
    import keylatch.runtime
except ImportError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    name, text = python(code)
    assert name == "MissingExtraError"
    assert "onnxruntime" in text
    assert "pip install 'keylatch[cpu]'" in text
