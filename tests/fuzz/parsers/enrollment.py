"""Enrollment requests: every fact in an accepted one is the device's own."""

from __future__ import annotations

import json

from fuzz.attempts import REFUSED, attempt, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_json
from fuzz.originals import DEVICE, original
from fuzz.token_mutations import unpadded
from keylatch.errors import EnrollmentError, FormatError
from keylatch.keys import canonical_json
from keylatch.keys._enrollment import _CONTEXT, parse_enrollment_request

_REQUESTS = [original(name) for name in ("enrollment.json", "enrollment.other.json")]
_ORIGINALS = [parse_enrollment_request(data) for data in _REQUESTS]
_ERRORS = (EnrollmentError, FormatError)


def parse(data: bytes) -> None:
    request = attempt(parse_enrollment_request, data, errors=_ERRORS)
    # White space may differ, and an ECDSA signature has a twin: what it says may not.
    require(request is REFUSED or request in _ORIGINALS, "a request that no device signed")


def parse_changed(data: bytes) -> None:
    source = ByteSource(data)
    edit = source.choose((changed, changed_json, changed_json))
    parse(edit(source, source.choose(_REQUESTS), source.choose(_REQUESTS)))


def parse_signed(data: bytes) -> None:
    """Changed, and signed by the device: what it signs may be malformed."""
    source = ByteSource(data)
    members = {name: value for name, value in json.loads(_REQUESTS[0]).items() if name != "proof"}
    try:
        edited = json.loads(changed_json(source, canonical_json(members), _REQUESTS[1]))
        proof = DEVICE.prove_possession(_CONTEXT + canonical_json(edited))
    except (ValueError, RecursionError):
        return
    if isinstance(edited, dict):
        signed = {**edited, "proof": unpadded(proof).decode()}
        request = attempt(parse_enrollment_request, json.dumps(signed).encode(), errors=_ERRORS)
        if request is not REFUSED:
            require(request.public == DEVICE.public, "another device's request")
            require(dict(request.facts) == edited["facts"], "facts change when they are read")


HARNESS = Harness(
    attacks=(parse, parse_changed, parse_signed),
    seeds=(tuple(_REQUESTS), DECISIONS, DECISIONS),
    words=(b'"facts"', b'"proof"', b'"created_at"', b'"thumbprint"', b'"public_key"', b'"enrollment/1"', b"A" * 86),
)
