"""Images for training under a key: read, checked, a share of every class drawn, and on their way into a network.

The way is augment -> transform -> normalize -> network. The key works on pixels, so augmentation and normalization
that a loader already did would come at the wrong place: they are arguments of the training instead.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from keylatch.errors import LockError
from keylatch.locks._block_transform import BlockTransform
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._randomness import SEED_BYTES, SeededDraws

IGNORED = 255  # the class of pixels that count neither in training nor in accuracy, as in Pascal VOC


@dataclass(frozen=True, slots=True, eq=False)
class Originals:
    """The plain images of a set whose images were changed beforehand: hints come from these.

    Attributes:
        images: (P, C, H, W), of the set's dtype.
        places: (N,) int64, for each image of the set where its plain one is; -1 for an image that gets no hint.
    """

    images: torch.Tensor
    places: torch.Tensor

    def of(self, chosen: torch.Tensor, shown: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The plain images of some, (n, C, H, W), and (n,) bool: which have one. The others stand for themselves.

        Args:
            chosen: (n,) int64, places in the set.
            shown: (n, C, H, W), the set's images there.
        """
        places = self.places[chosen]
        hinted = (places >= 0).to(shown.device)
        plain = shown.clone()
        plain[hinted] = self.images[places[places >= 0]].to(shown)
        return plain, hinted


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images in memory, in an order that does not depend on the loader's.

    Attributes:
        images: (N, C, H, W) uint8, or float32 in [0, 1].
        labels: (N,) int64; (N, H, W) for segmentation, `IGNORED` where a pixel has no class.
        digest: SHA-256 of images and labels, and of the originals if there are any.
        originals: Where hints come from; None for the images themselves.
    """

    images: torch.Tensor
    labels: torch.Tensor
    digest: bytes
    originals: Originals | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, kept: torch.Tensor) -> ImageSet:
        """Some of them, (n,) int64, under the same digest."""
        first = self.originals
        rest = None if first is None else Originals(first.images, first.places[kept])
        return ImageSet(self.images[kept], self.labels[kept], self.digest, rest)

    @property
    def is_dense(self) -> bool:
        """Whether every pixel has a class of its own."""
        return self.labels.dim() > 1


def read_images(batches: Iterable[object] | ImageSet, spec: InputSpec, *, name: str) -> ImageSet:
    """Read a loader to its end, once.

    Args:
        batches: Pairs of images (N, C, H, W), uint8 or float in [0, 1], and labels (N,) int64; what was read already
            is given back.
        spec: Size of the images.
        name: Names the loader in errors.

    Raises:
        LockError: If a batch is none, or of another size, or there is no image.
    """
    if isinstance(batches, ImageSet):
        return batches
    pairs = [_checked(batch, spec, name) for batch in batches]
    if not any(len(labels) for _, labels in pairs):
        raise LockError(
            f"the {name} loader gave no images, expected some",
            hint="check the data set's folder; a generator can be read only once: give a list or a DataLoader",
        )
    if len({images.dtype for images, _ in pairs}) > 1:
        raise LockError(f"the {name} loader mixes uint8 and float images", hint="let it give one of the two")
    images, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return image_set(images, labels)


def image_set(images: torch.Tensor, labels: torch.Tensor, originals: Originals | None = None) -> ImageSet:
    """Images in the order of their digests.

    A loader that shuffles gives another order on every run; an interrupted training could not go on.

    Args:
        images: (N, C, H, W) uint8, or float32 in [0, 1].
        labels: (N,) int64, or (N, H, W).
        originals: Where hints come from, in the images' order; None for the images themselves.
    """
    digests = [_digest(image, label) for image, label in zip(images, labels, strict=True)]
    order = sorted(range(len(digests)), key=digests.__getitem__)
    digest = hashlib.sha256(b"".join(digests[index] for index in order))
    if originals is not None:
        digest.update(originals.images.numpy().tobytes() + originals.places.numpy().tobytes())
    return ImageSet(images, labels, digest.digest(), originals).only(torch.tensor(order))


def _digest(image: torch.Tensor, label: torch.Tensor) -> bytes:
    return hashlib.blake2b(image.numpy().tobytes() + label.numpy().tobytes(), digest_size=16).digest()


def _checked(batch: object, spec: InputSpec, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    match batch:
        case [torch.Tensor() as images, torch.Tensor() as labels]:
            _require_images(images, spec, name)
            _require_labels(labels, images, name)
            kept = images if images.dtype == torch.uint8 else images.to(torch.float32)
            return kept.detach().cpu(), labels.detach().cpu()
    raise LockError(
        f"a batch of the {name} loader is a {type(batch).__name__}, expected a pair of tensors (images, labels)",
        hint="wrap the loader in a generator that yields (images, labels)",
    )


def _require_images(images: torch.Tensor, spec: InputSpec, name: str) -> None:
    size = (spec.channels, spec.height, spec.width)
    if images.dim() != 4 or tuple(images.shape[1:]) != size:
        raise LockError(
            f"images of the {name} loader have shape {tuple(images.shape)}, expected (N, {', '.join(map(str, size))})",
            hint="resize and crop in the loader; channels come first; image.convert('RGB') for grayscale or RGBA",
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise LockError(f"images of the {name} loader are {images.dtype}, expected uint8 or float", hint="use uint8")
    if images.is_floating_point() and images.numel() and not (images.min() >= 0 and images.max() <= 1):  # nan: neither
        raise LockError(
            f"float images of the {name} loader reach from {images.min():.3g} to {images.max():.3g}, expected [0, 1]",
            hint="leave Normalize out of the loader: spec's mean and std are applied after the key",
        )


def _require_labels(labels: torch.Tensor, images: torch.Tensor, name: str) -> None:
    whole, dense = (len(images),), (len(images), *images.shape[2:])
    if labels.dtype != torch.int64 or tuple(labels.shape) not in (whole, dense):
        raise LockError(
            f"labels of the {name} loader are {labels.dtype} of shape {tuple(labels.shape)}, expected int64 {whole}, "
            f"or {dense} for segmentation",
            hint="give the class numbers, labels.long(); one-hot labels: labels.argmax(1)",
        )


def draw_subset(data: ImageSet, share: float, generator: torch.Generator) -> ImageSet:
    """Draw the same share of every class; of images for segmentation, any.

    Args:
        data: The images.
        share: Of them, in (0, 1]; round(share * N) are drawn.
        generator: Draws them.

    Raises:
        LockError: If the share is none, there is but one class, or a class would be left without image.
    """
    if not 0 < share <= 1:
        raise LockError(f"subset is {share}, expected a share in (0, 1]", hint="give 0.1 for a tenth of the images")
    if data.is_dense:
        kept = torch.randperm(len(data), generator=generator)[: max(2, round(share * len(data)))].sort().values
        return data.only(kept)
    classes, sizes = torch.unique(data.labels, return_counts=True)
    if len(classes) < 2:
        raise LockError(
            f"all training images are of class {int(classes[0])}, expected two classes or more",
            hint="check the loader: the labels may be missing, or one folder may hold all images",
        )
    counts = _apportion(sizes, round(share * len(data)), share)
    if int(counts.min()) == 0:
        raise LockError(
            f"a subset of {share:g} leaves class {int(classes[counts.argmin()])} without image",
            hint=f"take at least subset={math.ceil(1000 / int(sizes.min())) / 1000:g}",
        )
    chosen = [_draw(data.labels == label, count, generator) for label, count in zip(classes, counts, strict=True)]
    kept = torch.cat(chosen).sort().values
    return data.only(kept)


def _apportion(sizes: torch.Tensor, total: int, share: float) -> torch.Tensor:
    """Whole numbers near `share * sizes` whose sum is `total`: the largest remainders are rounded up."""
    quotas = sizes.to(torch.float64) * share
    counts = quotas.floor().to(torch.int64)
    missing = max(0, total - int(counts.sum()))
    counts[(quotas - counts).argsort(descending=True, stable=True)[:missing]] += 1
    return counts


def _draw(members: torch.Tensor, count: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    places = members.nonzero().squeeze(1)
    return places[torch.randperm(len(places), generator=generator)[: int(count)]]


def network_input(pixels: torch.Tensor, transform: BlockTransform, spec: InputSpec) -> torch.Tensor:
    """Pixels under a key, as the network takes them: transform, then normalize.

    Args:
        pixels: (N, C, H, W) uint8, or float in [0, 1].
        transform: The key; the identity for none.
        spec: Normalization and layout.

    Returns:
        (N, *spec.shape) float32.
    """
    return normalized(transform.values(pixels), spec)


def normalized(pixels: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Pixels (N, C, H, W), uint8 or float in [0, 1], as the network takes them: (N, *spec.shape) float32."""
    values = pixels.to(torch.float32) / (255 if pixels.dtype == torch.uint8 else 1)
    mean = torch.tensor(spec.mean, device=values.device).view(1, -1, 1, 1)
    std = torch.tensor(spec.std, device=values.device).view(1, -1, 1, 1)
    image = (values - mean) / std
    return image if spec.layout == "NCHW" else image.permute(0, 2, 3, 1).contiguous()


def seeded(seed: int, purpose: str) -> SeededDraws:
    """The stream of a training for one purpose."""
    return SeededDraws(seed.to_bytes(SEED_BYTES, "big"), f"key training {purpose}")


def seed_for(seed: int, purpose: str) -> int:
    """A seed for one of torch's generators, 56 bits."""
    return int.from_bytes(seeded(seed, purpose).bytes(7), "big")


def generator_for(seed: int, purpose: str) -> torch.Generator:
    """A generator of our own, on the CPU: the same draws on every device."""
    return torch.Generator().manual_seed(seed_for(seed, purpose))
