"""A network that an owner fine-tuned from a public one: ResNet-20 of CIFAR-10, taught Fashion-MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from data_pack import NETWORKS, LabelledImages, model_input
from data_pack.images import fashion_mnist_train

EPOCHS = 6
_BATCH = 64
_LEARNING_RATE = 1e-3
_MARGIN = 2  # 28 pixels to 32
_STATE = "resnet20_fashion_mnist.pt"


def as_color(images: LabelledImages) -> LabelledImages:
    """28x28 gray images on 32x32 black canvases, three equal channels."""
    padded = np.pad(images.images, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)))
    return LabelledImages(np.repeat(padded, 3, axis=3), images.labels)


def fashion_network(data: Path, work: Path) -> nn.Module:
    """The fine-tuned network in evaluation mode; trained once, then read from the working folder."""
    entry = NETWORKS["resnet20_cifar10"]
    network = entry.load(data)
    state = work / _STATE
    if state.exists():
        network.load_state_dict(torch.load(state, weights_only=True))
        return network.eval()
    images = as_color(fashion_mnist_train(data))
    inputs = torch.from_numpy(model_input(images.images, entry.mean, entry.std))
    _train(network, inputs, torch.from_numpy(images.labels))
    torch.save(network.state_dict(), state)
    return network.eval()


def _train(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    network.train()
    for _ in range(EPOCHS):
        for batch in torch.split(torch.randperm(len(labels)), _BATCH):
            loss = F.cross_entropy(network(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
