"""What a device remembers, and the rules by which it judges; nothing in this file reads or writes.

A record holds four marks: the latest moment that certainly was (`high_water`, by this machine's clock), the latest that
an issuer signed for (`signed_floor`), the newest revocation list (`list_seq`), the newest license of each model
(`seqs`). Judging a license:

    1. The clock stands at most the leeway before what is known to have passed: the high-water mark, the signed floor,
       the issuing of this license and of this list. Small steps back are a clock being set right by NTP.
    2. The list is not older than the newest one seen.
    3. The license is not older than the newest one seen for its model; and there is room for its model.
    4. Now is the latest of the clock and of all that 1 names. Within the leeway too, time does not run twice.

Remembering only ever raises marks. One thing lowers one: a time token lowers the high-water mark, which a clock that
once ran ahead may have put too far, and never below the signed floor.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from keylatch.errors import (
    ClockError,
    ClockSetBackError,
    DeviceStateError,
    OlderLicenseError,
    OlderRevocationListError,
)
from keylatch.keys._claims import MAX_SEQ, Claims
from keylatch.keys._clock import MAX_TIME, format_duration, format_time
from keylatch.keys._encoding import encode_base64url
from keylatch.keys._revocations import RevocationList
from keylatch.keys._time_token import TimeToken
from keylatch.keys._value_rules import HEX_DIGEST, NONCE, THUMBPRINT, TIME, check_values, whole_number

# Models whose newest license is remembered. 100 KB of state, and more models than one device runs.
MAX_MODELS = 1024
# What NTP steps without asking is well below; what a license gains by it is nothing, see rule 4.
CLOCK_LEEWAY_SECONDS = 300
MAX_LEEWAY_SECONDS = 86_400
# The mark is written once an hour, as flash and a TPM's memory wear with every write. The price: up to an hour that has
# passed since the last write can be had again, by ending the process and setting the clock back.
HIGH_WATER_STEP_SECONDS = 3600
# How long a time token may travel.
MAX_TOKEN_AGE_SECONDS = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecord:
    """The marks, and what ties them to a device, a moment of writing and a counter.

    Args:
        device: Thumbprint of the device key.
        nonce: 32 random bytes in base64url, new with every write; time tokens answer it.
        high_water: The latest moment that was seen, seconds since the epoch.
        signed_floor: The latest moment at which something was signed that this device took.
        list_seq: `seq` of the newest revocation list, 0 before the first.
        seqs: Model id to the largest `seq` of a license that opened it.
        counter: The counter's count that belongs to this record; None without a counter.

    Raises:
        FormatError: A value of another type or out of its range.
    """

    device: str
    nonce: str
    high_water: int
    signed_floor: int
    list_seq: int
    seqs: Mapping[str, int]
    counter: int | None

    def __post_init__(self) -> None:
        check_values(self.values(), _RULES, "device state", hint="see the issuer about this device")

    def values(self) -> dict[str, Any]:
        """Returns the members by name, as they stand in the file."""
        return {member.name: getattr(self, member.name) for member in fields(self)}


def new_record(device: str, count: int | None, *, now: int) -> StateRecord:
    """Returns the record of a device that has seen nothing yet."""
    return StateRecord(
        device=device,
        nonce=new_nonce(),
        high_water=_bounded(now),
        signed_floor=0,
        list_seq=0,
        seqs={},
        counter=count,
    )


def new_nonce() -> str:
    """Returns 32 random bytes in base64url."""
    return encode_base64url(secrets.token_bytes(32))


def judge(
    record: StateRecord, claims: Claims, revocations: RevocationList | None, *, now: int, leeway_seconds: int
) -> int:
    """Judges a license and a list by what is remembered, with the rules on top of this file.

    Returns:
        The moment that counts as now, seconds since the epoch.

    Raises:
        ClockSetBackError: The clock stands before what has passed (1).
        OlderRevocationListError: A newer list was seen (2).
        OlderLicenseError: A newer license was seen for this model (3).
        DeviceStateError: No room for another model (3).
    """
    # 1. The clock.
    signed = _signed_moment(record, claims, revocations)
    _check_clock(record.high_water, signed, now, leeway_seconds)
    # 2. The list.
    if revocations is not None:
        _check_list(record, revocations)
    # 3. The license.
    _check_license(record, claims)
    # 4. The moment.
    return max(now, record.high_water, signed)


def judge_list(record: StateRecord, revocations: RevocationList, *, now: int, leeway_seconds: int) -> None:
    """Judges a list alone, by rules 1 and 2.

    Raises:
        ClockSetBackError: The clock stands before what has passed.
        OlderRevocationListError: A newer list was seen.
    """
    _check_clock(record.high_water, _signed_moment(record, None, revocations), now, leeway_seconds)
    _check_list(record, revocations)


def raise_marks(
    record: StateRecord, claims: Claims | None, revocations: RevocationList | None, *, now: int
) -> StateRecord:
    """Returns the record with its marks raised to what was seen now."""
    seqs = dict(record.seqs)
    if claims is not None:
        seqs[claims.model_id] = max(claims.seq, seqs.get(claims.model_id, 0))
    return replace(
        record,
        high_water=max(record.high_water, _bounded(now)),
        signed_floor=_signed_moment(record, claims, revocations),
        list_seq=record.list_seq if revocations is None else max(record.list_seq, revocations.seq),
        seqs=seqs,
    )


def is_worth_writing(old: StateRecord, new: StateRecord) -> bool:
    """Whether a signed fact is new, or the high-water mark went on by `HIGH_WATER_STEP_SECONDS` or more."""
    advanced_seconds = new.high_water - old.high_water
    return advanced_seconds >= HIGH_WATER_STEP_SECONDS or replace(new, high_water=old.high_water) != old


def set_time(record: StateRecord, token: TimeToken, *, now: int, leeway_seconds: int) -> StateRecord:
    """Returns the record with the high-water mark where a time token puts it.

    Raises:
        ClockError: This machine's clock does not agree with the token, so that the next check would fail or the mark
            would be lost again.
    """
    if now < token.issued_at - leeway_seconds or now > token.issued_at + MAX_TOKEN_AGE_SECONDS:
        distance = format_duration(abs(now - token.issued_at))
        side = "before" if now < token.issued_at else "after"
        found = f"clock stands {distance} {side} the time token's {format_time(token.issued_at)}"
        hint = "set this machine's clock first; if it is right, make a new time request and use its answer within a day"
        raise ClockError(found, hint=hint)
    return replace(record, high_water=max(token.issued_at, record.signed_floor))


def _signed_moment(record: StateRecord, claims: Claims | None, revocations: RevocationList | None) -> int:
    return max(record.signed_floor, *(part.issued_at for part in (claims, revocations) if part is not None), 0)


def _check_clock(high_water: int, signed: int, now: int, leeway_seconds: int) -> None:
    mark = max(high_water, signed)
    if now >= mark - leeway_seconds:
        return
    found = f"clock stands {format_duration(mark - now)} before {format_time(mark)}, a moment that has passed"
    hint = "set this machine's clock"
    if now >= signed - leeway_seconds:  # no token helps against what an issuer signed
        hint += "; if it is right and ran ahead before, ask the issuer for a time token"
    raise ClockSetBackError(found, hint=hint)


def _check_list(record: StateRecord, revocations: RevocationList) -> None:
    if revocations.seq < record.list_seq:
        found = f"revocation list has seq {revocations.seq}, and this device has seen seq {record.list_seq}"
        raise OlderRevocationListError(found, hint="give the newest list that the issuer published")


def _check_license(record: StateRecord, claims: Claims) -> None:
    newest = record.seqs.get(claims.model_id)
    if newest is None and len(record.seqs) >= MAX_MODELS:
        # Forgetting the oldest instead would let its old licenses in again.
        found = f"device state remembers {MAX_MODELS} models, and holds no more"
        raise DeviceStateError(found, hint="use another device state for further models")
    if newest is not None and claims.seq < newest:
        found = f"license has seq {claims.seq}, and this device has seen seq {newest} for its model"
        raise OlderLicenseError(found, hint="give the newest license that the issuer sent")


def _bounded(now: int) -> int:
    return min(max(now, 0), MAX_TIME)


def _is_seqs(value: object) -> bool:
    if not isinstance(value, Mapping) or len(value) > MAX_MODELS:
        return False
    return all(HEX_DIGEST[0](model_id) and _SEQ[0](seq) for model_id, seq in value.items())


_SEQ = whole_number(1, MAX_SEQ)
# 2**63: what fits a TPM's counter and strict JSON.
_COUNT = whole_number(0, 2**63 - 1)
_RULES: dict[str, Any] = {
    "device": THUMBPRINT,
    "nonce": NONCE,
    "high_water": TIME,
    "signed_floor": TIME,
    "list_seq": whole_number(0, MAX_SEQ),
    "seqs": (_is_seqs, f"at most {MAX_MODELS} model ids, each with a seq"),
    "counter": (lambda value: value is None or _COUNT[0](value), f"null or {_COUNT[1]}"),
}
