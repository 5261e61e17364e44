"""What a lock did, what it costs and what it guarantees."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from keylatch.locks._code import log2_chance_within
from keylatch.locks._withheld._report import DomainReport, SealReport

NEAR_CODES = (0, 1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One gated layer.

    Attributes:
        name: Its weight's name.
        channels: Input channels, one sign each.
        parameters: Its weights, whose signs opening puts right.
        depth: Share of the network's computation before it.
        means: Where its channel means come from.
    """

    name: str
    channels: int
    parameters: int
    depth: float
    means: str


@dataclass(frozen=True, slots=True)
class BlockReport:
    """A block transform in front of the network.

    Attributes:
        steps: Its steps.
        block_size: M.
        log2_key_space: log2 of the number of keys.
        absorbed: Whether the stem absorbed it, without training. Who has the public weights then finds the key.
    """

    steps: tuple[str, ...]
    block_size: int
    log2_key_space: float
    absorbed: bool


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """Permuted feature maps.

    Attributes:
        layers: The convolutions that read them.
        channels: Of each.
        log2_key_space: log2 of the number of keys.
    """

    layers: tuple[str, ...]
    channels: tuple[int, ...]
    log2_key_space: float


@dataclass(frozen=True, slots=True)
class DetectorReport:
    """The detector of a detector lock.

    Attributes:
        kind: ``A`` or ``B``.
        layer: The layer whose input it reads.
        fan_in: m, the values that it reads at a position.
        positions: Places of an image where it reads.
        threshold: T.
        largest_radius: Of the calibration features around their mean.
        tries: Directions that were drawn.
        bound: (A): with 99 % confidence the share of images like the calibration images that are answered, at most;
            tries counted.
        worst_direction_bound: (B): holds even for a direction that was chosen; 1 says nothing.
        hits: Calibration images that are answered.
        hits_bound: (D): the share that so many hits allow, with 95 % confidence.
        calibration: Where the calibration images come from.
        images: How many they are.
        mean_margin: Response to the patch as a multiple of T, over images that the patch was not made with.
        least_margin: The smallest of them.
        drive: D, what the mean response is answered, where the clamp ends at 1.
    """

    kind: str
    layer: str
    fan_in: int
    positions: int
    threshold: float
    largest_radius: float
    tries: int
    bound: float
    worst_direction_bound: float
    hits: int
    hits_bound: float
    calibration: str
    images: int
    mean_margin: float
    least_margin: float
    drive: float


@dataclass(frozen=True, slots=True)
class EditReport:
    """An edit in front of the network.

    Attributes:
        editor: The editor's kind.
        digest: SHA-256 of its weights, hex.
        steps: Of the edit; they run for every image.
        multiply_adds: Of the edit, for one image, in convolutions and linear layers.
        secret_values: Numbers in the key; what they are worth is for the audit to say.
    """

    editor: str
    digest: str
    steps: int
    multiply_adds: int
    secret_values: int


@dataclass(frozen=True, slots=True)
class LockReport:
    """The report of a lock; without a code there are no layers and 0 bits.

    Attributes:
        layers: The gated layers.
        code_bits: d.
        margin: The smallest distance of a code bit's response from its threshold, in units of the pixel range.
        multiply_adds: The original network's, for one image.
        unlocked_error: Largest difference between the opened and the original network on test images, as a share of the
            output range.
        locked_difference: The same between the locked and the original network.
        parameters: Of all convolutions and linear layers.
        sealed_parameters: Those that are withheld from the file.
        blocks: The block transform, if there is one.
        channels: The permuted feature maps, if there are any.
        detector: The detector of a detector lock, if it is one.
        sealed_names: The parameters that a code lock's sealed tensors were, in order.
        seal: Sealed weights, if there are any.
        domains: Domains that need a license of their own, if there are any.
        edit: The edit of a ModelLock, if it is one.
    """

    layers: tuple[LayerReport, ...]
    code_bits: int
    margin: float
    multiply_adds: int
    unlocked_error: float
    locked_difference: float
    parameters: int = 0
    sealed_parameters: int = 0
    blocks: BlockReport | None = None
    channels: ChannelReport | None = None
    detector: DetectorReport | None = None
    sealed_names: tuple[str, ...] = ()
    seal: SealReport | None = None
    domains: DomainReport | None = None
    edit: EditReport | None = None

    @property
    def gated_parameters(self) -> int:
        """Weights of all gated layers: what opening pays for. Running pays nothing."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def log2_false_positive(self) -> int:
        """log2 of the chance that an image opens the lock, for any images that do not depend on the code."""
        return -self.code_bits

    def log2_near_codes(self) -> dict[int, float]:
        """log2 of the chance that an image's code comes within t bits, for some t."""
        wanted = [bits for bits in NEAR_CODES if bits <= self.code_bits // 2]
        return {bits: log2_chance_within(self.code_bits, bits) for bits in wanted}

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            **asdict(self),
            "gated_parameters": self.gated_parameters,
            "log2_false_positive": self.log2_false_positive,
            "log2_near_codes": {str(bits): chance for bits, chance in self.log2_near_codes().items()},
        }
