"""What opens a model, loaded from paths, URIs, bytes or objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Self, TypeAlias

from keylatch.errors import InputError, LicenseRequiredError
from keylatch.keys import (
    AnyDeviceKey,
    DeviceState,
    IssuerPublicKey,
    License,
    MonotonicCounter,
    PassphraseCallback,
    RevocationList,
    Trust,
    keep_out_of_core_dumps,
    open_counter,
    open_device_key,
    parse_license,
    read_license,
    read_revocation_list,
    verify_revocation_list,
)

LicenseSource: TypeAlias = str | PathLike[str] | bytes | License
TrustSource: TypeAlias = str | PathLike[str] | IssuerPublicKey | Trust
KeySource: TypeAlias = str | PathLike[str] | AnyDeviceKey
RevocationsSource: TypeAlias = str | PathLike[str] | bytes
StateSource: TypeAlias = str | PathLike[str] | DeviceState
CounterSource: TypeAlias = str | MonotonicCounter


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sources:
    """What the caller gave, as he gave it; None where nothing."""

    license: LicenseSource | None = None
    key: KeySource | None = None
    trust: TrustSource | Sequence[TrustSource] | None = None
    passphrase: PassphraseCallback | None = None
    revocations: RevocationsSource | None = None
    state: StateSource | None = None
    counter: CounterSource | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Credentials:
    """What opens a model: the license, the device key, trusted keys; what limits it: a list, the device's memory.

    Args:
        key: The device key while it is needed; None afterwards.
        key_source: Where it came from, to open it again for a renewal.
    """

    license: License
    key: AnyDeviceKey | None
    key_source: KeySource
    passphrase: PassphraseCallback | None
    trust: Trust
    revocations: RevocationList | None
    state: DeviceState | None

    @classmethod
    def load(cls, sources: Sources) -> Self:
        """Loads everything.

        Raises:
            LicenseRequiredError: The license, key or trust is missing.
            InputError: A counter that no state goes with.
            KeylatchError: Something cannot be read; each cause has its own error.
        """
        license, source, trust = sources.license, sources.key, sources.trust
        if license is None or source is None or trust is None:
            missing = "license" if license is None else "device key" if source is None else "trusted issuer"
            raise LicenseRequiredError(
                f"this model is locked and no {missing} was given",
                hint="give license=, key= and trust=; InferenceSession.locked(path) runs the locked model on purpose",
            )
        if sources.counter is not None and not isinstance(sources.state, (str, PathLike)):
            # Left out silently, it would look like protection.
            found = "counter= was given, and no path to the state that it was made with"
            raise InputError(found, hint="give state= as a path, or give the counter to DeviceState.open")
        keep_out_of_core_dumps()
        # 1. Bound sizes, parse the frame.
        parsed, trusted = load_license(license), load_trust(trust)
        listed = None if sources.revocations is None else load_revocations(sources.revocations, trusted)
        key = _load_key(source, sources.passphrase)
        return cls(
            license=parsed,
            key=key,
            key_source=source,
            passphrase=sources.passphrase,
            trust=trusted,
            revocations=listed,
            state=None if sources.state is None else _load_state(sources.state, key, sources.counter),
        )

    def open_key(self) -> AnyDeviceKey:
        """Returns the device key, opening it again if need be.

        Raises:
            DeviceKeyError: The key cannot be used.
        """
        return _load_key(self.key_source, self.passphrase) if self.key is None else self.key

    def without_key(self) -> Self:
        """Returns these credentials for keeping: a key named by a URI is not held in memory between openings."""
        return replace(self, key=None)

    def with_license(self, license: LicenseSource | None, revocations: RevocationsSource | None) -> Self:
        """Returns these credentials with another license, another revocation list, or both.

        Raises:
            KeylatchError: As for loading.
        """
        parsed = self.license if license is None else load_license(license)
        listed = self.revocations if revocations is None else load_revocations(revocations, self.trust)
        return replace(self, license=parsed, revocations=listed)


def load_license(source: LicenseSource) -> License:
    """Reads a license from a path, or takes it."""
    if isinstance(source, License):
        return source
    return parse_license(source) if isinstance(source, bytes) else read_license(Path(source))


def load_trust(source: TrustSource | Sequence[TrustSource]) -> Trust:
    """Reads trusted keys from paths, or takes them."""
    if isinstance(source, Trust):
        return source
    if isinstance(source, IssuerPublicKey):
        return Trust((source,))
    return Trust.load(Path(source)) if isinstance(source, (str, PathLike)) else Trust.merge(map(load_trust, source))


def load_revocations(source: RevocationsSource, trust: Trust) -> RevocationList:
    """Reads a revocation list from a path or bytes, and verifies it.

    Raises:
        SignatureError: Not signed by a present key of `trust`.
        FormatError: Missing, too large, or no revocation list.
    """
    data = source if isinstance(source, bytes) else read_revocation_list(Path(source))
    return verify_revocation_list(data, trust)


def _load_key(source: KeySource, passphrase: PassphraseCallback | None) -> AnyDeviceKey:
    return open_device_key(fspath(source), passphrase=passphrase) if isinstance(source, (str, PathLike)) else source


def _load_state(source: StateSource, key: AnyDeviceKey, counter: CounterSource | None) -> DeviceState:
    if isinstance(source, DeviceState):
        return source
    return DeviceState.open(Path(source), key, open_counter(counter) if isinstance(counter, str) else counter)
