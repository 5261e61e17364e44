"""What the license verbs print: the facts of a license, from its file or from the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from keylatch.cli._output import print_facts, print_json
from keylatch.keys import (
    LedgerEntry,
    UnverifiedClaims,
    format_duration,
)

_TIMES = ("issued_at", "not_before", "expires_at", "revoked_at")


def print_claims(claims: UnverifiedClaims, *, as_json: bool, extra: dict[str, str]) -> None:
    """Print what a license says."""
    facts: dict[str, Any] = {
        **extra,
        "customer": claims.customer,
        "model_id": claims.model_id,
        "issuer": claims.issuer,
        "license_id": claims.license_id,
        "seq": claims.seq,
        "devices": list(claims.devices),
        "issued_at": claims.issued_at,
        "not_before": claims.not_before,
        "expires_at": claims.expires_at,
        "max_list_age": claims.max_list_age,
        "cosigned": claims.cosignature_sha256 is not None,
        "domains": None if claims.domains is None else list(claims.domains),
    }
    print_license(facts, as_json=as_json)


def entry_facts(entry: LedgerEntry, now: int) -> dict[str, Any]:
    """What the ledger knows of a license, for a program."""
    return {
        "license_id": entry.license_id,
        "seq": entry.seq,
        "state": entry.state(now),
        "model": entry.model_name,
        "model_id": entry.model_id,
        "customer": entry.customer,
        "issuer": entry.issuer,
        "devices": list(entry.devices),
        "issued_at": entry.issued_at,
        "not_before": entry.not_before,
        "expires_at": entry.expires_at,
        "max_list_age": entry.max_list_age,
        "renews": entry.renews,
        "revoked_at": entry.revoked_at,
        "reason": entry.reason,
        "sha256": entry.sha256,
    }


def print_license(facts: dict[str, Any], *, as_json: bool) -> None:
    """Print facts of a license, one a line; times and durations for people, and nothing for what is not so."""
    if as_json:
        print_json(facts)
    else:
        print_facts((name, _readable(name, value)) for name, value in facts.items() if value not in (None, ""))


def _readable(name: str, value: Any) -> str:
    if name in _TIMES:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if name == "max_list_age":
        return f"{format_duration(value)}: opens only with a revocation list at most this old"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "domains":
        return ", ".join(value) or "none: the source domain only"
    return "\n".join(value) if isinstance(value, list) else str(value)
