"""Well-known networks from their `transformers` configurations, with random weights: for timing, not for accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from keylatch.exporters import Exported, export, export_plain
from keylatch.keys import FileDeviceKey, FileIssuerKey, current_time, issue_license, write_license
from keylatch.locks import IMAGENET_MEAN, IMAGENET_STD, InputSpec, Locked, code_lock
from keylatch.runtime import values_to_license

SPEC = InputSpec(3, 224, 224, IMAGENET_MEAN, IMAGENET_STD)


def _resnet50() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig()
    config.num_labels = 1000
    return ResNetForImageClassification(config)


def _vit_b16() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig()
    config.num_labels = 1000
    return ViTForImageClassification(config)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"resnet50": _resnet50, "vit_b16": _vit_b16}


def build(name: str) -> nn.Module:
    """Build a network, the same weights every time, in evaluation mode."""
    torch.manual_seed(0)
    return NETWORKS[name]().eval()


@dataclass(frozen=True, slots=True)
class Installation:
    """A locked network and its plain twin on disk, with a license for a device key.

    Attributes:
        model: The locked model's directory.
        plain: The plain network's .onnx file.
        credentials: Keyword arguments for `InferenceSession`.
        locked: The locked module, its secret and report.
        exported: The export.
    """

    model: Path
    plain: Path
    credentials: dict[str, Any]
    locked: Locked
    exported: Exported


@contextmanager
def installed(name: str) -> Iterator[Installation]:
    """Lock, export and license a network in a temporary directory."""
    network = build(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        locked = code_lock(network, SPEC)
        exported = export(locked.module, locked.secret, folder / f"{name}.latch", report=locked.report)
        plain = export_plain(network, SPEC, folder / "plain")
        yield Installation(exported.path, plain, _license(folder, exported), locked, exported)


def _license(folder: Path, exported: Exported) -> dict[str, Any]:
    issuer, device = FileIssuerKey.generate(), FileDeviceKey.generate(folder / "device.key")
    issuer.public.save(folder / "issuer.pub")
    now = current_time()
    license = issue_license(
        issuer=issuer,
        devices=[device.public],
        model_id=exported.model_id,
        secret_values=values_to_license(exported.secret_values),
        customer="benchmark",
        not_before=now,
        expires_at=now + 86_400,
    )
    write_license(folder / "model.license", license)
    return {
        "license": folder / "model.license",
        "key": f"file:{folder / 'device.key'}",
        "trust": folder / "issuer.pub",
    }
