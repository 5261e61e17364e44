"""Whole licenses, rightly issued, that do not open here and now: other devices, times, models, lists, and mixtures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vectors.base_originals import DAY, MODEL_ID, NOW, OTHER_MODEL_ID, VALUES, base
from vectors.named_keys import issuer
from vectors.signing import flip, license_vector, payload_of, reissue
from vectors.value_headers import value_headers
from vectors.vector_file import Vector

SUCCESS = value_headers(VALUES)
LIST = ("revocations", "revocation-list/two-ids")
HALF_AN_HOUR_OLD = ("revocations", "revocation-list/half-an-hour-old")


def vectors() -> Iterator[Vector]:
    yield from _substitutions()
    yield from _devices()
    yield from _times()
    yield from _retired_issuers()
    yield from _revocations()
    yield from _memories()


def _substitutions() -> Iterator[Vector]:
    first, second = base("p256"), base("p256-second")
    parts = "LicensePartsError"
    yield license_vector("parts-jwe-exchanged", parts, "the JWE is another license's", replace(first, jwe=second.jwe))
    yield license_vector(
        "parts-blob-exchanged", parts, "the blob is another license's", replace(first, blob=second.blob)
    )
    both = replace(first, jwe=second.jwe, blob=second.blob)
    yield license_vector("parts-both-exchanged", parts, "JWE and blob are another license's", both)
    yield license_vector(
        "parts-jwe-flipped", parts, "the JWE's last bit is flipped", replace(first, jwe=flip(first.jwe))
    )
    yield license_vector(
        "parts-blob-flipped", parts, "the blob's last bit is flipped", replace(first, blob=flip(first.blob))
    )
    spaced = replace(first, jwe=first.jwe + b" ")
    yield license_vector("parts-jwe-spaced", parts, "a space follows the JWE", spaced)
    swapped = reissue(first, jwe_sha256=payload_of(first)["blob_sha256"], blob_sha256=payload_of(first)["jwe_sha256"])
    yield license_vector("parts-digests-swapped", parts, "the digests of JWE and blob are exchanged", swapped)
    license = reissue(first, model_id=OTHER_MODEL_ID)
    gate = [("gate", text.rsplit(" ", 1)[0]) for name, text in SUCCESS if text.startswith("gate.")]
    model = (("model", MODEL_ID), *gate)
    yield license_vector("model-other", "WrongModelError", "the license is for another model", license, *model)
    comment = "the license is for this model, and its tensors are the manifest's"
    yield license_vector("model-right", "success", comment, reissue(first, seq=9), *model, *SUCCESS)


def _devices() -> Iterator[Vector]:
    wrong = "WrongDeviceError"
    foreign = ("device", "foreign-device")
    yield license_vector(
        "device-foreign", wrong, "issued to another P-256 device", reissue(base("p256"), seq=10), foreign
    )
    foreign = ("device", "foreign-hybrid")
    yield license_vector(
        "device-foreign-hybrid", wrong, "issued to another hybrid device", reissue(base("hybrid"), seq=10), foreign
    )
    yield license_vector(
        "device-hybrid-only", wrong, "issued to a hybrid device, not this one", reissue(base("hybrid"), seq=11)
    )
    claims = payload_of(base("mixed"))["cnf"]["jkt"]
    ours = payload_of(base("p256"))["cnf"]["jkt"][0]
    left = reissue(base("mixed"), cnf={"jkt": [jkt for jkt in claims if jkt != ours]})
    yield license_vector("device-removed", wrong, "the JWE is for the device, the claims are not", left)


def _times() -> Iterator[Vector]:
    license, expired, early = base("p256"), "LicenseExpiredError", "LicenseNotYetValidError"
    yield license_vector(
        "time-expired", expired, "exp was yesterday", reissue(license, iat=NOW - 9 * DAY, nbf=0, exp=NOW - DAY)
    )
    yield license_vector("time-expires-now", expired, "exp is now", reissue(license, exp=NOW))
    yield license_vector("time-not-yet", early, "nbf is tomorrow", reissue(license, nbf=NOW + DAY, exp=NOW + 2 * DAY))
    yield license_vector("time-next-second", early, "nbf is the next second", reissue(license, nbf=NOW + 1))
    back = ("now", "0")
    comment = "exp lies before this release, and the clock stands at 1970"
    past = reissue(license, iat=0, nbf=0, exp=1_700_000_000)
    yield license_vector("time-clock-at-0", expired, comment, past, back)
    comment = "nbf has passed by iat, whatever the clock says"
    yield license_vector(
        "time-clock-before-iat", "success", comment, reissue(license, sub="Clock set back"), back, *SUCCESS
    )


def _retired_issuers() -> Iterator[Vector]:
    old = issuer("retired-issuer")
    license = reissue(base("p256"), signer=old, exp=NOW + DAY)
    trust = ("issuer", f"retired-issuer until {NOW}")
    comment = "signed by a retired key, and ends after that key's last license"
    yield license_vector("issuer-retired", "SignatureError", comment, license, trust=trust)
    comment = "signed by a retired key, and ends one second after that key's last license"
    license = reissue(base("p256"), signer=old, exp=NOW + 101)
    yield license_vector(
        "issuer-retired-by-a-second",
        "SignatureError",
        comment,
        license,
        trust=("issuer", f"retired-issuer until {NOW + 100}"),
    )
    license = reissue(base("p256-second"), exp=NOW + 100)
    comment = "signed by a retired key, and ends with that key's last license"
    trust = (f"issuer until {NOW + 100}",)
    yield license_vector("issuer-retired-in-time", "success", comment, license, *SUCCESS, trust=trust)


def _revocations() -> Iterator[Vector]:
    license, day = base("p256"), reissue(base("p256"), max_list_age=DAY)
    named = base("p256-second")  # by both lists
    revoked = reissue(named, sub="Revoked")
    yield license_vector("list-revoked", "LicenseRevokedError", "the revocation list names the license", revoked, LIST)
    comment = "the license was revoked by a list that is too old for anything else"
    stale = reissue(named, max_list_age=60)
    yield license_vector("list-revoked-stale", "LicenseRevokedError", comment, stale, HALF_AN_HOUR_OLD)
    required = "RevocationListRequiredError"
    yield license_vector("list-required", required, "the license asks for a list, and none is given", day)
    stale = reissue(license, max_list_age=1799)
    comment = "the list is half an hour old, a second more than the license allows"
    yield license_vector("list-stale-for-license", "StaleRevocationListError", comment, stale, HALF_AN_HOUR_OLD)
    late = reissue(license, sub="Tomorrow", exp=NOW + 2 * DAY)
    comment = "the list is a day and a second old, a second more than it allows itself"
    tomorrow = ("now", str(NOW + DAY + 1))
    yield license_vector("list-stale-by-itself", "StaleRevocationListError", comment, late, tomorrow, LIST)
    comment = "the list is as old as it may be, and does not name the license"
    edge = reissue(license, max_list_age=1800)
    yield license_vector("list-not-revoked", "success", comment, edge, HALF_AN_HOUR_OLD, *SUCCESS)
    comment = "the license asks for no list, and one is given that does not name it"
    yield license_vector("list-not-asked-for", "success", comment, reissue(license, sub="Careful"), LIST, *SUCCESS)
    license, comment = base("everything"), "three devices, cosigned, with a list, opened by the hybrid device"
    given, trust = (("device", "hybrid"), LIST, *SUCCESS), ("issuer", "cosigner")
    yield license_vector("everything", "success", comment, license, *given, trust=trust)


def _memories() -> Iterator[Vector]:
    """What a device with a state remembers; see the headers."""

    def remembered(**marks: int) -> tuple[tuple[str, str], ...]:
        return tuple((name, str(value)) for name, value in {"high_water": NOW, **marks}.items())

    license = base("p256")
    older, seen = "OlderLicenseError", reissue(license, seq=41)
    yield license_vector(
        "memory-older-license", older, "seq 42 opened this model before, and this is 41", seen, *remembered(seen_seq=42)
    )
    same = reissue(license, seq=42)
    yield license_vector(
        "memory-same-license", "success", "seq 42 opened this model before", same, *remembered(seen_seq=42), *SUCCESS
    )
    comment = "the device has seen list 6, and this is list 5"
    given = (LIST, *remembered(seen_list_seq=6))
    yield license_vector("memory-older-list", "OlderRevocationListError", comment, reissue(license, seq=43), *given)
    back = "ClockSetBackError"
    comment = "the clock stands 301 seconds before what the device has seen"
    yield license_vector(
        "memory-clock-set-back", back, comment, reissue(license, seq=44), *remembered(high_water=NOW + 301)
    )
    comment = "the license was signed 301 seconds after what the clock says"
    ahead = reissue(license, seq=45, iat=NOW + 301)
    yield license_vector("memory-issued-ahead", back, comment, ahead, *remembered())
    comment = "the license ends before the latest moment that the device has seen, 300 seconds from the clock"
    ended = reissue(license, seq=46, exp=NOW + 300)
    yield license_vector("memory-expired", "LicenseExpiredError", comment, ended, *remembered(high_water=NOW + 300))
    comment = "the clock stands 300 seconds before what the device has seen, as one that is set right may"
    steady = reissue(license, seq=47)
    yield license_vector(
        "memory-clock-stepped", "success", comment, steady, *remembered(high_water=NOW + 300), *SUCCESS
    )
