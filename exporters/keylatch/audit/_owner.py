"""What the owner alone knows. Attacks never see it; it makes the reference, near keys and survival figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from keylatch.audit._target import Target
from keylatch.audit.onnx_network import OnnxNetwork
from keylatch.errors import InputError
from keylatch.keys import Vault
from keylatch.locks import BlockDescription, CodeLockDescription, LockSecret
from keylatch.locks._patch import find_patch
from keylatch.runtime import VALUES_KEY_NAME, read_sealed_values

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_METHODS = ("code", "blocks", "detector", "seal", "domains", "model-lock")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Owner:
    """The secrets of a locked model.

    Attributes:
        values: Gate tensor name to its secret value, in the artifact's dtypes and shapes.
        secret: The lock's secret, for keys that are nearly right; None for locks without a code or block transform.
    """

    values: Mapping[str, Array]
    secret: LockSecret | None

    def __repr__(self) -> str:
        return f"Owner({len(self.values)} gate tensors)"

    def unlocked(self, target: Target) -> OnnxNetwork:
        """The network with the secret values in place."""
        return with_values(target, self.values)

    def near_values(self, target: Target, wrong_bits: int, generator: torch.Generator) -> dict[str, Array]:
        """Gate values whose code has some bits wrong, the channel means right.

        Raises:
            InputError: The lock has no code.
        """
        description = code_description(target)
        if description is None or self.secret is None:
            raise InputError("near keys need a lock with a code", hint="audit a code lock")
        code = self.secret.code.clone()
        code[torch.randperm(len(code), generator=generator)[:wrong_bits]] *= -1
        gate = description.gate(target.spec)
        patch = find_patch(gate.code_map.projection, code)
        near = gate.patch_value(patch.pixels).numpy()
        return {**self.values, "gate.patch": near}

    def signs(self, target: Target) -> tuple[torch.Tensor, ...]:
        """The right (channels,) signs of each gate; () for other locks."""
        description = code_description(target)
        if description is None or self.secret is None:
            return ()
        signs = description.gate(target.spec).code_map.signs(self.secret.code)
        return torch.split(signs, [channels for _, channels in description.layers])


def owner_from_vault(vault: Vault, target: Target) -> Owner:
    """Read the owner's secrets of a model.

    Raises:
        FormatError: The vault has none for this model.
    """
    names = set(target.gate_names)
    section = vault.section(target.model_id)
    values = {name: np.array(value) for name, value in section.items() if name in names}
    if target.manifest.values is not None and VALUES_KEY_NAME in section:
        values |= read_sealed_values(target.path, section[VALUES_KEY_NAME].tobytes())
    is_known = target.manifest.lock.get("method") in _METHODS and "lock" in vault.sections
    return Owner(values, LockSecret.from_arrays(vault.section("lock")) if is_known else None)


def with_values(target: Target, values: Mapping[str, Array]) -> OnnxNetwork:
    """A copy of the locked network with some gate tensors replaced."""
    network = target.network()
    for name, value in values.items():
        network.substitute(name, torch.from_numpy(np.array(value)))
    return network


def code_description(target: Target) -> CodeLockDescription | None:
    """The public description of a code lock; None for other locks."""
    lock = target.manifest.lock
    return CodeLockDescription.from_json(lock) if lock.get("method") == "code" else None


def block_description(target: Target) -> BlockDescription | None:
    """The public description of a block transform; None for locks without one."""
    blocks = target.manifest.lock.get("blocks")
    return None if blocks is None else BlockDescription.from_json(blocks)
