"""Where files of the data folder are found, and what is said when one is not there.

The folder is given by the caller and nothing of it is ever copied. Each file is named by its path relative to that
folder, with forward slashes, e.g. ``models/deit_tiny_patch16_224_fp32.pt``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["MissingPackFileError", "absent_files", "require"]


class MissingPackFileError(FileNotFoundError):
    """A file that a loader needs is not in the data folder.

    Args:
        file: The missing file, relative to the data folder.
        data: The data folder that was searched.
    """

    def __init__(self, file: str, data: Path) -> None:
        super().__init__(f"{file} is not in {data}\n  hint: pass the folder that holds models/, imagenet/ and cifar10/")
        self.file = file
        self.data = data


def require(data: Path, file: str) -> Path:
    """Return the path of a file of the data folder.

    Args:
        data: The data folder.
        file: Path relative to it.

    Raises:
        MissingPackFileError: No regular file is there.
    """
    path = data / file
    if not path.is_file():
        raise MissingPackFileError(file, data)
    return path


def absent_files(data: Path, files: Iterable[str]) -> tuple[str, ...]:
    """Return those of `files` that are not in the data folder, in the order given."""
    return tuple(file for file in files if not (data / file).is_file())
