"""Networks with withheld weights, exported, and licenses for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from keylatch.exporters import Exported
from keylatch.keys import FileDeviceKey, FileIssuerKey, License, current_time, issue_license
from keylatch.runtime import InferenceSession, values_to_license
from networks import SPEC, pixels, prepare

IMAGES = prepare(pixels(6), SPEC).numpy()
DOMAINS = ("mnist_m", "usps")
CPU = ["CPUExecutionProvider"]


class Mixed(nn.Module):
    """A convolution with a normalization, a grouped one, linear layers on tokens and on vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 32, 4, 4, bias=False), nn.BatchNorm2d(32)
        self.grouped = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.tokens, self.square, self.head = nn.Linear(32, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = self.grouped(torch.relu(self.norm(self.conv(image))))
        tokens = torch.relu(self.square(self.tokens(maps.flatten(2).transpose(1, 2))))
        return self.head(tokens.mean(1))


def random_masks(network: nn.Module, share: float = 0.1) -> dict[str, dict[str, torch.Tensor]]:
    """Masks of all weights with two or more axes for two domains."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: value for name, value in network.named_parameters() if value.dim() > 1}
    return {
        domain: {name: torch.rand(value.shape, generator=generator) < share for name, value in weights.items()}
        for domain in DOMAINS
    }


def stock(path: Path, values: Mapping[str, Any] | None = None, optimized: Path | None = None) -> Any:
    """Stock onnxruntime on one thread, with some initializers overridden."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if values:
        tensors = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in values.values()]
        options.add_external_initializers(list(values), tensors)
    return onnxruntime.InferenceSession(path, options, providers=CPU)


def output(session: Any) -> np.ndarray:
    result: np.ndarray = session.run(None, {"image": IMAGES})[0]
    return result


def license_of(exported: Exported, folder: Path, domains: Collection[str] = (), **changed: Any) -> License:
    """A license, with the keys that go with it in a folder."""
    issuer, device = FileIssuerKey.generate(), FileDeviceKey.generate(folder / "device.key")
    issuer.public.save(folder / "issuer.pub")
    values = {**values_to_license(exported.secret_values, domains), **changed}
    return issue_license(
        issuer=issuer, devices=[device.public], model_id=exported.model_id, customer="acme", secret_values=values,
        not_before=current_time(), expires_at=current_time() + 1000, domains=tuple(domains) or None,
    )  # fmt: skip


def opened(path: Path, license: License, folder: Path) -> InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(
        path, options, CPU, license=license, key=f"file:{folder / 'device.key'}", trust=folder / "issuer.pub"
    )
