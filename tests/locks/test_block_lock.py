"""A network behind a block transform: open it is the network, locked it is not, and only its own key opens it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from keylatch.errors import FormatError, LockError
from keylatch.keys import FileIssuerKey, Vault, read_vault, write_vault
from keylatch.locks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BlockTransform,
    InputSpec,
    LockSecret,
    block_lock,
)
from networks import (
    PATCH,
    SIZE,
    Locked,
    PaddedConvs,
    Residual,
    Tokens,
    lock,
    outputs_of,
    pixels,
    prepare,
    relative_error,
    settle,
)

SPEC = InputSpec(3, SIZE, SIZE, IMAGENET_MEAN, IMAGENET_STD)
LINEAR = [("shf",), ("np",), ("shf", "np"), ("np", "shf")]
ALL = [*LINEAR, ("ffx",), ("np", "ffx"), ("shf", "np", "ffx")]
EXACT, ANOTHER = 1e-5, 0.05  # of the output range: the same network, and a different one


class Patchify(nn.Module):
    """A stem that reads blocks, tokens without places, a head."""

    def __init__(self, kernel: int = 4, *, channels: int = 3, **options: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 64, kernel, **{"stride": kernel, **options})
        self.mix, self.head = nn.Conv2d(64, 96, 1), nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.gelu(self.mix(F.gelu(self.stem(x)))).flatten(2).amax(2))


class ReadsTwice(Patchify):
    """Something else than the stem reads the image as well."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x.mean((1, 2, 3), keepdim=True).flatten(1)


class TwoStems(Patchify):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 10, 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.other(x).mean((2, 3))


def draw(steps: tuple[str, ...] = ("shf", "np"), size: int = 4, channels: int = 3, seed: int = 1) -> BlockTransform:
    return BlockTransform.draw(steps, block_size=size, channels=channels, seed=bytes([seed]) * 32)


