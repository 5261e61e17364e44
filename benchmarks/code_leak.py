"""If an attacker learns some of the gate signs, does the code follow? Linear thresholds against products of five.

Suppose that statistics give each of a network's gate signs with some probability better than a half. The attacker
then adds up what the signs say about each code bit (the matched filter for s = sign(A b), and the best linear
estimate in general) and derives all signs from the estimated code. Fifty codes for each point. No network is involved:
this is about the map from code to signs alone.
"""

from __future__ import annotations

from typing import Any

import torch

from keylatch.locks._code import as_signs, draw_code_map
from keylatch.locks._randomness import SeededDraws
from measuring import print_rows, write_results

BITS, CHANNELS, CODES = 256, 4000, 50
KNOWN = (0.55, 0.6, 0.65, 0.7, 0.8, 0.9)


def linear_signs(matrix: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """S = sign(A b), (codes, channels)."""
    return as_signs(codes @ matrix.T)


def leak(known: float) -> dict[str, Any]:
    draws = SeededDraws(bytes(31) + b"\1", f"leak {known}")
    codes = draws.signs(CODES, BITS).float()
    code_map = draw_code_map(bytes(32), code_bits=BITS, pixels=768, channels=CHANNELS)
    matrix = draws.signs(CHANNELS, BITS).float()
    right = {
        "linear": linear_signs(matrix, codes),
        "product": torch.stack([code_map.signs(code) for code in codes]),
    }
    result: dict[str, Any] = {"known": known}
    for name, signs in right.items():
        flipped = torch.where(draws.uniform(*signs.shape) < known, 1.0, -1.0).float()
        directions = matrix if name == "linear" else _unit_directions(code_map)
        estimate = as_signs((signs * flipped) @ directions)
        derived = (
            linear_signs(matrix, estimate)
            if name == "linear"
            else torch.stack([code_map.signs(code) for code in estimate])
        )
        result[f"{name}_code_bits_right"] = float((estimate == codes).float().mean())
        result[f"{name}_signs_right"] = float((derived == signs).float().mean())
    return result


def _unit_directions(code_map: Any) -> torch.Tensor:
    """The linear direction that a product of five units has, to first order: the sum of its units' directions."""
    directions: torch.Tensor = code_map.expansion.float().T[code_map.picks].sum(0)
    return directions


def main() -> None:
    results = [leak(known) for known in KNOWN]
    rows: list[tuple[object, ...]] = [
        (
            f"{row['known']:.0%}",
            f"{row['linear_code_bits_right']:.1%}",
            f"{row['linear_signs_right']:.1%}",
            f"{row['product_code_bits_right']:.1%}",
            f"{row['product_signs_right']:.1%}",
        )
        for row in results
    ]
    header = ("signs known", "linear: code bits", "linear: signs after", "product: code bits", "product: signs after")
    print_rows(header, rows)
    write_results("code_leak", {"code_bits": BITS, "channels": CHANNELS, "codes": CODES, "results": results})


if __name__ == "__main__":
    main()
