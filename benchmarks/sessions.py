"""Plain and keyed sessions on one provider, opened alike, and ways of calling them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort

import config_networks
from installing import Installation
from keylatch.errors import KeylatchError
from keylatch.runtime import InferenceSession
from measuring import THREADS

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# What a session or a capture that does not work raises; onnxruntime's errors have no base of their own.
FAILURES = (KeylatchError, RuntimeError, ort.Fail, ort.InvalidArgument, ort.NotImplemented, ort.RuntimeException)


def settings(parser: argparse.ArgumentParser, batches: Mapping[str, Sequence[int]]) -> argparse.Namespace:
    """Parse the command, with the arguments of whatever runs sessions.

    Args:
        parser: From `pairs.arguments`.
        batches: The usual batch sizes for each provider.
    """
    parser.add_argument("--provider", choices=sorted(PROVIDERS), default="cpu")
    parser.add_argument("--network", choices=sorted(config_networks.ALL_NETWORKS), action="append")
    parser.add_argument("--batch", type=int, action="append")
    found = parser.parse_args()
    found.network = found.network or config_networks.default_names(found.quick)
    found.batch = found.batch or ([1] if found.quick else batches[found.provider])
    return found


def require_provider(provider: str) -> None:
    """Exit with status 1 and one line if a provider is not there or does not start."""
    name = PROVIDERS[provider]
    available = onnxruntime.get_available_providers()
    if name not in available:
        sys.exit(f"{name} is not available, this onnxruntime has {', '.join(available)}; pip install 'keylatch[gpu]'")
    if provider == "cuda":
        onnxruntime.preload_dlls()  # CUDA and cuDNN from their Python packages
    running = onnxruntime.InferenceSession(_nothing(), _quiet(), providers=[name]).get_providers()
    if name not in running:  # plain onnxruntime goes on with the CPU
        sys.exit(f"{name} did not start; it needs a GPU, its driver and the libraries of pip install 'keylatch[gpu]'")


def _nothing() -> bytes:
    from onnx import TensorProto, helper

    node = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "nothing", values[:1], values[1:]), ir_version=10)
    model.opset_import[0].version = 18
    data: bytes = model.SerializeToString()
    return data


def _quiet() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def share_threads() -> None:
    """Give all sessions from here on one pool of threads; they have to be opened by `open_plain` and `open_keyed`."""
    onnxruntime.set_global_thread_pool_sizes(THREADS, 1)


def options() -> Any:
    """Session options for the shared pool."""
    # Two sessions in one process share one pool of threads. With a pool for each, the one that has just worked spins
    # on while the other works, and takes its cores: then even plain beside plain differs by half.
    settings = onnxruntime.SessionOptions()
    settings.use_per_session_threads = False
    return settings


def _providers(provider: str, cuda_graph: bool) -> list[Any]:
    return [(PROVIDERS[provider], {"enable_cuda_graph": "1"} if cuda_graph else {})]


def open_plain(place: Installation, provider: str = "cpu", *, cuda_graph: bool = False) -> Any:
    """The plain network in stock onnxruntime."""
    return onnxruntime.InferenceSession(str(place.plain), options(), providers=_providers(provider, cuda_graph))


def open_keyed(place: Installation, provider: str = "cpu", *, cuda_graph: bool = False) -> Any:
    """The locked network with its license."""
    return InferenceSession(place.model, options(), providers=_providers(provider, cuda_graph), **place.credentials)


def open_locked(place: Installation, provider: str = "cpu") -> Any:
    """The locked network without a license."""
    return InferenceSession.locked(place.model, options(), providers=_providers(provider, cuda_graph=False))


def random_pixels(place: Installation, batch: int) -> Any:
    """(batch, H, W, C) uint8."""
    spec = place.spec
    shape = (batch, spec.height, spec.width, spec.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def random_images(place: Installation, batch: int) -> Any:
    """(batch, *spec.shape) float32 in [0, 1)."""
    return np.random.default_rng(0).random((batch, *place.spec.shape), dtype=np.float32)


def runner(session: Any, images: Any) -> Callable[[], object]:
    """Calls `run`: images come from numpy and outputs go there."""
    return lambda: session.run(None, {"image": images})


def bound_runner(session: Any, images: Any, outputs: Sequence[Any], provider: str) -> Callable[[], object]:
    """Calls `run_with_iobinding`: images and outputs stay where they are, on the provider's device.

    Args:
        session: The session.
        images: Copied to the device once.
        outputs: Arrays like the outputs, for buffers of their shape and dtype.
        provider: ``cpu`` or ``cuda``.
    """
    binding = session.io_binding()
    binding.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(images, provider, 0))
    for node, output in zip(session.get_outputs(), outputs, strict=True):
        buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output.shape, output.dtype, provider, 0)
        binding.bind_ortvalue_output(node.name, buffer)
    return lambda: session.run_with_iobinding(binding)


def require_same(outputs: Sequence[Any], others: Sequence[Any], tolerance: float) -> None:
    """Refuse to time sessions that do not compute the same.

    Raises:
        ValueError: If an output differs by more than `tolerance` of its range.
    """
    for output, other in zip(outputs, others, strict=True):
        difference = float(np.abs(output - other).max()) / max(float(np.ptp(output)), 1e-12)
        if not difference <= tolerance:
            raise ValueError(f"outputs differ by {difference:.1e} of their range, expected at most {tolerance:.0e}")
