"""The networks that are audited, each with its attacker's images, and how each is locked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from data_pack import NETWORKS, LabelledImages
from data_pack.images import (
    cifar10_test,
    cifar10_train,
    fashion_mnist_test,
    fashion_mnist_train,
    imagenet_sample,
    imagenet_val,
)
from keylatch.audit import AuditImages
from keylatch.audit import LabeledImages as ModelImages
from keylatch.locks import InputSpec
from strength.fashion import as_color, fashion_network


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to lock and attack.

    Attributes:
        name: What it is called in the results.
        spec: Its images.
        network: Gives it, from the data folder and the working folder.
        attacker: Labeled images that attackers draw from.
        evaluation: Images that accuracies are measured on.
        labeled: Numbers of labeled images to attack with.
        patch_size: Side of the lock's patch.
        evaluation_images: How many of those are used.
        base: Gives the public network that it was fine-tuned from, if there is one.
    """

    name: str
    spec: InputSpec
    network: Callable[[Path, Path], nn.Module]
    attacker: Callable[[Path], LabelledImages]
    evaluation: Callable[[Path], LabelledImages]
    labeled: tuple[int, ...]
    patch_size: int
    evaluation_images: int = 1000
    base: Callable[[Path], nn.Module] | None = None

    def images(self, data: Path, classes: int) -> AuditImages:
        """The images as the network takes them."""
        evaluation = self._as_input(self.evaluation(data), self.evaluation_images)
        return AuditImages(self._as_input(self.attacker(data), None), evaluation, classes)

    def _as_input(self, images: LabelledImages, most: int | None) -> ModelImages:
        pixels = torch.from_numpy(images.images[:most].copy()).permute(0, 3, 1, 2)
        return ModelImages(self.spec.from_pixels(pixels).contiguous(), torch.from_numpy(images.labels[:most].copy()))


# An accuracy of 0.1 % is told from one of 5 % by 250 images, and each measurement waits for them.
_IMAGENET_EVALUATION = 250


def _pack_spec(name: str) -> InputSpec:
    entry = NETWORKS[name]
    return InputSpec(*entry.image_shape, entry.mean, entry.std)


def _pack_network(name: str) -> Callable[[Path, Path], nn.Module]:
    return lambda data, _work: NETWORKS[name].load(data)


def _fashion(images: Callable[[Path], LabelledImages]) -> Callable[[Path], LabelledImages]:
    return lambda data: as_color(images(data))


# 500 of CIFAR-10's 50,000 training images are 1 %; 50, 250 and 500 of the 5,000 of Fashion-MNIST are 1, 5 and 10 %.
SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject(
            "mobilenet_v2", _pack_spec("mobilenet_v2"), _pack_network("mobilenet_v2"),
            imagenet_sample, imagenet_val, (1000,), 16, _IMAGENET_EVALUATION,
        ),
        Subject(
            "deit_tiny", _pack_spec("deit_tiny"), _pack_network("deit_tiny"),
            imagenet_sample, imagenet_val, (1000,), 16, _IMAGENET_EVALUATION,
        ),
        Subject(
            "resnet20_cifar10", _pack_spec("resnet20_cifar10"), _pack_network("resnet20_cifar10"),
            cifar10_train, cifar10_test, (100, 500, 1000), 8,
        ),
        Subject(
            "resnet20_fashion_mnist", _pack_spec("resnet20_cifar10"), fashion_network,
            _fashion(fashion_mnist_train), _fashion(fashion_mnist_test), (50, 250, 500), 8,
            base=NETWORKS["resnet20_cifar10"].load,
        ),
    )
}  # fmt: skip
