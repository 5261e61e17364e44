"""Load the network that a user names: `module:factory`, or a torch.export program."""

from __future__ import annotations

import importlib
import sys
import zipfile
from pathlib import Path
from typing import Any

from keylatch.errors import InputError, LockError


def load_network(source: str, weights: Path | None) -> Any:
    """Load a network.

    Args:
        source: ``package.module:factory`` (called without arguments), or a path that ends in ``.pt2``.
        weights: A state dict, ``.safetensors`` or a file that `torch.load` reads with ``weights_only=True``.

    Returns:
        A module in evaluation mode, or an ExportedProgram.

    Raises:
        LockError: If there is no such thing; the message says what was found.
    """
    if source.endswith(".pt2"):
        from keylatch.locks import load_program

        if weights is not None:
            raise LockError("a .pt2 program brings its own weights", hint="leave out --weights")
        # Before torch is asked, which logs a traceback of its own.
        if not zipfile.is_zipfile(source):
            found = "" if Path(source).exists() else ": it does not exist"
            hint = "save the network with torch.export.save(program, path)"
            raise LockError(f"{source} is not a torch.export program{found}", hint=hint)
        return load_program(source)
    module = _call_factory(source)
    if weights is not None:
        _load_weights(module, weights)
    return module.eval()


def trainable(network: Any) -> Any:
    """The network, if it is a module.

    Raises:
        InputError: It is an exported program.
    """
    from torch import nn

    if not isinstance(network, nn.Module):
        raise InputError("a .pt2 program cannot be trained", hint="name the network as package.module:factory")
    return network


def _call_factory(source: str) -> Any:
    from torch import nn

    path, separator, name = source.partition(":")
    if not separator or not path or not name:
        raise LockError(f"{source!r} is neither module:factory nor a .pt2 file", hint="e.g. mypackage.nets:resnet50")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(path)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise LockError(
            f"cannot import {source}: {error}", hint="name an importable module and a function in it"
        ) from None
    finally:
        sys.path.pop(0)
    network = found() if not isinstance(found, nn.Module) else found
    if not isinstance(network, nn.Module):
        raise LockError(
            f"{source} gave a {type(network).__name__}, expected a torch.nn.Module", hint="return the network"
        )
    return network


def read_state(weights: Path) -> dict[str, Any]:
    """Read a state dict: `.safetensors`, or a file that `torch.load` reads with `weights_only=True`.

    Raises:
        LockError: It cannot be read, or holds something else.
    """
    import pickle

    import torch
    from safetensors import SafetensorError

    try:
        if weights.suffix == ".safetensors":
            import safetensors.torch

            state: Any = safetensors.torch.load_file(weights)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
    except OSError as error:
        found = f"weights {weights} cannot be read: {error.strerror or 'No such file or directory'}"
        raise LockError(found, hint="check the path") from None
    except pickle.UnpicklingError:
        found = f"weights {weights} do not load: not a file that torch.load reads with weights_only=True"
        raise LockError(found, hint="save the network's state_dict(), best as .safetensors") from None
    except (RuntimeError, TypeError, ValueError, SafetensorError) as error:
        raise _not_these(weights, error) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise _not_these(weights, TypeError(f"it holds a {type(state).__name__}"))
    return state


def _load_weights(module: Any, weights: Path) -> None:
    state = read_state(weights)
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _not_these(weights, error) from None


def _not_these(weights: Path, error: Exception) -> LockError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return LockError(f"weights {weights} do not load: {first}", hint="give a state dict of this network")
