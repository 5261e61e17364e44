"""Keep a locked module in a file between locking and exporting: a torch.export program with the lock beside it."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from keylatch.errors import FormatError, LockError, OutputError
from keylatch.locks._block_gate import BlockDescription, block_gate
from keylatch.locks._capture import OutputLayout, as_plain_graph, without_torch_warnings
from keylatch.locks._code_description import CodeLockDescription
from keylatch.locks._detector_lock._description import DetectorLockDescription
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._locked_module import LockedModule
from keylatch.locks._model_lock._edit_gate import EditDescription
from keylatch.locks._report import BlockReport, ChannelReport, DetectorReport, EditReport, LayerReport, LockReport
from keylatch.locks._withheld._parts import Parts
from keylatch.locks._withheld._report import DomainReport, SealReport

_ENTRY = "keylatch.lock.json"
_BATCH = 2
# What torch.export.load raises for a file that is something else, and reading an entry that is not ours.
_UNREADABLE = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile, LockError)


def save_locked(path: str | PathLike[str], module: LockedModule, report: LockReport) -> None:
    """Write a locked module, without its secret, as one .pt2 file.

    Args:
        path: Where it goes; must not exist.
        module: The locked module, float32, as a lock gave it (perhaps fine-tuned).
        report: Its report.

    Raises:
        LockError: The module is opened: its secret would be written.
        OutputError: The file exists or cannot be written.
    """
    module.require_locked("save")
    target = Path(path)
    if target.exists():
        raise OutputError(f"{target} exists already", hint="choose another name")
    if not target.parent.is_dir():
        raise OutputError(f"{target} cannot be written: its folder does not exist", hint="create the folder first")
    device = next(iter(module.gate_tensors().values())).device
    inputs = [torch.zeros((_BATCH, *module.spec.shape), dtype=module.spec.torch_dtype, device=device)]
    if module.description is not None:
        inputs.append(torch.zeros((_BATCH, module.description.channels), device=device))
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), without_torch_warnings():
        program = torch.export.export(
            module.body, tuple(inputs), dynamic_shapes=tuple({0: batch} for _ in inputs), strict=False
        )
    lock = {
        "lock": module.describe(),
        "outputs": {"names": list(module.outputs.names), "kind": module.outputs.kind},
        "report": report.to_json(),
        "withheld": module.withheld.to_json(),
    }
    temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}.pt2"
    try:
        torch.export.save(program, temporary, extra_files={_ENTRY: json.dumps(lock)})
        os.link(temporary, target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}", hint="check the folder") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_locked(path: str | PathLike[str]) -> tuple[LockedModule, LockReport]:
    """Read what `save_locked` wrote.

    Raises:
        FormatError: If it is no such file.
    """
    extra = {_ENTRY: ""}
    try:
        with without_torch_warnings():
            program = torch.export.load(path, extra_files=extra)
        lock = json.loads(extra[_ENTRY])
        facts = lock["lock"]
        spec = InputSpec.from_json(facts["input"])
        description = CodeLockDescription.from_json(facts) if facts["method"] == "code" else None
        detector = DetectorLockDescription.from_json(facts) if facts["method"] == "detector" else None
        described = description or detector
        blocks = block_gate(BlockDescription.from_json(facts["blocks"]), spec, spec) if "blocks" in facts else None
        channels = tuple((layer["name"], int(layer["channels"])) for layer in facts.get("channels", ()))
        edit = EditDescription.from_json(facts["edit"]) if "edit" in facts else None
        outputs = OutputLayout(tuple(lock["outputs"]["names"]), lock["outputs"]["kind"])
        report = _report(lock["report"])
        withheld = Parts.from_json(lock["withheld"]) if lock.get("withheld", {}).get("method") else Parts()
    except FileNotFoundError:
        raise FormatError(f"locked module {path} does not exist", hint="make it with `keylatch lock`") from None
    except _UNREADABLE as error:
        raise FormatError(
            f"{path} is not a locked module: {type(error).__name__}", hint="make it with `keylatch lock`"
        ) from None
    module = LockedModule(
        spec,
        as_plain_graph(program),
        outputs,
        description=description,
        detector=detector,
        gate=None if described is None else described.gate(spec),
        blocks=blocks,
        channels=channels,
        withheld=withheld,
        edit=edit,
    )
    return module, report


def _report(data: dict[str, Any]) -> LockReport:
    apart = {"layers", "blocks", "channels", "detector", "sealed_names", "seal", "domains", "edit"}
    known = set(LockReport.__dataclass_fields__) - apart
    seal, domains = data.get("seal"), data.get("domains")
    fields = {name: value for name, value in data.items() if name in known}
    blocks, channels, detector, edit = (data.get(name) for name in ("blocks", "channels", "detector", "edit"))
    return LockReport(
        layers=tuple(LayerReport(**layer) for layer in data["layers"]),
        blocks=None if blocks is None else BlockReport(**{**blocks, "steps": tuple(blocks["steps"])}),
        channels=None
        if channels is None
        else ChannelReport(tuple(channels["layers"]), tuple(channels["channels"]), channels["log2_key_space"]),
        detector=None if detector is None else DetectorReport(**detector),
        sealed_names=tuple(data.get("sealed_names", ())),
        seal=None if seal is None else SealReport.from_json(seal),
        domains=None if domains is None else DomainReport.from_json(domains),
        edit=None if edit is None else EditReport(**edit),
        **fields,
    )


def load_program(path: str | PathLike[str]) -> torch.export.ExportedProgram:
    """Read a network saved with `torch.export.save`.

    Raises:
        LockError: If it is no exported program.
    """
    try:
        with without_torch_warnings():
            return torch.export.load(path)
    except _UNREADABLE as error:
        raise LockError(
            f"{path} is not a torch.export program: {type(error).__name__}",
            hint="save the network with torch.export.save(program, path)",
        ) from None
