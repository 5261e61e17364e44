"""`keylatch inspect`: what a locked model or a license says of itself. Needs no key."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from keylatch.cli._options import JsonOption
from keylatch.cli._output import print_facts, print_json
from keylatch.cli.license import show_license

_NEAR_CODES = (1, 2, 4, 8, 16, 32)
_WITHHOLDING = {"seal": "sealed weights", "domains": "domains: without a license the source domain alone"}


def inspect(
    path: Annotated[Path, typer.Argument(help="A locked model's directory, or a license file.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a locked model or a license says of itself, and whether the model's files are intact."""
    if path.is_file():
        show_license(path, [], as_json=as_json)
        return
    facts = model_facts(path)
    print_json(facts) if as_json else print_facts(_lines(facts))


def model_facts(path: Path) -> dict[str, Any]:
    """The public facts of a locked model; every file is verified against the manifest.

    Raises:
        ArtifactError: If the model is not intact.
    """
    from keylatch.runtime import VALUES_NAME, read_model_files

    with read_model_files(path) as files:
        files.finish()
        manifest = files.manifest
    bits = int(manifest.lock.get("code_bits", 0))
    return {
        "path": str(path),
        "model_id": files.model_id,
        "model": dict(manifest.model),
        "lock": dict(manifest.lock),
        "false_positive": {
            "log2": -bits,
            "log2_within_bits": {
                str(wrong): _log2_chance_within(bits, wrong) for wrong in _NEAR_CODES if wrong <= bits // 2
            },
        },
        "gate": [
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} | ({"file": VALUES_NAME} if t.aside else {})
            for t in manifest.gate
        ],
        "files": {name: {"bytes": f.size_bytes, f.algorithm: f.hexdigest} for name, f in manifest.files.items()},
        "sealed_bytes": None if manifest.sealed is None else manifest.sealed.size_bytes,
        "sealed_values_bytes": None if manifest.values is None else manifest.values.size_bytes,
        "intact": True,
    }


def _log2_chance_within(bits: int, wrong: int) -> float:
    return round(math.log2(sum(math.comb(bits, count) for count in range(wrong + 1))) - bits, 2)


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, object]]:
    model, lock = facts["model"], facts["lock"]
    spec = model["input"]
    yield "model", f"{model['name']}, {model['precision']}"
    yield "model_id", facts["model_id"]
    yield "input", f"{spec['name']}: {spec['dtype']} {spec['shape']}, {spec['layout']}"
    yield "outputs", "; ".join(f"{output['name']} {output['shape']}" for output in model["outputs"])
    if lock["method"] == "code":
        yield from _code_lines(lock, facts["false_positive"])
    if lock["method"] == "detector":
        patch = f"{lock['patch']['size']}x{lock['patch']['size']} patch {lock['patch']['corner']}"
        yield "lock", f"detector, lock {lock['kind']}, {patch}"
    if lock["method"] in ("seal", "domains"):
        yield "lock", _WITHHOLDING[lock["method"]]
    if "withheld" in lock:
        weights, layers = sum(math.prod(part["shape"]) for part in lock["withheld"]), len(lock["withheld"])
        yield "withheld weights", f"{weights:,} in {layers} tensors; licenses bring them"
    if "domains" in lock:
        yield "domains", f"{', '.join(lock['domains'])}; licenses name those that are paid for"
    if "edit" in lock:
        edit = lock["edit"]
        yield "edit", f"{edit['editor']}, {edit['settings']['steps']} steps, editor {edit['editor_sha256'][:16]}…"
    if "blocks" in lock:
        size = lock["blocks"]["block_size"]
        yield "blocks", f"{'+'.join(lock['blocks']['steps'])}, {size} x {size} pixels"
    if "channels" in lock:
        yield "permuted maps", "\n".join(f"{each['name']} ({each['channels']} channels)" for each in lock["channels"])
    yield "a license brings", ", ".join(tensor["name"] for tensor in facts["gate"] if "file" not in tensor) or "a key"
    if facts["sealed_bytes"] is not None:
        yield "sealed weights", f"{facts['sealed_bytes']:,} bytes, encrypted; a license brings their key"
    if facts["sealed_values_bytes"] is not None:
        yield "withheld values", f"{facts['sealed_values_bytes']:,} bytes, encrypted; a license brings their key"
    yield "files", "\n".join(f"{name}, {file['bytes']:,} bytes, intact" for name, file in facts["files"].items())


def _code_lines(lock: Mapping[str, Any], chance: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    patch = f"{lock['patch']['size']}x{lock['patch']['size']} patch {lock['patch']['corner']}"
    yield "lock", f"{lock['method']}, {lock['code_bits']} bits, {patch}"
    yield "gated layers", "\n".join(f"{layer['name']} ({layer['channels']} channels)" for layer in lock["layers"])
    if lock.get("sealed"):
        weights = sum(math.prod(shape) for shape in lock["sealed"])
        yield "withheld", f"{weights:,} weights of the first layers, in {len(lock['sealed'])} tensors"
    if "report" in lock:
        report = lock["report"]
        if "gated_parameters" in report:  # locks of earlier releases say nothing of it
            yield "cost", f"none while running; opening goes over {report['gated_parameters']:,} gated weights"
        yield "margin", f"{report['margin']:.3f} of the pixel range"
    yield "false positives", f"2^{chance['log2']} an image, for any images that do not depend on the code"
    near = ", ".join(f"{wrong}: 2^{log2:.0f}" for wrong, log2 in chance["log2_within_bits"].items())
    yield "within t bits", near
