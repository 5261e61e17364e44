"""What `keylatch lock` tells of a lock."""

from __future__ import annotations

from typing import Any


def lock_lines(facts: dict[str, Any], report: Any) -> list[tuple[str, object]]:
    """A lock's report for the terminal.

    Args:
        facts: Names of the files and the seconds, as the command's JSON has them.
        report: The lock's report.
    """
    return [
        ("locked network", facts["locked"]),
        ("secret", f"{facts['secret']}  (keep it; whoever has it can open the model)"),
        ("time", f"{facts['seconds']} s"),
        *(_code_lines(report) if report.layers else []),
        *(_block_lines(report.blocks) if report.blocks is not None else []),
        *(_seal_lines(report) if report.seal is not None else []),
        *(_detector_lines(report.detector) if report.detector is not None else []),
        ("unlocked error", f"{report.unlocked_error:.1e} of the output range"),
        ("locked difference", f"{report.locked_difference:.2f} of the output range"),
    ]


def _code_lines(report: Any) -> list[tuple[str, object]]:
    layers = "\n".join(f"{layer.name}, {layer.channels} channels, centered by {layer.means}" for layer in report.layers)
    return [
        ("gated layers", layers),
        ("withheld", f"{report.sealed_parameters:,} of {report.parameters:,} weights; licenses carry them"),
        ("code", f"{report.code_bits} bits, margin {report.margin:.3f} of the pixel range"),
        ("false positives", f"2^{report.log2_false_positive} an image"),
        ("cost", f"none while running; opening goes over {report.gated_parameters:,} gated weights"),
    ]


def _seal_lines(report: Any) -> list[tuple[str, object]]:
    seal = report.seal
    measured = f", measured on {seal.calibration}" if seal.calibration else ""
    return [
        ("withheld", f"{report.sealed_parameters:,} of {report.parameters:,} weights, {seal.withheld_bytes:,} bytes"),
        ("chosen by", f"{seal.by}, {seal.granularity} in {len(seal.layers)} tensors{measured}"),
    ]


def _block_lines(blocks: Any) -> list[tuple[str, object]]:
    how = "absorbed by the stem: weak where the original weights are public" if blocks.absorbed else "trained"
    size = f"{blocks.block_size} x {blocks.block_size}"
    return [("blocks", f"{'+'.join(blocks.steps)}, {size}, 2^{blocks.log2_key_space:.0f} keys, {how}")]


def _detector_lines(detector: Any) -> list[tuple[str, object]]:
    margins = f"{detector.mean_margin:.1f} T on average, {detector.least_margin:.1f} T at least"
    weakness = "subtracting the mean output" if detector.kind == "A" else "removing the gate"
    return [
        ("detector", f"lock {detector.kind}, reads {detector.fan_in} values in {detector.layer}"),
        ("response to the patch", margins),
        ("false positives", f"{detector.bound:.0e} of images at most, with 99 %; from {detector.calibration}"),
        ("weakness", f"{weakness} undoes it without any key; prefer --method code"),
    ]
