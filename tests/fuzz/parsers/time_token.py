"""Time requests and the tokens that answer them."""

from __future__ import annotations

from fuzz.attempts import REFUSED, attempt, must_refuse, require
from fuzz.byte_source import ByteSource
from fuzz.harnesses import DECISIONS, Harness
from fuzz.mutations import changed, changed_json
from fuzz.originals import FOREIGN_ISSUER, ISSUER, TRUST, original
from fuzz.token_mutations import changed_token, decoded, unpadded
from keylatch.errors import ClockError, FormatError, SignatureError
from keylatch.keys import parse_license
from keylatch.keys._time_token import parse_time_request, verify_time_token

_REQUESTS = [original(name) for name in ("time.request", "time.other.request")]
_TOKENS = [original(name) for name in ("time.token", "time.other.token")]
_REQUEST = parse_time_request(_REQUESTS[0])
# An original that is refused would make every refusal worthless.
_VERIFIED = verify_time_token(_TOKENS[0], TRUST, _REQUEST)
# Other things that the same issuer signed.
_FOREIGN_TYPES = [parse_license(original("license")).jwt, original("revocations").partition(b"\n")[0]]
_ERRORS = (ClockError, FormatError, SignatureError)


def verify(data: bytes) -> None:
    must_refuse(attempt(verify_time_token, data, TRUST, _REQUEST, errors=_ERRORS), data, _TOKENS[:1])


def verify_changed(data: bytes) -> None:
    source = ByteSource(data)
    verify(changed_token(source, source.choose(_TOKENS), source.choose(_TOKENS + _FOREIGN_TYPES)))


def verify_signed(data: bytes) -> None:
    """What the real issuer states, changed."""
    source = ByteSource(data)
    (header, payload, _), other = source.choose(_TOKENS).split(b"."), source.choose(_TOKENS + _FOREIGN_TYPES)
    stated = changed_json(source, decoded(payload), decoded(other.split(b".")[1]))
    if source.below(8) == 0:
        header = other.split(b".")[0]
    signer = FOREIGN_ISSUER if source.below(8) == 7 else ISSUER
    signed = header + b"." + unpadded(stated)
    token = attempt(verify_time_token, signed + b"." + unpadded(signer.sign(signed)), TRUST, _REQUEST, errors=_ERRORS)
    if token is not REFUSED:
        require(signer is ISSUER and token.issuer == ISSUER.public.thumbprint, "a foreign issuer's time was accepted")
        require(_REQUEST.nonce.encode() in stated or b"\\" in stated, "a token for another request was accepted")


def parse_request(data: bytes) -> None:
    request = attempt(parse_time_request, data, errors=FormatError)
    if request is not REFUSED:
        require(parse_time_request(request.serialize()) == request, "a request changes when it is written and read")


def parse_changed_request(data: bytes) -> None:
    source = ByteSource(data)
    edit = source.choose((changed, changed_json))
    parse_request(edit(source, source.choose(_REQUESTS), source.choose(_REQUESTS)))


HARNESS = Harness(
    attacks=(verify, verify_changed, verify_signed, parse_request, parse_changed_request),
    seeds=(tuple(_TOKENS), DECISIONS, DECISIONS, tuple(_REQUESTS), DECISIONS),
    words=(b'"cnf"', b'"jkt"', b'"nonce"', b'"iat"', b'"time-request/1"', b'"keylatch-device"', b"n" * 43),
)
