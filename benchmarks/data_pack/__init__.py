"""Real weights and images for the benchmarks, read from a data folder that is no part of the project.

Nothing here is needed to use or test Keylatch. Benchmarks measure the networks that are `available` and print what
`skipped` says of the others. Image sets stand in `data_pack.images`.

    python -m data_pack DATA    measure every network once and compare with the expected accuracy
"""

from __future__ import annotations

from data_pack.images import LabelledImages
from data_pack.networks import NETWORKS, NetworkSpec, available, skipped
from data_pack.pack_files import MissingPackFileError
from data_pack.top1 import model_input, top1, top1_of

__all__ = [
    "NETWORKS",
    "LabelledImages",
    "MissingPackFileError",
    "NetworkSpec",
    "available",
    "model_input",
    "skipped",
    "top1",
    "top1_of",
]
