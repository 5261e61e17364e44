"""What an audit works on: the locked model, images, and what else its owner brings. Everything is checked here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from keylatch.audit._images import AuditImages
from keylatch.audit._owner import Owner
from keylatch.audit._target import Target
from keylatch.audit.onnx_network import OnnxNetwork, load_onnx_network
from keylatch.errors import InputError
from keylatch.locks import InputSpec
from keylatch.runtime import GRAPH_NAME, read_model_files

_MASK, _PERMUTATION = "gate.mask", "blocks.permutation"
_PROBES = 2


@dataclass(frozen=True, slots=True)
class PlainNetwork:
    """An unlocked network beside the locked one: its original, or the public base that it came from.

    Attributes:
        network: Takes the locked model's images.
        classes: Number of its own classes.
        sha256: Digest of its graph and weights, hex; part of the cache's key.
    """

    network: OnnxNetwork
    classes: int
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What an audit works on.

    Attributes:
        target: The locked model.
        images: What attackers draw from, and what accuracies are measured on.
        owner: The owner's secrets, if they are there.
        base: The public network that the model was fine-tuned from, if there is one.
        original: The model before it was locked, if it is there.
    """

    target: Target
    images: AuditImages
    owner: Owner | None = None
    base: PlainNetwork | None = None
    original: PlainNetwork | None = None


def count_classes(network: OnnxNetwork, spec: InputSpec, name: str) -> int:
    """Find out how many classes a network tells apart.

    Args:
        network: The network.
        spec: The images it is to take.
        name: What errors call it.

    Raises:
        InputError: It does not take such images, or its first output is not (batch, classes).
    """
    probe = torch.zeros(_PROBES, *spec.shape, dtype=spec.torch_dtype)
    try:
        with torch.no_grad():
            shape = tuple(network(probe).shape)
    except RuntimeError:  # PyTorch's word for shapes and dtypes that do not fit
        raise InputError(
            f"{name} does not take {spec.dtype} images of shape {spec.shape}",
            hint="give a network that takes the same images as the locked model",
        ) from None
    if len(shape) != 2 or shape[0] != _PROBES or shape[1] < 2:
        raise InputError(
            f"{name} gives an output of shape {shape} for {_PROBES} images, expected ({_PROBES}, classes)",
            hint="audits measure classifiers: the first output holds one score for each class",
        )
    return int(shape[1])


def require_locked(target: Target) -> int:
    """Check that a model is intact and locked, and a classifier; gives the number of its classes.

    Raises:
        InputError: Its gate.bin holds opened values, or it is no classifier.
        ArtifactError: A file is not the one of the manifest.
    """
    network = target.network()
    if _is_open(network, target):
        raise InputError(
            f"{target.path} is not locked: its gate.bin holds opened values",
            hint="audit the artifact as `keylatch export` wrote it, which is what you ship",
        )
    # Results are cached under the model_id, which says something only about files that are the manifest's.
    with read_model_files(target.path) as files:
        files.finish()
    return count_classes(network, target.spec, str(target.path))


def _is_open(network: OnnxNetwork, target: Target) -> bool:
    """Whether the file's gate tensors hold a patch or a key."""
    if _MASK in target.gate_names and bool(network.initializer(_MASK).any()):
        return True
    if _PERMUTATION not in target.gate_names:
        return False
    permutation = network.initializer(_PERMUTATION)
    return not torch.equal(permutation, torch.arange(len(permutation)))


def load_plain(path: Path, spec: InputSpec) -> PlainNetwork:
    """Load an unlocked network.

    Args:
        path: An ONNX file, or a directory with a model.onnx.
        spec: The images it is to take.

    Raises:
        ArtifactError: There is none.
        InputError: It does not take such images, or is no classifier.
    """
    file = path / GRAPH_NAME if path.is_dir() else path
    network = load_onnx_network(file)
    digest = hashlib.sha256(file.read_bytes())
    for name, tensor in network.state_dict().items():  # weights may lie in other files
        digest.update(name.encode() + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return PlainNetwork(network, count_classes(network, spec, str(path)), digest.hexdigest())