def as_shown(values: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Pixels (N, C, H, W) in [0, 1] as a network takes them; written out here, not taken from the library."""
    mean, std = (torch.tensor(of, dtype=torch.float64).view(1, -1, 1, 1) for of in (spec.mean, spec.std))
    image = ((values.double() - mean) / std).float()
    return image if spec.layout == "NCHW" else image.movedim(1, 3).contiguous()


def outputs_with(locked: Locked, images: torch.Tensor, secret: LockSecret | None = None) -> torch.Tensor:
    with locked.module.opened(locked.secret if secret is None else secret):
        return outputs_of(locked.module, images)


@pytest.fixture(scope="module")
def trained_on_blocks() -> Locked:
    return block_lock(settle(PaddedConvs), SPEC, draw())


@pytest.fixture(scope="module")
def absorbed() -> Locked:
    return block_lock(settle(Tokens), SPEC, draw(), absorb=True)


@pytest.fixture(scope="module")
def combined() -> Locked:
    """A code lock whose stem absorbs a block transform too."""
    return lock(settle(Tokens), SPEC, blocks=draw(), absorb=True)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("steps", ALL, ids="+".join)
def test_an_opened_network_sees_transformed_images(steps: tuple[str, ...], layout: str) -> None:
    class Laid(PaddedConvs):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if layout == "NCHW" else x.movedim(3, 1))

    network, key, spec = settle(PaddedConvs), draw(steps), replace(SPEC, layout=layout)
    laid = Laid().eval()
    laid.load_state_dict(network.state_dict())
    locked = block_lock(laid, spec, key)
    expected = outputs_of(network, as_shown(key.values(pixels(4)), SPEC))
    plain = prepare(pixels(4), spec)
    assert relative_error(outputs_with(locked, plain), expected) <= EXACT
    assert relative_error(outputs_of(locked.module, plain), expected) >= ANOTHER
    assert relative_error(outputs_of(locked.module, plain), outputs_of(laid, plain)) <= EXACT


STEMS: dict[str, tuple[Callable[[], nn.Module], list[int], int]] = {
    "kernel 4": (Patchify, [2, 4], 3),
    "kernel 16": (lambda: Patchify(16), [2, 4, 8, 16], 3),
    "without bias": (lambda: Patchify(bias=False), [2, 4], 3),
    "padding by name": (lambda: Patchify(padding="valid"), [4], 3),
    "oblong kernel": (lambda: Patchify((4, 8), stride=(4, 8)), [2, 4], 3),
    "grayscale": (lambda: Patchify(channels=1), [4], 1),
    "tokens": (Tokens, [2, 4, 8], 3),
    "residual": (Residual, [4], 3),
}


@pytest.mark.parametrize("steps", LINEAR, ids="+".join)
@pytest.mark.parametrize("name", STEMS)
def test_a_stem_absorbs_a_transform_exactly(name: str, steps: tuple[str, ...]) -> None:
    build, sizes, channels = STEMS[name]
    network, images = settle(build, channels), pixels(4, channels)
    spec = InputSpec(channels, SIZE, SIZE, IMAGENET_MEAN[:channels], IMAGENET_STD[:channels])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    expected = outputs_of(network, prepare(images, spec))
    for size in sizes:
        if (steps, size) == (("np",), 2):
            continue  # refused: too few keys
        key = draw(steps, size, channels)
        locked = block_lock(network, spec, key, absorb=True)
        assert relative_error(outputs_with(locked, prepare(images, spec)), expected) <= EXACT
        assert relative_error(outputs_of(locked.module, prepare(images, spec)), expected) >= ANOTHER
        # The stem understands transformed images and no others.
        shown = as_shown(key.values(images), spec)
        assert relative_error(outputs_of(locked.module, shown), expected) <= EXACT
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("which", ["trained_on_blocks", "absorbed", "combined"])
@pytest.mark.parametrize("other", [draw(seed=2), draw().near(0.5, torch.Generator().manual_seed(0))])
def test_another_key_does_not_open_a_lock(request: pytest.FixtureRequest, which: str, other: BlockTransform) -> None:
    locked: Locked = request.getfixturevalue(which)
    right = outputs_with(locked, prepare(pixels(4), SPEC))
    wrong = outputs_with(locked, prepare(pixels(4), SPEC), replace(locked.secret, blocks=other))
    assert relative_error(wrong, right) >= ANOTHER


def test_one_network_takes_many_keys() -> None:
    network = settle(Tokens)
    expected = outputs_of(network, prepare(pixels(4), SPEC))
    first, second = (block_lock(network, SPEC, draw(seed=seed), absorb=True) for seed in (1, 2))
    for locked, other in ((first, second), (second, first)):
        assert relative_error(outputs_with(locked, prepare(pixels(4), SPEC)), expected) <= EXACT
        assert relative_error(outputs_with(locked, prepare(pixels(4), SPEC), other.secret), expected) >= ANOTHER


REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "overlapping stem": (PaddedConvs, {}, r"kernel \(3, 3\) and stride \(2, 2\), so that its windows overlap"),
    "overlapping patches": (lambda: Patchify(8, stride=4), {}, "so that its windows overlap"),
    "pixels left out": (lambda: Patchify(4, stride=8), {}, r"kernel \(4, 4\) and stride \(8, 8\)"),
    "block larger than the patch": (Patchify, {"size": 8}, "blocks of 8 x 8: its first layer reads patches of 4 x 4"),
    "block that parts patches": (lambda: Patchify(4), {"size": 16}, "its first layer reads patches of 4 x 4"),
    "blocks across patches": (lambda: Patchify(2), {"size": 4}, "its first layer reads patches of 2 x 2"),
    "padding": (lambda: Patchify(4, padding=2), {}, "its first layer pads, dilates or groups"),
    "padding on one axis": (lambda: Patchify(4, padding=(0, 4)), {}, "its first layer pads"),
    "dilation": (lambda: Patchify(4, dilation=2), {}, "its first layer pads, dilates or groups"),
    "image read twice": (ReadsTwice, {}, "no single convolution reads its images"),
    "two stems": (TwoStems, {}, "no single convolution reads its images"),
    "no convolution first": (lambda: nn.Sequential(nn.AvgPool2d(2), Patchify()), {}, "no single convolution reads"),
    "ffx": (Patchify, {"steps": ("shf", "np", "ffx")}, r"shf\+np\+ffx cannot be absorbed"),
    "ffx alone": (Patchify, {"steps": ("ffx",)}, "ffx cannot be absorbed: only shf and np"),
}  # fmt: skip


@pytest.mark.parametrize("with_code", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_absorbed_says_why_and_what_to_do(case: str, with_code: bool) -> None:
    build, options, message = REFUSED[case]
    network = settle(build)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(LockError, match=message) as caught:
        if with_code:
            lock(network, SPEC, blocks=draw(**options), absorb=True)
        else:
            block_lock(network, SPEC, draw(**options), absorb=True)
    assert "transformed images" in (caught.value.hint or "")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class TakesBytes(Patchify):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x / 255)


def test_bytes_cannot_be_absorbed() -> None:
    with pytest.raises(LockError, match="cannot be absorbed") as caught:
        block_lock(settle(TakesBytes), InputSpec(3, SIZE, SIZE, dtype="uint8"), draw(), absorb=True)
    assert caught.value.hint


@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize(("size", "wanted"), [((30, 32), 4), ((32, 30), 4), ((32, 32), 5), ((32, 32), 64)])
def test_images_that_are_not_whole_blocks_are_refused(size: tuple[int, int], wanted: int, absorb: bool) -> None:
    with pytest.raises(LockError, match="are not divisible into blocks of") as caught:
        block_lock(settle(Patchify), InputSpec(3, *size), draw(size=wanted), absorb=absorb)
    assert caught.value.hint


@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize("channels", [1, 4])
def test_a_key_for_other_channels_is_refused(channels: int, absorb: bool) -> None:
    with pytest.raises(LockError, match="the key does not fit") as caught:
        block_lock(settle(Patchify), SPEC, draw(channels=channels), absorb=absorb)
    assert caught.value.hint


def test_a_network_that_sees_no_difference_is_refused() -> None:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.mean((1, 2, 3)).view(-1, 1))

    with pytest.raises(LockError, match="differs from the original by only") as caught:
        block_lock(settle(Average), InputSpec(3, SIZE, SIZE), draw(("shf",)))
    assert caught.value.hint


def test_a_report_says_what_was_done() -> None:
    network = settle(Patchify)
    for absorb in (False, True):
        report = block_lock(network, SPEC, draw(), absorb=absorb).report
        assert report.blocks is not None
        assert (report.blocks.steps, report.blocks.block_size, report.blocks.absorbed) == (("shf", "np"), 4, absorb)
        assert report.blocks.log2_key_space == pytest.approx(202.9 + 44.9, abs=0.1)  # docs/locks.md, section 2
        assert (report.layers, report.code_bits, report.sealed_parameters) == ((), 0, 0)
        assert report.parameters == sum(parameter.numel() for parameter in network.parameters())
        assert json.loads(json.dumps(report.to_json()))["blocks"]["steps"] == ["shf", "np"]


def opened_in_part(locked: Locked, prefix: str) -> AbstractContextManager[Any]:
    """Open with right values of some gate tensors, and the locked defaults of the others."""
    values = locked.module.secret_values(locked.secret)
    some = {name: value for name, value in values.items() if name.startswith(prefix)}
    assert 0 < len(some) < len(values)
    return _Filled(locked, some)


class _Filled(AbstractContextManager[Any]):
    def __init__(self, locked: Locked, values: Mapping[str, torch.Tensor]) -> None:
        self.buffers = {name: locked.module.get_buffer(name) for name in values}
        self.values, self.before = values, {name: buffer.clone() for name, buffer in self.buffers.items()}

    def __enter__(self) -> None:
        for name, buffer in self.buffers.items():
            buffer.data.copy_(self.values[name])

    def __exit__(self, *_: object) -> None:
        for name, buffer in self.buffers.items():
            buffer.data.copy_(self.before[name])


def test_a_code_and_a_transform_open_together(combined: Locked) -> None:
    images = prepare(pixels(4), SPEC)
    expected = outputs_of(settle(Tokens), images)
    assert relative_error(outputs_with(combined, images), expected) <= EXACT
    assert relative_error(outputs_of(combined.module, images), expected) >= ANOTHER


@pytest.mark.parametrize("sealed_share", [0.0, 0.02])
def test_neither_of_two_secrets_opens_alone(sealed_share: float) -> None:
    network, images = settle(Tokens), prepare(pixels(4), SPEC)
    locked = lock(network, SPEC, blocks=draw(), absorb=True, sealed_share=sealed_share)
    expected = outputs_of(network, images)
    with opened_in_part(locked, "blocks."):
        assert relative_error(outputs_of(locked.module, images), expected) >= ANOTHER
    code = {name: value for name, value in locked.module.secret_values(locked.secret).items() if "blocks." not in name}
    with _Filled(locked, code):
        assert relative_error(outputs_of(locked.module, images), expected) >= ANOTHER
    other = locked.module.secret_with_code(locked.secret, -locked.secret.code)
    for secret in (other, replace(locked.secret, blocks=draw(seed=2))):
        assert relative_error(outputs_with(locked, images, secret), expected) >= ANOTHER
    assert relative_error(outputs_with(locked, images), expected) <= EXACT


@pytest.mark.parametrize("steps", [("shf", "np"), ("shf", "np", "ffx")], ids="+".join)
def test_a_code_lock_takes_a_network_trained_on_transformed_images(steps: tuple[str, ...]) -> None:
    network, key, images = settle(PaddedConvs), draw(steps), prepare(pixels(4), SPEC)
    locked = lock(network, SPEC, blocks=key)
    expected = outputs_of(network, as_shown(key.values(pixels(4)), SPEC))
    assert relative_error(outputs_with(locked, images), expected) <= EXACT
    assert relative_error(outputs_of(locked.module, images), expected) >= ANOTHER
    assert locked.report.blocks is not None and not locked.report.blocks.absorbed
    assert locked.report.code_bits == locked.secret.code.numel() == PATCH**2


def test_a_stem_may_be_gated_and_absorb_as_well() -> None:
    network, images = settle(Patchify), prepare(pixels(4), SPEC)
    locked = lock(network, SPEC, blocks=draw(), absorb=True, layers=["stem", "mix"], minimum_channels=1, sealed_share=0)
    assert relative_error(outputs_with(locked, images), outputs_of(network, images)) <= EXACT


def test_secrets_of_other_locks_do_not_fit(trained_on_blocks: Locked, combined: Locked) -> None:
    blocks, code = trained_on_blocks, lock(settle(Tokens), SPEC)
    wrong = [
        (blocks, combined.secret), (blocks, code.secret), (blocks, LockSecret.of_blocks(draw(size=8))),
        (blocks, LockSecret.of_blocks(draw(("shf", "np", "ffx")))), (combined, blocks.secret), (combined, code.secret),
        (combined, replace(combined.secret, blocks=None)), (code, combined.secret), (code, blocks.secret),
    ]  # fmt: skip
    for locked, secret in wrong:
        with pytest.raises(LockError, match="does not fit") as caught, locked.module.opened(secret):
            pass
        assert caught.value.hint
        locked.module.require_locked("look at")


def test_a_lock_without_a_code_has_no_near_codes(trained_on_blocks: Locked) -> None:
    with pytest.raises(LockError, match="has no code") as caught:
        trained_on_blocks.module.secret_with_code(trained_on_blocks.secret, torch.ones(64))
    assert caught.value.hint


def same_secret(first: LockSecret, second: LockSecret) -> bool:
    ours, theirs = first.to_arrays(), second.to_arrays()
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("which", ["trained_on_blocks", "absorbed", "combined"])
def test_a_secret_round_trips_through_a_vault(request: pytest.FixtureRequest, which: str, tmp_path: Path) -> None:
    locked: Locked = request.getfixturevalue(which)
    issuer = FileIssuerKey.generate()
    write_vault(tmp_path / "v", Vault({"lock": locked.secret.to_arrays()}), issuer=issuer)
    again = LockSecret.from_arrays(read_vault(tmp_path / "v", issuer=issuer).section("lock"))
    assert same_secret(again, locked.secret)
    assert not same_secret(again, replace(locked.secret, blocks=draw(seed=2)))
    images = prepare(pixels(2), SPEC)
    assert torch.equal(outputs_with(locked, images, again), outputs_with(locked, images))


@pytest.mark.parametrize("name", ["permutation", "negated", "encrypted", "table", "steps", "size"])
def test_a_vault_that_lacks_a_part_of_the_key_is_refused(trained_on_blocks: Locked, name: str) -> None:
    arrays = trained_on_blocks.secret.to_arrays()
    del arrays[f"blocks.{name}"]
    with pytest.raises(FormatError) as caught:
        LockSecret.from_arrays(arrays)
    assert caught.value.hint


@pytest.mark.parametrize("show", [repr, str, "{}".format])
def test_showing_a_lock_shows_nothing_of_its_key(combined: Locked, show: Callable[[object], str]) -> None:
    for shown in (show(combined), show(combined.secret)):
        assert "shf+np" in shown
        assert "tensor(" not in shown
