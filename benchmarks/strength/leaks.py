"""What leaks of marked models look like after somebody worked on them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
import torch
from torch.nn import functional

from keylatch.audit import LabeledImages, Owner, Target
from keylatch.audit.onnx_network import without_branches
from keylatch.runtime import GRAPH_NAME
from keylatch.trace import read_leak

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Tensors: TypeAlias = Mapping[str, Array]
Change: TypeAlias = Callable[[Tensors, np.random.Generator], Tensors]

PRUNED = 0.3
_RATE, _MOMENTUM, _BATCH = 1e-3, 0.9, 32


def as_it_is(copy: Tensors, draws: np.random.Generator) -> Tensors:
    del draws
    return copy


def in_float16(copy: Tensors, draws: np.random.Generator) -> Tensors:
    del draws
    return {name: value.astype(np.float16).astype(np.float64) for name, value in copy.items()}


def pruned(copy: Tensors, draws: np.random.Generator) -> Tensors:
    """The smallest weights of all set to zero."""
    del draws
    limit = np.quantile(np.abs(np.concatenate([value.reshape(-1) for value in copy.values()])), PRUNED)
    return {name: np.where(np.abs(value) < limit, 0.0, value) for name, value in copy.items()}


def noisy(copy: Tensors, draws: np.random.Generator) -> Tensors:
    """A hundredth to a third of each tensor's spread added as noise."""
    share = 10 ** draws.uniform(-2, -0.5)
    return {name: value + share * value.std() * draws.standard_normal(value.shape) for name, value in copy.items()}


CHANGES: dict[str, Change] = {"as it is": as_it_is, "float16": in_float16, "30 % pruned": pruned}
INNOCENT_CHANGES: tuple[Change, ...] = (as_it_is, in_float16, pruned, noisy)


def averaged(copies: Sequence[Tensors], draws: np.random.Generator) -> Tensors:
    del draws
    return {name: np.mean([copy[name] for copy in copies], axis=0) for name in copies[0]}


def in_the_middle(copies: Sequence[Tensors], draws: np.random.Generator) -> Tensors:
    del draws
    return {name: np.median([copy[name] for copy in copies], axis=0) for name in copies[0]}


def smallest(copies: Sequence[Tensors], draws: np.random.Generator) -> Tensors:
    del draws
    return {name: np.min([copy[name] for copy in copies], axis=0) for name in copies[0]}


def picked(copies: Sequence[Tensors], draws: np.random.Generator) -> Tensors:
    """Each weight from a copy drawn for it."""
    return {
        name: np.choose(draws.integers(0, len(copies), value.shape), [copy[name] for copy in copies])
        for name, value in copies[0].items()
    }


MIXES: dict[str, Callable[[Sequence[Tensors], np.random.Generator], Tensors]] = {
    "averaged by 3": averaged,
    "median of 3": in_the_middle,
    "smallest of 3": smallest,
    "picked from 3": picked,
}


def written_copy(target: Target, values: Tensors, folder: Path) -> Path:
    """The opened model as one ONNX file that any tool runs: what onnxruntime saves once it has folded constants."""
    work = folder / "copied"
    shutil.copytree(target.path, work)
    proto = onnx.load(work / GRAPH_NAME)
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[tensor.name]), tensor.name))
    opened, path = work / "opened.onnx", folder / "leaked.onnx"
    onnx.save(without_branches(proto), opened)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(opened, options, providers=["CPUExecutionProvider"])
    shutil.rmtree(work)
    saved = onnx.load(path)
    del saved.graph.value_info[:]  # of before the optimization, which the quantizer would stumble over
    onnx.save(saved, path)
    return path


def quantized_file(path: Path) -> Tensors:
    """All tensors of a model after onnxruntime's dynamic quantization to signed bytes."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantized = path.with_name("quantized.onnx")
    quantize_dynamic(path, quantized, weight_type=QuantType.QInt8)
    return read_leak(quantized)


def fine_tuned(target: Target, values: Tensors, marked: Sequence[str], images: LabeledImages, seed: int) -> Tensors:
    """All tensors of the opened model after an epoch of training on labeled images, every weight free."""
    network = Owner(dict(values), None).unlocked(target)
    for name in marked:
        network.substitute(name, torch.nn.Parameter(torch.from_numpy(np.array(values[name]))))
    network.requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), _RATE, momentum=_MOMENTUM)
    for batch in torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).split(_BATCH):  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        functional.cross_entropy(network(images.images[batch]), images.labels[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: value.detach().double().numpy() for name, value in network.state_dict().items()}
