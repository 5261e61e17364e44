"""Parameters and buffers under ONNX names, which hold characters that PyTorch's names must not."""

from __future__ import annotations

import functools
from urllib.parse import unquote

from torch import Tensor, nn


class NamedTensors(nn.Module):
    """A module without a forward: a place for tensors with any name."""

    def add(self, name: str, tensor: Tensor) -> None:
        """Register a tensor: as a parameter if it is one, else as a buffer. Replaces one of the same name."""
        key = encode_name(name)
        self.discard(name)
        if isinstance(tensor, nn.Parameter):
            self.register_parameter(key, tensor)
        else:
            self.register_buffer(key, tensor)

    def discard(self, name: str) -> None:
        """Forget a tensor, if it is there."""
        key = encode_name(name)
        self._parameters.pop(key, None)
        self._buffers.pop(key, None)

    def get(self, name: str) -> Tensor:
        """The tensor as it is now; `torch.func.functional_call` and parametrizations are honored."""
        key = encode_name(name)
        found = self._parameters.get(key)
        return getattr(self, key) if found is None else found

    def names(self) -> list[str]:
        """The ONNX names."""
        return [decode_name(key) for key in (*self._parameters, *self._buffers)]


@functools.cache
def encode_name(name: str) -> str:
    """An ONNX name as a parameter's name: dots and what a module calls its own are percent-encoded."""
    if hasattr(nn.Module, name) or name in _OWN or name.startswith("_"):
        return f"%{ord(name[0]):02X}" + _without_dots(name[1:])
    return _without_dots(name)


def decode_name(key: str) -> str:
    """The ONNX name of a parameter: the inverse of `encode_name`."""
    return unquote(key)


def _without_dots(name: str) -> str:
    return name.replace("%", "%25").replace(".", "%2E")


_OWN = frozenset(vars(NamedTensors())) | frozenset(vars(NamedTensors))
