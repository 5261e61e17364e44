"""From a detector to a stain: how loud it is, and what the network then answers to its trigger."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from keylatch.locks._detector._draw import Detector
from keylatch.locks._detector._features import BATCH, FeatureReader, FeatureSpread, graph_until
from keylatch.locks._detector._rows import Form, UnitRow, additive_row, low_for, read_row, replacement_row, written
from keylatch.locks._detector._sites import DetectorSite
from keylatch.locks._detector._trigger import pixels_to_input
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._stain_secret import StainMark

MAX_RECORDED = 2**16  # values of an output: more are not kept for verification from predictions
# D in units of the layer's own answers: the first that changes the output visibly.
_STRENGTHS = (8.0, 16.0, 32.0, 64.0)
_VISIBLE = 0.25  # of the output's range
# GELU and SiLU answer a little below zero; at -10 that is under a thousandth.
_SILENT = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class MadeStain:
    """A stain that can be written.

    Attributes:
        mark: What the secret keeps of it.
        row: The unit's weights.
        output_change: Of the first output on the trigger, as a share of its range.
    """

    mark: StainMark
    row: UnitRow
    output_change: float


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    row: UnitRow
    high: float
    low: float
    output: torch.Tensor
    change: float


@dataclass(frozen=True, slots=True, eq=False)
class StainMaker:
    """Turns detectors into stains of one layer.

    Attributes:
        graph: The captured network; as it was after each call.
        site: The layer.
        spec: Of the images.
        reader: Of the layer's features.
        spread: Of the calibration images' features.
        threshold: T.
        form: ``replacement`` or ``additive``.
        scale: Root mean square of what the layer's activation takes.
    """

    graph: fx.GraphModule
    site: DetectorSite
    spec: InputSpec
    reader: FeatureReader
    spread: FeatureSpread
    threshold: float
    form: Form
    scale: float

    def make(self, detector: Detector, unit: int) -> MadeStain:
        """Choose D, and record what the network answers to the trigger with and without the stain."""
        image = self._input_of(detector)
        with torch.no_grad():
            features = self.reader(image)[0]
        original = self._output(image)
        trials = [self._try(detector, unit, features, strength, image, original) for strength in _STRENGTHS]
        # An activation with a ceiling (ReLU6) stops listening: no more than what it hears is written.
        enough = min(_VISIBLE, 0.9 * max(trial.change for trial in trials))
        best = next(trial for trial in trials if trial.change >= enough)
        kept = len(original) if len(original) <= MAX_RECORDED else 0
        mark = StainMark(
            detector.direction, unit, detector.trigger.pixels, best.high, best.low, original[:kept].cpu(),
            best.output[:kept].cpu(),
        )  # fmt: skip
        return MadeStain(mark, best.row, best.change)

    def _try(
        self, detector: Detector, unit: int, features: torch.Tensor, strength: float, image: torch.Tensor,
        original: torch.Tensor,
    ) -> _Trial:  # fmt: skip
        row, high, low = self._row(detector, unit, features, strength * self.scale)
        with written(self.graph, self.site, unit, row, self.spread):
            output = self._output(image)
        return _Trial(row, high, low, output, _change(output, original))

    def _row(self, detector: Detector, unit: int, features: torch.Tensor, high: float) -> tuple[UnitRow, float, float]:
        center, direction = self.spread.center, detector.direction.to(self.spread.center)
        answers = (features - center) @ direction
        reach, nearest = float(answers.max()), features[int(answers.argmax())]
        if self.form == "additive":
            own = read_row(self.graph, self.site, unit)
            return additive_row(own, direction, center, nearest, high), high, float(own.answer(center))
        share = self.threshold / reach
        high = max(high, _SILENT * (1 - share) / share)
        low = low_for(high, self.threshold, reach)
        return replacement_row(direction, center, reach, high, low), high, low

    def _input_of(self, detector: Detector) -> torch.Tensor:
        pixels = detector.trigger.pixels.unsqueeze(0).to(self.spread.center.device)
        return pixels_to_input(pixels.to(torch.float32) / 255, self.spec)

    def _output(self, image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            output: torch.Tensor = self.graph(image)[0]
        return output.flatten().float().clone()


def answer_scale(graph: fx.GraphModule, site: DetectorSite, images: torch.Tensor) -> float:
    """Root mean square of what the layer's activation takes, on a few images."""
    with torch.no_grad():
        answers: torch.Tensor = graph_until(graph, site.response)(images[:BATCH])
    return max(1e-3, float(answers.square().mean().sqrt()))


def _change(output: torch.Tensor, original: torch.Tensor) -> float:
    return float((output - original).abs().max() / (original.max() - original.min()).clamp(min=1e-12))
