"""The lock `domains`: a network that works on its own domain only, until a license pays for others.

MAP (arXiv 2403.04149) finds for each unauthorized domain a mask of weights without which the network fails there and
still works on its source. The file has zeros in their places; a license brings back the weights that no unpaid domain's
mask covers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from keylatch.errors import LockError
from keylatch.locks._capture import capture, drop_unused
from keylatch.locks._gate_sites import multiply_adds_of
from keylatch.locks._input_spec import InputSpec
from keylatch.locks._lock_proof import CHECK_IMAGES, device_of, images_for, prove
from keylatch.locks._locked import Locked
from keylatch.locks._locked_module import LockedModule
from keylatch.locks._report import LockReport
from keylatch.locks._sealing import find_layers
from keylatch.locks._secret import LockSecret
from keylatch.locks._withheld._domain_masks import Masks, check_masks, mask_overlaps, merged_masks
from keylatch.locks._withheld._part import Part
from keylatch.locks._withheld._parts import Parts
from keylatch.locks._withheld._report import DomainReport
from keylatch.locks._withheld._sealed_places import SealedPlace, sealed_places
from keylatch.locks._withheld._stand_ins import require_usable


def domain_lock(model: nn.Module | torch.export.ExportedProgram | Locked, spec: InputSpec, masks: Masks) -> Locked:
    """Withhold the weights that the masks of some domains cover, so that each domain needs a license that pays for it.

    Args:
        model: The original network, unmasked: a module in evaluation mode whose forward takes one image batch, its
            exported program, or what `code_lock` made of it. Behind a code lock nothing works without a license; else
            the source domain does. It is copied, not changed.
        spec: Size and value range of its images.
        masks: Domain to parameter name to bool of the parameter's shape, True where the weight is withheld. Parameters
            without a mask may be left out. At most `MAX_DOMAINS` domains.

    Returns:
        The locked module, whose weights are zero wherever any mask covers them; its secret, whose `for_domains` is
        what a license for some domains brings; a report, with how far the masks overlap.

    Raises:
        LockError: Bad names, too many domains, a domain without a weight, a mask that fits no parameter, or one on a
            layer that a code lock gates.
    """
    check_masks(masks)
    base = model if isinstance(model, Locked) else _unlocked(model, spec)
    module, report = copy.deepcopy(base.module), base.report
    if module.withheld.parts:
        raise LockError(
            "the network withholds weights already", hint="give the original network, or one with a code lock"
        )
    sealed = sealed_places(module, report.sealed_names)
    merged = merged_masks(masks)
    _require_known(module, merged, sealed)
    merged = _telling(module, merged)
    if not merged and not any(name in sealed for own in masks.values() for name in own):
        raise LockError("the masks cover weights that are zero already", hint="give masks of the original network")
    shown = [name for name, _ in module.body.named_parameters() if name in merged]
    parts = Parts("domains", tuple(Part.of_mask(name, merged[name]) for name in shown), tuple(sorted(masks)))
    require_usable(module.body, parts.parts)
    images = images_for(spec, None)[:CHECK_IMAGES].to(device_of(module.body))
    reference = _opened(module, base.secret, images)
    originals = tuple(value.float().cpu() for value in parts.read(module.body).values())
    members = {name: _members(masks[name], parts.parts, base.secret, sealed) for name in sorted(masks)}
    secret = replace(base.secret, withheld=originals, domains=members)
    module.withheld = parts
    _take_away(module, merged)
    # What a mask changes is for the domain's own images to say, not for made ones: any difference will do.
    least = 0.0 if module.gate is None and module.blocks is None else None
    opened, locked = prove(module, secret, images, reference, least_difference=least)
    facts = DomainReport(parts.domains, tuple(_weights(members[name]) for name in parts.domains), mask_overlaps(masks))
    report = replace(report, unlocked_error=max(opened, report.unlocked_error), locked_difference=locked, domains=facts)
    return Locked(module, secret, report)


def _unlocked(model: nn.Module | torch.export.ExportedProgram, spec: InputSpec) -> Locked:
    graph, outputs = capture(model, spec)
    parameters = sum(layer.parameters for layer in find_layers(graph))
    report = LockReport((), 0, 0.0, multiply_adds_of(graph), 0.0, 0.0, parameters)
    module = LockedModule(spec, drop_unused(graph), outputs)
    module.requires_grad_(True)
    return Locked(module, LockSecret.of_parts(()), report)


def _opened(module: LockedModule, secret: LockSecret, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad(), module.opened(secret):
        return [output.clone() for output in module.flat(images)]


def _require_known(module: LockedModule, merged: Mapping[str, torch.Tensor], sealed: Mapping[str, SealedPlace]) -> None:
    gated = {name for name, _ in (() if module.description is None else module.description.layers)}
    shapes = {name: tuple(value.shape) for name, value in module.body.named_parameters()}
    shapes |= {name: place.shape for name, place in sealed.items()}
    for name, mask in merged.items():
        if name not in shapes:
            raise LockError(
                f"the network has no parameter {name!r:.80} to mask",
                hint="name masks as in named_parameters(); a code lock folds normalizations away, and their parameters",
            )
        if tuple(mask.shape) != shapes[name]:
            raise LockError(
                f"the mask of {name} has shape {tuple(mask.shape)}, expected {shapes[name]}",
                hint="give one bool for each weight",
            )
        if name in gated:
            raise LockError(
                f"a code lock gates {name}, and its centering would put back what a mask takes away",
                hint="gate other layers with layers=[...], or leave this one out of the masks",
            )


def _take_away(module: LockedModule, merged: Mapping[str, torch.Tensor]) -> None:
    """Put zeros in the places of the masks; of a part that is the whole tensor the other weights stay."""
    for part in module.withheld.parts:
        value = module.body.get_parameter(part.parameter)
        value.data.masked_fill_(merged[part.parameter].to(value.device), 0)


def _telling(module: LockedModule, merged: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The masks of what the file still has, without weights that are zero anyway: nothing has to bring those."""
    weights = {name: value.detach().cpu() for name, value in module.body.named_parameters()}
    found = {name: mask & (weights[name] != 0) for name, mask in merged.items() if name in weights}
    return {name: mask for name, mask in found.items() if bool(mask.any())}


def _members(
    masks: Mapping[str, torch.Tensor],
    parts: tuple[Part, ...],
    secret: LockSecret,
    sealed: Mapping[str, SealedPlace],
) -> tuple[torch.Tensor, ...]:
    """Where a domain's masks cover sealed layers, and then the parts."""
    covered = [torch.zeros(value.shape, dtype=torch.bool) for value in secret.sealed]
    for name, place in sealed.items():
        if name in masks:
            covered[place.index] |= place.moved(masks[name].detach().cpu().bool())
    for part in parts:
        nothing = torch.zeros(part.full_shape, dtype=torch.bool)
        covered.append(part.read(masks.get(part.parameter, nothing).detach().cpu().bool()))
    return tuple(covered)


def _weights(members: tuple[torch.Tensor, ...]) -> int:
    return sum(int(mask.sum()) for mask in members)
