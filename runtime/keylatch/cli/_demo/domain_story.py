"""The steps of the demo of domains: train, mask, lock, export, one license for each choice of domains, run them all."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from torch import nn

from keylatch.cli._demo.digit_domains import DigitDomain
from keylatch.cli._demo.domain_training import SPEC
from keylatch.cli._session import session_options
from keylatch.exporters import Exported, export, export_plain
from keylatch.keys import FileDeviceKey, FileIssuerKey, Vault, current_time, issue_license, write_license, write_vault
from keylatch.locks import DomainMasks, domain_lock
from keylatch.runtime import InferenceSession, values_to_license

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

NO_LICENSE, ORIGINAL = "no license", "original network"
_YEAR_SECONDS = 365 * 86_400


@dataclass(slots=True)
class DomainStory:
    """What the demo made and measured.

    Attributes:
        folder: Where everything lies.
        seconds: Step to time taken.
        accuracy: License, or `NO_LICENSE`, or `ORIGINAL`, to domain to top-1 accuracy in percent on its test images.
        license_bytes: Size of each license.
        largest_difference: Between the outputs with all domains licensed and the original's in plain onnxruntime, as a
            share of their range.
        withheld: Domain to the share of the weights that its mask withholds.
    """

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    license_bytes: dict[str, int] = field(default_factory=dict)
    largest_difference: float = 0.0
    withheld: dict[str, float] = field(default_factory=dict)

    def timed(self, step: str, work: Callable[[], Any]) -> Any:
        """Do a step and note how long it took."""
        start = time.perf_counter()
        result = work()
        self.seconds[step] = round(time.perf_counter() - start, 3)
        return result


def tell(story: DomainStory, network: nn.Module, masks: DomainMasks, domains: Mapping[str, DigitDomain]) -> None:
    """Do everything after the learning; fills `story`."""
    folder = story.folder
    locked = story.timed("lock", lambda: domain_lock(network, SPEC, masks.masks))
    exported: Exported = story.timed(
        "export", lambda: export(locked.module, locked.secret, folder / "digits.latch", report=locked.report)
    )
    plain = export_plain(network, SPEC, folder / "plain")
    story.withheld = {domain.name: domain.share for domain in masks.report.domains}
    issuer = _write_keys(folder, exported, locked.secret.to_arrays())
    sessions = {NO_LICENSE: InferenceSession.locked(folder / "digits.latch", session_options(None))}
    for paid in choices(list(domains)[1:]):
        path = folder / f"{'+'.join(paid)}.license"
        _issue(path, issuer, exported, paid)
        story.license_bytes[name_of(paid)] = path.stat().st_size
        sessions[name_of(paid)] = _opened(folder, path)
    sessions[ORIGINAL] = onnxruntime.InferenceSession(
        str(plain), session_options(None), providers=["CPUExecutionProvider"]
    )
    story.accuracy = {
        name: {domain: _accuracy(session, data) for domain, data in domains.items()}
        for name, session in sessions.items()
    }
    full = sessions[name_of(tuple(list(domains)[1:]))]
    story.largest_difference = max(_difference(full, sessions[ORIGINAL], data) for data in domains.values())


def choices(targets: list[str]) -> list[tuple[str, ...]]:
    """Every set of domains that can be paid for, small ones first."""
    sizes = range(1, len(targets) + 1)
    return [paid for size in sizes for paid in itertools.combinations(targets, size)]


def name_of(paid: tuple[str, ...]) -> str:
    """A license's name."""
    return "license for " + " + ".join(paid)


def _write_keys(folder: Path, exported: Exported, secret: dict[str, Any]) -> FileIssuerKey:
    issuer = FileIssuerKey.generate()
    issuer.save(folder / "issuer.key")
    issuer.public.save(folder / "issuer.pub")
    FileDeviceKey.generate(folder / "device.key").public.save(folder / "device.pub")
    vault = Vault({"lock": secret, exported.model_id: dict(exported.secret_values)})
    write_vault(folder / "digits.secret", vault, issuer=issuer)
    return issuer


def _issue(path: Path, issuer: FileIssuerKey, exported: Exported, paid: tuple[str, ...]) -> None:
    now = current_time()
    license = issue_license(
        issuer=issuer,
        devices=[FileDeviceKey.load(path.parent / "device.key").public],
        model_id=exported.model_id,
        secret_values=values_to_license(exported.secret_values, paid),
        customer="acme",
        not_before=now,
        expires_at=now + _YEAR_SECONDS,
        domains=paid,
    )
    write_license(path, license)


def _opened(folder: Path, license: Path) -> InferenceSession:
    return InferenceSession(
        folder / "digits.latch",
        session_options(None),
        license=license,
        key=f"file:{folder / 'device.key'}",
        trust=folder / "issuer.pub",
    )


def _outputs(session: Any, domain: DigitDomain) -> Array:
    images = (domain.test_images.float() / 255).numpy()
    outputs: Array = np.asarray(session.run(None, {"image": images})[0])
    return outputs


def _accuracy(session: Any, domain: DigitDomain) -> float:
    right = _outputs(session, domain).argmax(1) == domain.test_labels.numpy()
    return round(float(right.mean() * 100), 2)


def _difference(first: Any, second: Any, domain: DigitDomain) -> float:
    ours, theirs = _outputs(first, domain), _outputs(second, domain)
    return float(np.abs(ours - theirs).max() / np.ptp(theirs))
