"""The gate of a detector lock: puts the secret patch into the image's corner."""

from __future__ import annotations

import torch

from keylatch.locks._patch_gate import PatchTensors


class PasteGate(PatchTensors):
    """Pastes a patch; by the locked defaults the image stays as it is. The buffers `patch` and `mask` are gate tensors.

    Args:
        place: Where the patch is.
        spec: The input convention; for uint8 input the patch is bytes too.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Paste.

        Args:
            image: (N, *spec.shape).

        Returns:
            The same image, with the patch in its corner where the mask is set.
        """
        return self.pasted(image, self.corner(image))

    def pasted(self, image: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
        """The image with any patch in its corner, with gradients.

        Args:
            image: (N, *spec.shape).
            patch: As the gate tensor, or one for each image.
        """
        # In pieces: a mask as large as the image would travel in the license, and one that is padded to its size the
        # exporter computes beforehand, from the locked defaults.
        rows, columns = self.axes
        row, column = self.place.start(self.spec)
        bands = _cut(image, rows, row, self.place.size)
        pieces = _cut(bands[1], columns, column, self.place.size)
        pieces[1] = patch
        bands[1] = torch.cat([piece for piece in pieces if piece.shape[columns]], dim=columns)
        return torch.cat([band for band in bands if band.shape[rows]], dim=rows)


def _cut(image: torch.Tensor, axis: int, start: int, size: int) -> list[torch.Tensor]:
    """What lies before, inside and behind a range."""
    end = start + size
    return [
        image.narrow(axis, 0, start), image.narrow(axis, start, size), image.narrow(axis, end, image.shape[axis] - end)
    ]  # fmt: skip
