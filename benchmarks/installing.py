"""Networks on disk as an owner and a licensee have them: locked and plain, with a license for a device key."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import config_networks
from keylatch.exporters import Precision, export, export_plain
from keylatch.locks import InputSpec, Locked, code_lock
from licensing import credentials_in, license_to_device
from measuring import THREADS


@dataclass(frozen=True, slots=True)
class Form:
    """How a locked network is exported; the attributes are arguments of `export`."""

    precision: Precision = "float32"
    uint8_input: bool = False
    sealed_weights: bool = False

    @property
    def name(self) -> str:
        """For folders."""
        switched = [what for what in ("uint8_input", "sealed_weights") if getattr(self, what)]
        return "-".join([self.precision, *switched])


@dataclass(frozen=True, slots=True)
class Installation:
    """A locked network and its plain twin on disk, with a license for a device key.

    Attributes:
        name: The network's.
        spec: The images of the plain network.
        form: How the locked one was exported.
        model: The locked model's directory.
        plain: The plain network's .onnx file, in the same precision, for normalized float32 images.
        credentials: Keyword arguments for `InferenceSession`.
    """

    name: str
    spec: InputSpec
    form: Form
    model: Path
    plain: Path
    credentials: dict[str, Any]


@contextmanager
def workplace(kept: Path | None) -> Iterator[Path]:
    """The folder for installations: the one to keep, or one that vanishes."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def install(folder: Path, name: str, forms: Sequence[Form] = (Form(),)) -> list[Installation]:
    """Lock, export and license a network in a folder; what is there already is taken as it is.

    Args:
        folder: From `workplace`.
        name: One of `config_networks.ALL_NETWORKS`.
        forms: How to export it.
    """
    torch.set_num_threads(THREADS)
    place, spec = folder / name, config_networks.ALL_NETWORKS[name].spec
    missing = [form for form in forms if not (place / form.name / "complete").exists()]
    if missing:
        network = config_networks.build(name)
        for precision in {form.precision for form in forms}:
            if not (place / f"plain-{precision}").exists():
                export_plain(network, spec, place / f"plain-{precision}", precision=precision)
        locked = code_lock(network, spec)
        del network  # exporting takes some five times a network's size, of which this would be one
        for form in missing:
            shutil.rmtree(place / form.name, ignore_errors=True)  # a run that was stopped left it half made
            install_locked(place / form.name, locked, form)
            (place / form.name / "complete").touch()
    return [_found(place / form.name, name, spec, form, place / f"plain-{form.precision}") for form in forms]


def install_locked(place: Path, locked: Locked, form: Form) -> None:
    """Export a locked network into an empty folder, and license it to a device there."""
    place.mkdir(parents=True)
    exported = export(
        locked.module,
        locked.secret,
        place / "model.latch",
        report=locked.report,
        precision=form.precision,
        uint8_input=form.uint8_input,
        sealed_weights=form.sealed_weights,
    )
    license_to_device(exported, place)


def _found(place: Path, name: str, spec: InputSpec, form: Form, plain: Path) -> Installation:
    return Installation(name, spec, form, place / "model.latch", plain / "model.onnx", credentials_in(place))


def custom(place: Path, name: str, network: nn.Module, spec: InputSpec, locked: Locked) -> Installation:
    """Install a network that is none of `config_networks`, locked already, as float32."""
    form = Form()
    install_locked(place / form.name, locked, form)
    export_plain(network, spec, place / "plain", precision=form.precision)
    return _found(place / form.name, name, spec, form, place / "plain")
