"""What locking gives."""

from __future__ import annotations

from dataclasses import dataclass

from keylatch.locks._locked_module import LockedModule
from keylatch.locks._report import LockReport
from keylatch.locks._secret import LockSecret


@dataclass(frozen=True, slots=True)
class Locked:
    """A locked network.

    Attributes:
        module: The locked module; evaluate it with `module.opened(secret)`.
        secret: What opens it. Keep it in a vault.
        report: What was done and what it guarantees.
    """

    module: LockedModule
    secret: LockSecret
    report: LockReport
