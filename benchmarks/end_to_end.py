"""From decoded photographs to outputs: what does the usual pipeline take, and what a locked model that takes bytes?

The usual pipeline prepares uint8 images with numpy (scale, normalize, layout) and runs the plain network; the other
gives the bytes, as they are, to a keyed session of a model exported with `uint8_input=True`. Images have the network's
size already: decoding and resizing are the same for both, and left out.

    python benchmarks/end_to_end.py [--provider cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import sessions
from installing import Form, Installation, install, workplace
from keylatch.locks import InputSpec
from measuring import print_rows, result_name
from pairs import arguments, compare_for, figures, shown_ratio, write_rows

BATCHES = {"cpu": (1, 8, 32), "cuda": (1, 8, 32)}
TOLERANCE = 1e-2
FORM = Form(uint8_input=True)

Row = dict[str, Any]


def usual_preprocessing(spec: InputSpec) -> Callable[[Any], Any]:
    """From (N, H, W, C) uint8 to (N, C, H, W) float32, normalized: numpy as one writes it, in place where it can be."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)

    def prepare(pixels: Any) -> Any:
        images = pixels.astype(np.float32)
        images /= 255
        images -= mean
        images /= std
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    return prepare


def measure(place: Installation, settings: argparse.Namespace) -> list[Row]:
    """One row for each batch size."""
    provider = settings.provider
    plain, keyed = sessions.open_plain(place, provider), sessions.open_keyed(place, provider)
    prepare = usual_preprocessing(place.spec)
    rows = []
    for batch in settings.batch:
        pixels = sessions.random_pixels(place, batch)

        def usual(pixels: Any = pixels) -> Any:
            return plain.run(None, {"image": prepare(pixels)})

        sessions.require_same(usual(), keyed.run(None, {"image": pixels}), TOLERANCE)
        comparison = compare_for(settings, usual, sessions.runner(keyed, pixels))
        preparing = compare_for(settings, usual, lambda pixels=pixels: prepare(pixels), least=3)  # type: ignore[misc]
        rows.append(
            {
                "network": place.name,
                "provider": provider,
                "precision": place.form.precision,
                "batch": batch,
                "mode": "from uint8",
                **figures(comparison),
                "preprocessing_p50_ms": preparing.percentiles(50)[1],
            }
        )
    return rows


def main() -> None:
    settings = sessions.settings(arguments(__doc__), BATCHES)
    sessions.require_provider(settings.provider)
    with workplace(settings.artifacts) as folder:
        places = [place for name in settings.network for place in install(folder, name, [FORM])]
        sessions.share_threads()
        rows = [row for place in places for row in measure(place, settings)]
    print_rows(
        ("network", "batch", "usual p50, ms", "of it numpy, ms", "bytes, keyed p50, ms", "ratio (95 %)"),
        [
            (
                row["network"],
                row["batch"],
                f"{row['plain_p50_ms']:.3f}",
                f"{row['preprocessing_p50_ms']:.3f}",
                f"{row['keyed_p50_ms']:.3f}",
                shown_ratio(row),
            )
            for row in rows
        ],
    )
    write_rows(result_name("end_to_end", settings.provider), rows, settings)


if __name__ == "__main__":
    main()
