"""Domains: which withheld weights a license brings back, out of a model's section of the vault.

The section holds all withheld values, and for each domain the places that its mask withholds. A license carries each
value that no unpaid domain's mask covers, and zero for the others. What an opened model answers depends on the domains,
so the section has a known answer for each choice of them (docs/decisions/0016).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from keylatch.errors import FormatError
from keylatch.keys._tensors import Array

DOMAIN, ANSWER_OF = "domain.", "known_answer_of."
KNOWN_ANSWER = "known_answer."
DOMAIN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def domains_of(section: Mapping[str, Array]) -> tuple[str, ...]:
    """Names of the domains of a model, sorted; () if it has none."""
    return tuple(sorted({name.split(".")[1] for name in section if name.startswith(DOMAIN)}))


def for_domains(section: Mapping[str, Array], paid: Collection[str]) -> dict[str, Array]:
    """A model's section of the vault as a license for some domains needs it: without masks, and with one known answer.

    Args:
        section: Secret values by gate tensor name, and the rest; of a model without domains it comes back as it is.
        paid: The domains that the license is for; () leaves the source domain, or what another lock leaves.

    Raises:
        FormatError: The model has no such domain, or the vault no known answer for this choice.
    """
    names = domains_of(section)
    _require_domains(names, paid)
    values = {name: value for name, value in section.items() if not name.startswith((DOMAIN, ANSWER_OF))}
    for name, mask in section.items():
        domain, _, gate = name.removeprefix(DOMAIN).partition(".")
        if name.startswith(DOMAIN) and domain not in paid:
            values[gate] = np.where(mask, np.zeros((), values[gate].dtype), values[gate])
    return values | _known_answer(section, names, paid) if set(paid) != set(names) else values


def domain_section(
    masks: Mapping[str, Mapping[str, Array]], answers: Mapping[frozenset[str], Mapping[str, Array]]
) -> dict[str, Array]:
    """What a model's section of the vault holds of its domains.

    Args:
        masks: Domain to gate tensor name to bool of its shape, True where the domain's mask withholds a value.
        answers: For each choice of paid domains but all of them, its known answer, as `KNOWN_ANSWER` names it.
    """
    names = sorted(masks)
    members = {f"{DOMAIN}{domain}.{gate}": mask for domain in names for gate, mask in masks[domain].items()}
    for paid, answer in answers.items():
        prefix = _prefix(names, paid)
        members |= {prefix + name.removeprefix(KNOWN_ANSWER): value for name, value in answer.items()}
    return members


def _prefix(names: Sequence[str], paid: Collection[str]) -> str:
    """What the names of a choice's known answer start with; bit i of its number: whether the i-th name is paid for."""
    return f"{ANSWER_OF}{sum(1 << index for index, name in enumerate(names) if name in paid)}."


def _known_answer(section: Mapping[str, Array], names: Sequence[str], paid: Collection[str]) -> dict[str, Array]:
    prefix = _prefix(names, paid)
    found = {
        KNOWN_ANSWER + name.removeprefix(prefix): value for name, value in section.items() if name.startswith(prefix)
    }
    if not found:
        raise FormatError(
            "the vault has no known answer for this choice of domains",
            hint="give the vault that this model was exported with",
        )
    return found


def _require_domains(names: Sequence[str], paid: Collection[str]) -> None:
    unknown = sorted(set(paid) - set(names))
    if unknown:
        raise FormatError(
            f"this model has no domain {unknown[0]!r:.40}",
            hint=f"its domains are {', '.join(names)}" if names else "it has no domains; leave them out",
        )
