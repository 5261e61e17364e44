from __future__ import annotations

import subprocess
import sys

import torch

import keylatch.locks
import networks
from keylatch.locks import _sample_images, sample_images


def test_the_public_names_are_sorted_and_exist() -> None:
    names = keylatch.locks.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))
    assert all(hasattr(keylatch.locks, name) for name in names)


def test_locking_imports_neither_onnx_nor_the_runtime() -> None:
    code = "import sys, keylatch.locks; print(*sorted(m for m in sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "keylatch.locks" in modules
    wrong = ("onnx", "onnxruntime", "onnxscript", "keylatch.runtime", "keylatch.exporters", "keylatch.keys")
    assert not [module for module in modules if module in wrong]


def test_locking_neither_reads_nor_moves_the_global_generator() -> None:
    network = networks.settle(networks.PaddedConvs)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = networks.lock(network)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(1)
    second = networks.lock(network)
    weights = first.module.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in second.module.state_dict().items())


def test_sample_images_are_the_same_every_time_and_look_like_images() -> None:
    images = sample_images(4, 3, 32, 48)
    torch.manual_seed(0)
    _sample_images._draw.cache_clear()
    assert torch.equal(images, sample_images(4, 3, 32, 48))
    sample_images(4, 3, 32, 48).zero_()  # the caller's own
    assert torch.equal(images, sample_images(4, 3, 32, 48))
    assert images.shape == (4, 3, 32, 48)
    assert images.dtype == torch.uint8
    values = images.float()
    assert all(float(image.std()) > 20 for image in values)
    steps = (values[..., 1:] - values[..., :-1]).abs()
    assert float((steps < 8).float().mean()) > 0.5  # smooth inside of shapes
    assert float((steps > 40).float().mean()) > 0.01  # edges between them
    assert not torch.equal(images[0], images[1])
