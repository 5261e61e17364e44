"""A locked network: what its key goes into, optional preprocessing, and the network behind them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from torch import fx, nn

from keylatch.errors import LockError
from keylatch.locks._block_gate import BlockGate, TableBlockGate, block_gate
from keylatch.locks._capture import OutputLayout
from keylatch.locks._code_description import CodeLockDescription
from keylatch.locks._detector_lock._description import DetectorLockDescription
from keylatch.locks._detector_lock._paste_gate import PasteGate
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._model_lock._edit_gate import LOCKED_BLEND, EditDescription
from keylatch.locks._patch import find_patch
from keylatch.locks._patch_gate import PatchGate
from keylatch.locks._patchify_stem import reads_blocks
from keylatch.locks._preprocess import Preprocess
from keylatch.locks._sealing import sealed_name
from keylatch.locks._secret import LockSecret
from keylatch.locks._sign_gates import mean_name
from keylatch.locks._withheld._parts import Parts

_NO_PARTS = Parts()
_EDIT = "body.edit."


def channel_key_name(index: int) -> str:
    """Name of the buffer that permutes feature map `index`."""
    return f"channel_key_{index}"


class LockedModule(nn.Module):
    """A locked network. Evaluated as it is, it gives garbage; `opened(secret)` makes it the original network.

    It is an ordinary module: it can be moved, cast, evaluated, fine-tuned and exported. Its normalizations are folded,
    so `train()` changes nothing but the flag. A code gate, a block transform, or both stand in front of the network.

    Args:
        spec: The input convention of this module.
        body: Graph `(image, signs) -> tuple of tensors`; `(image)` without a code gate.
        outputs: How the tensors make up the network's return value.
        description: The public description of the code lock; None without one.
        detector: The public description of the detector lock; None without one.
        gate: Reads the code, from the patch or from the image; of a detector lock it pastes the patch.
        blocks: Transforms the image by a key; before preprocessing if it takes bytes.
        preprocess: Maps the image to the network's own input, if they differ.
        channels: Name and channels of each feature map that is permuted inside the body.
        withheld: Parts of the body's parameters that only a license brings; the parameters hold stand-ins for them.
        edit: The public description of the edit that the body begins with; None without one.
    """

    def __init__(
        self,
        spec: InputSpec,
        body: fx.GraphModule,
        outputs: OutputLayout,
        *,
        description: CodeLockDescription | None = None,
        detector: DetectorLockDescription | None = None,
        gate: PatchGate | PasteGate | None = None,
        blocks: BlockGate | None = None,
        preprocess: Preprocess | None = None,
        channels: tuple[tuple[str, int], ...] = (),
        withheld: Parts = _NO_PARTS,
        edit: EditDescription | None = None,
    ) -> None:
        super().__init__()
        self.withheld, self._is_opened = withheld, False
        self.spec, self.outputs, self.channels, self.edit = spec, outputs, channels, edit
        self.description, self.detector = description, detector
        self.gate, self.blocks, self.preprocess, self.body = gate, blocks, preprocess, body

    def describe(self) -> dict[str, Any]:
        """The public description of all locks, JSON-ready; it stands in the artifact's metadata."""
        if self.detector is not None:
            return self.detector.to_json()
        own = self.own_spec.to_json()
        if self.edit is not None:
            return {"method": "model-lock", "input": own, "edit": self.edit.to_json(), **self.withheld.describe()}
        method = "blocks" if self.blocks is not None else self.withheld.method or "channels"
        facts: dict[str, Any] = (
            {"method": method, "input": own} if self.description is None else self.description.to_json()
        )
        if self.blocks is not None:
            facts["blocks"] = self.blocks.description.to_json()
        if self.channels:
            facts["channels"] = [{"name": name, "channels": count} for name, count in self.channels]
        return facts | self.withheld.describe()

    @property
    def own_spec(self) -> InputSpec:
        """The network's own input convention, behind any preprocessing."""
        if self.description is not None:
            return self.description.spec
        if self.detector is not None:
            return self.detector.spec
        if self.blocks is not None:
            return self.blocks.target
        return self.spec if self.preprocess is None else self.preprocess.target

    def flat(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The network's outputs as a flat tuple, in the order of `outputs.names`."""
        prepared = self._prepared(self.gate(image) if isinstance(self.gate, PasteGate) else image)
        dtype = self._dtype()
        own = prepared.to(dtype) if prepared.is_floating_point() else prepared  # some networks take bytes
        signs = (self.gate(image).to(dtype),) if isinstance(self.gate, PatchGate) else ()
        result: tuple[torch.Tensor, ...] = self.body(own, *signs)
        return result

    def _dtype(self) -> torch.dtype:
        """What the network computes in."""
        if self.description is not None:
            return self.get_buffer(f"body.{mean_name(0)}").dtype
        return next((value.dtype for value in self.body.parameters() if value.is_floating_point()), torch.float32)

    def _prepared(self, image: torch.Tensor) -> torch.Tensor:
        stages = [stage for stage in (self.blocks, self.preprocess) if stage is not None]
        if self.blocks is not None and self.blocks.source.dtype != "uint8":
            stages.reverse()
        for stage in stages:
            image = stage(image)
        return image

    def forward(self, image: torch.Tensor) -> Any:
        """Run the network.

        Args:
            image: (N, *spec.shape), spec.torch_dtype.

        Returns:
            What the original network returns.
        """
        return self.outputs.pack(self.flat(image))

    def gate_names(self) -> tuple[str, ...]:
        """Names of the gate tensors, which are buffers of this module."""
        if self.edit is not None:
            return (*self.edit_names(), *self.withheld_names())
        blocks = () if self.blocks is None else tuple(f"blocks.{name}" for name in self.blocks.gate_names())
        channels = self.channel_names()
        patch = () if self.gate is None else ("gate.patch", "gate.mask")
        gates = 0 if self.description is None else len(self.description.layers)
        means = tuple(f"body.{mean_name(index)}" for index in range(gates))
        return (*blocks, *channels, *patch, *means, *self.withheld_names())

    def withheld_names(self) -> tuple[str, ...]:
        """Names of the gate tensors that are weights of the network: whole layers of a code lock, then parts."""
        count = 0 if self.description is None else len(self.description.sealed)
        return (*(f"body.{sealed_name(index)}" for index in range(count)), *self.withheld.names())

    def edit_names(self) -> tuple[str, ...]:
        """Names of the gate tensors that are an edit's, in the graph's order."""
        return () if self.edit is None else tuple(f"{_EDIT}{name}" for name in self.edit.names)

    def channel_names(self) -> tuple[str, ...]:
        """Names of the gate tensors that permute feature maps, in the graph's order."""
        return tuple(f"body.{channel_key_name(index)}" for index in range(len(self.channels)))

    def gate_tensors(self) -> dict[str, torch.Tensor]:
        """The gate tensors as they are now: locked defaults, or secret values inside `opened`; parts are copies."""
        parts = self.withheld.read(self.body)
        return {name: parts[name] if name in parts else self.get_buffer(name) for name in self.gate_names()}

    def require_locked(self, verb: str) -> None:
        """Refuse to write an opened module out: its secret would be written too.

        Raises:
            LockError: If the gate tensors hold secret values.
        """
        opened = self._is_opened or (self.gate is not None and bool(self.gate.mask.any()))
        opened |= self.edit is not None and float(self.get_buffer(f"{_EDIT}blend")) != LOCKED_BLEND
        orders = [self.get_buffer(name).cpu() for name in self.channel_names()]
        permuted = any(not torch.equal(order, torch.arange(len(order))) for order in orders)
        if opened or permuted or (self.blocks is not None and self.blocks.is_open):
            raise LockError("the module is opened", hint=f"{verb} it outside of `with module.opened(secret)`")

    def secret_values(self, secret: LockSecret) -> dict[str, torch.Tensor]:
        """The values of the gate tensors that open this module, in its dtypes and shapes.

        Raises:
            LockError: If the secret is that of another lock.
        """
        parts = (self._has_code_of, self._has_blocks_of, self._has_channels_of, self._has_edit_of)
        if not (all(has(secret) for has in parts) and self.withheld.fits(secret.withheld)):
            raise LockError("the secret does not fit this lock", hint="use the secret made with this locked network")
        values: dict[str, torch.Tensor] = {}
        if secret.edit is not None:
            values |= {name: secret.edit.values[name.removeprefix(_EDIT)] for name in self.edit_names()}
        if self.blocks is not None and secret.blocks is not None:
            values |= {f"blocks.{name}": value for name, value in self.blocks.secret_values(secret.blocks).items()}
        if secret.channels is not None:
            values |= dict(zip(self.channel_names(), secret.channels.permutations, strict=True))
        if self.gate is not None:
            values |= {"gate.patch": self.gate.patch_value(secret.patch), "gate.mask": torch.ones_like(self.gate.mask)}
        defaults = self.gate_tensors()
        for name, value in zip(
            self.gate_names()[len(values) :], (*secret.means, *secret.sealed, *secret.withheld), strict=True
        ):
            values[name] = value.reshape(defaults[name].shape)
        return {name: value.to(defaults[name]) for name, value in values.items()}

    def _has_code_of(self, secret: LockSecret) -> bool:
        description = self.description
        if description is None:
            return not len(secret.code) and len(secret.patch) == (0 if self.detector is None else self.detector.pixels)
        return (
            len(secret.code) == description.code_bits
            and [len(mean) for mean in secret.means] == [channels for _, channels in description.layers]
            and [tuple(value.shape) for value in secret.sealed] == list(description.sealed)
        )

    def _has_blocks_of(self, secret: LockSecret) -> bool:
        if self.blocks is None or secret.blocks is None:
            return self.blocks is None and secret.blocks is None
        return self.blocks.description.matches(secret.blocks, self.spec)

    def _has_channels_of(self, secret: LockSecret) -> bool:
        key = secret.channels
        return self.channels == (() if key is None else tuple(zip(key.layers, key.sizes, strict=True)))

    def _has_edit_of(self, secret: LockSecret) -> bool:
        if self.edit is None or secret.edit is None:
            return self.edit is None and secret.edit is None
        held = {name.removeprefix(_EDIT): self.get_buffer(name).shape for name in self.edit_names()}
        return secret.edit.matches(self.edit) and {n: v.shape for n, v in secret.edit.values.items()} == held

    def secret_with_code(self, secret: LockSecret, code: torch.Tensor) -> LockSecret:
        """The same secret with another code (and a patch that carries it): a wrong or nearly right key.

        Args:
            secret: The right secret.
            code: (d,) in {-1, +1}.

        Raises:
            LockError: If the lock has no code.
        """
        if not isinstance(self.gate, PatchGate):
            raise LockError("this lock has no code", hint="draw another block transform")
        patch = find_patch(self.gate.code_map.projection, code)
        return replace(secret, code=code.to(torch.int8), patch=patch.pixels)

    @contextmanager
    def opened(self, secret: LockSecret) -> Iterator[Self]:
        """Open the module for a while: the gate tensors hold the secret values inside the `with` block."""
        with self._filled(self.secret_values(secret)):
            yield self

    @contextmanager
    def restored(self, secret: LockSecret) -> Iterator[Self]:
        """Put the withheld parts back for a while, and leave every other gate locked: what an exporter compares."""
        values = self.secret_values(secret)
        with self._filled({name: values[name] for name in self.withheld.names()}):
            yield self

    @contextmanager
    def _filled(self, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
        tensors, before = self.gate_tensors(), self._is_opened
        defaults = {name: tensors[name].clone() for name in values}
        try:
            self._is_opened = True
            self._fill(values)
            yield
        finally:
            self._fill(defaults)
            self._is_opened = before

    def _fill(self, values: Mapping[str, torch.Tensor]) -> None:
        parts = self.withheld.names()
        for name, value in values.items():
            if name not in parts:
                self.get_buffer(name).data.copy_(value)
        self.withheld.write(self.body, {name: value for name, value in values.items() if name in parts})

    def with_uint8_input(self) -> LockedModule:
        """The same lock for raw bytes, NHWC: scaling and layout become part of the graph."""
        if self.spec.dtype == "uint8":
            return self
        source, own = self.spec.as_uint8(), self.spec
        device = next(iter(self.gate_tensors().values())).device
        described = self.description or self.detector
        gate = None if described is None else described.gate(source).to(device)
        blocks, preprocess = self.blocks, Preprocess(own).to(device)
        tabular = isinstance(self.blocks, TableBlockGate)
        if self.blocks is not None and (tabular or not reads_blocks(self.body, self.blocks.description.block_size)):
            blocks = block_gate(self.blocks.description, source, own).to(device)
            preprocess = Preprocess(own, moves=False).to(device)
        return LockedModule(
            source, copy.deepcopy(self.body), self.outputs, description=self.description, detector=self.detector,
            gate=gate, blocks=blocks, preprocess=None if tabular else preprocess, channels=self.channels,
            withheld=self.withheld, edit=self.edit,
        )  # fmt: skip
