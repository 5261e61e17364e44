from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from license_world import DAY, NOW, World

from keylatch.errors import FormatError, OutputError, SignatureError
from keylatch.keys import CosignerKey, FileIssuerKey, HybridDeviceKey, IssuerPublicKey, Trust, verify_license
from keylatch.keys._clock import MAX_TIME
from keylatch.keys._trust import MAX_KEYS, MAX_TRUST_BYTES

OLD, NEW = FileIssuerKey.generate(), FileIssuerKey.generate()
COSIGNER = CosignerKey.generate()
UNTIL = {OLD.public.thumbprint: NOW + 10 * DAY}
TRUST = Trust([OLD.public, NEW.public], [COSIGNER.public], UNTIL)


def saved(tmp_path: Path, trust: Trust = TRUST) -> dict[str, Any]:
    trust.save(tmp_path / "trust.json", overwrite=True)
    return json.loads((tmp_path / "trust.json").read_bytes())


def public_pem(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


# The file.


def test_a_trust_file_round_trips(tmp_path: Path) -> None:
    for trust in (TRUST, Trust(), Trust([NEW.public]), Trust((), [COSIGNER.public])):
        saved(tmp_path, trust)
        assert Trust.load(str(tmp_path / "trust.json")) == trust


def test_a_trust_file_is_as_documented(tmp_path: Path) -> None:
    assert saved(tmp_path) == {
        "keylatch": "trust/1",
        "issuers": [
            {"jwk": OLD.public.to_jwk(), "until": NOW + 10 * DAY},
            {"jwk": NEW.public.to_jwk(), "until": None},
        ],
        "cosigners": [{"jwk": COSIGNER.public.to_jwk()}],
    }
    assert (tmp_path / "trust.json").read_bytes().endswith(b"}\n")


def test_a_trust_file_is_replaced_only_on_purpose(tmp_path: Path) -> None:
    TRUST.save(tmp_path / "trust.json")
    with pytest.raises(OutputError, match="exists already"):
        Trust().save(tmp_path / "trust.json")
    assert Trust.load(tmp_path / "trust.json") == TRUST
    Trust().save(tmp_path / "trust.json", overwrite=True)
    assert Trust.load(tmp_path / "trust.json") == Trust()


@given(st.permutations(range(4)), st.lists(st.none() | st.integers(0, MAX_TIME), min_size=4, max_size=4))
def test_any_order_and_any_ends_round_trip(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], ends: list[int | None]
) -> None:
    keys = [ISSUERS[index] for index in order]
    until = {key.thumbprint: end for key, end in zip(keys, ends, strict=True) if end is not None}
    trust, path = Trust(keys, (), until), tmp_path_factory.getbasetemp() / "any.json"
    trust.save(path, overwrite=True)
    assert Trust.load(path) == trust


ISSUERS = [FileIssuerKey.generate().public for _ in range(4)]


def edit_issuer(**changes: object) -> Callable[[dict[str, Any]], Any]:
    return lambda value: value["issuers"][0].update(changes)


def edit_jwk(kind: str, **changes: object) -> Callable[[dict[str, Any]], Any]:
    return lambda value: value[kind][0]["jwk"].update(changes)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda value: value.update(keylatch="trust/2"), "has version 'trust/2', expected trust/1"),
        (lambda value: value.update(keylatch=1), "has version"),
        (lambda value: value.pop("keylatch"), "has version"),
        (lambda value: value.update(admin=1), "missing or unknown members"),
        (lambda value: value.pop("issuers"), "missing or unknown members"),
        (lambda value: value.pop("cosigners"), "missing or unknown members"),
        (lambda value: value.update(issuers={}), "lists of at most"),
        (lambda value: value.update(cosigners=None), "lists of at most"),
        (lambda value: value["issuers"].append(5), "an entry with"),
        (lambda value: value["issuers"].append({"jwk": value["issuers"][0]["jwk"]}), "an entry with"),
        (lambda value: value["cosigners"].append({"jwk": "x"}), "an entry with"),
        (lambda value: value["cosigners"][0].update(until=None), "an entry with"),
        (edit_issuer(note="old"), "an entry with"),
        (edit_issuer(jwk=COSIGNER.public.to_jwk()), "not a public Ed25519 key"),
        (edit_issuer(until="2026-01-01"), "until that is no time"),
        (edit_issuer(until=True), "until that is no time"),
        (edit_issuer(until=-1), "until that is no time"),
        (edit_issuer(until=MAX_TIME + 1), "until that is no time"),
        (edit_jwk("issuers", d="AA"), "not a public Ed25519 key"),
        (edit_jwk("issuers", x="AA"), "has 1 bytes, expected 32"),
        (edit_jwk("issuers", x="!"), "base64url"),
        (edit_jwk("issuers", x=None), "base64url"),
        (edit_jwk("issuers", crv="X25519"), "not a public Ed25519 key"),
        (edit_jwk("cosigners", priv="AA"), "not a public ML-DSA-65 key"),
        (edit_jwk("cosigners", alg="ML-DSA-44"), "not a public ML-DSA-65 key"),
        (lambda value: value["issuers"].append(value["issuers"][0]), "names an issuer key twice"),
        (lambda value: value["issuers"].append({**value["issuers"][0], "until": None}), "names an issuer key twice"),
    ],
)
def test_a_trust_file_in_any_other_form_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    value = saved(tmp_path)
    edit(value)
    with pytest.raises(FormatError, match=message) as caught:
        Trust.parse(json.dumps(value).encode())
    assert caught.value.hint


def test_duplicate_keys_and_fractions_in_a_trust_file_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    data = (tmp_path / "trust.json").read_bytes()
    with pytest.raises(FormatError, match="a key is repeated"):
        Trust.parse(data.replace(b'"until":null', b'"until":null,"until":1'))
    with pytest.raises(FormatError, match="not an integer"):
        Trust.parse(data.replace(b'"until":null', b'"until":1.5'))


def test_the_number_of_keys_is_bounded(tmp_path: Path) -> None:
    keys = [FileIssuerKey.generate().public for _ in range(MAX_KEYS + 1)]
    most = Trust(keys[:MAX_KEYS])
    saved(tmp_path, most)
    assert Trust.load(tmp_path / "trust.json") == most
    for build in (
        lambda: Trust(keys),
        lambda: Trust(keys[:MAX_KEYS], [COSIGNER.public]),
        lambda: Trust.merge([Trust(keys[:40]), Trust(keys[40:])]),
    ):
        with pytest.raises(FormatError, match=f"more than {MAX_KEYS} keys"):
            build()
    value = saved(tmp_path, most)
    value["issuers"].append({"jwk": keys[-1].to_jwk(), "until": None})
    with pytest.raises(FormatError, match=f"at most {MAX_KEYS} keys"):
        Trust.parse(json.dumps(value).encode())


def test_the_most_cosigners_fit_a_file(tmp_path: Path) -> None:
    most = Trust([NEW.public], [CosignerKey.generate().public for _ in range(MAX_KEYS - 1)])
    saved(tmp_path, most)
    assert (tmp_path / "trust.json").stat().st_size <= MAX_TRUST_BYTES
    assert Trust.load(tmp_path / "trust.json") == most


# One key in PEM.


def test_a_public_key_in_pem_is_a_trust_file_of_one_key(tmp_path: Path) -> None:
    NEW.public.save(tmp_path / "issuer.pub")
    COSIGNER.public.save(tmp_path / "cosigner.pub")
    assert Trust.load(tmp_path / "issuer.pub") == Trust([NEW.public])
    assert Trust.load(tmp_path / "cosigner.pub") == Trust((), [COSIGNER.public])


def test_several_keys_in_one_pem_file_are_refused_and_none_is_left_out() -> None:
    # Were the first taken alone, `cat issuer.pub cosigner.pub` would drop the demand for the second signature.
    issuer, cosigner = public_pem(NEW.public.key), public_pem(COSIGNER.public.key)
    private = NEW._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for data in (issuer + cosigner, cosigner + issuer, issuer + issuer, cosigner + private, issuer + private):
        with pytest.raises(FormatError, match="several keys in PEM") as caught:
            Trust.parse(data)
        assert caught.value.hint


def test_private_keys_given_for_trust_are_refused_by_name(tmp_path: Path) -> None:
    NEW.save(tmp_path / "issuer.key")
    COSIGNER.save(tmp_path / "cosigner.key")
    for name in ("issuer.key", "cosigner.key"):
        with pytest.raises(FormatError, match="got a private key") as caught:
            Trust.load(tmp_path / name)
        assert caught.value.hint


def test_other_public_keys_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not Ed25519"):
        Trust.parse(public_pem(world.device.public.key))
    with pytest.raises(FormatError, match="not Ed25519"):
        Trust.parse(public_pem(MLDSA44PrivateKey.generate().public_key()))
    world.device.public.save(tmp_path / "device.pub")
    HybridDeviceKey.generate(tmp_path / "hybrid.key").public.save(tmp_path / "hybrid.pub")
    for name in ("device.pub", "hybrid.pub"):
        with pytest.raises(FormatError, match="trust file has version None"):
            Trust.load(tmp_path / name)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"{}", b"  {}", b"[]", b"\xff" * 50, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"],
)
def test_what_is_neither_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        Trust.parse(data)
    assert caught.value.hint


@given(st.binary(max_size=60))
def test_any_bytes_are_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        Trust.parse(data)


def test_files_that_cannot_be_trust_files_say_why(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"{" + b" " * MAX_TRUST_BYTES)
    for name, message in (("missing", "does not exist"), (".", "is a directory"), ("large", "expected at most")):
        with pytest.raises(FormatError, match=message):
            Trust.load(tmp_path / name)


# Retired keys.


def licensed_by(world: World, issuer: FileIssuerKey, expires_at: int) -> Any:
    return world.issue(issuer=issuer, expires_at=expires_at)


def test_a_retired_key_s_licenses_open_until_the_last_of_them_ends(world: World) -> None:
    end = UNTIL[OLD.public.thumbprint]
    trust = Trust([OLD.public, NEW.public], (), UNTIL)
    for expires_at in (NOW + DAY, end):
        assert verify_license(licensed_by(world, OLD, expires_at), trust, now=NOW).expires_at == expires_at
    assert verify_license(licensed_by(world, NEW, end + 1), trust, now=NOW)


def test_a_license_that_outlives_its_retired_key_is_refused(world: World) -> None:
    end = UNTIL[OLD.public.thumbprint]
    license = licensed_by(world, OLD, end + 1)
    with pytest.raises(SignatureError, match=r"retired issuer key and ends after 2026-12-11 13:46 UTC") as caught:
        verify_license(license, Trust([OLD.public, NEW.public], (), UNTIL), now=NOW)
    assert caught.value.hint == "ask the issuer for a license by its present key"
    assert verify_license(license, Trust([OLD.public]), now=NOW)


def test_retired_keys_are_not_active() -> None:
    assert TRUST.active_issuers == (NEW.public,)
    assert Trust([OLD.public, NEW.public]).active_issuers == (OLD.public, NEW.public)
    # Also with an end that has not come yet, and with one at the beginning of time.
    assert Trust([OLD.public], (), {OLD.public.thumbprint: 0}).active_issuers == ()


def test_retiring_a_key_that_is_not_there_is_refused() -> None:
    with pytest.raises(FormatError, match="does not hold"):
        Trust([NEW.public], (), UNTIL)
    with pytest.raises(FormatError, match="does not hold"):
        Trust([NEW.public], (), {"": 0})


# Several together.


def test_merging_keeps_every_key_once() -> None:
    merged = Trust.merge([Trust([NEW.public]), TRUST, Trust((), [COSIGNER.public]), Trust([NEW.public])])
    assert set(merged.issuers) == {OLD.public, NEW.public} and len(merged.issuers) == 2
    assert merged.cosigners == (COSIGNER.public,)
    assert Trust.merge([]) == Trust()


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_that_one_calls_retired_is_retired_and_the_earliest_end_holds(order: int) -> None:
    thumbprint = OLD.public.thumbprint
    parts = [Trust([OLD.public]), Trust([OLD.public], (), {thumbprint: 20}), Trust([OLD.public], (), {thumbprint: 10})]
    assert Trust.merge(parts[::order]).until == {thumbprint: 10}
    assert Trust.merge(parts[::order]).active_issuers == ()


def test_a_cosigner_in_one_of_several_files_is_demanded(world: World) -> None:
    merged = Trust.merge([Trust([world.issuer.public]), Trust((), [COSIGNER.public])])
    with pytest.raises(SignatureError, match="demands one"):
        verify_license(world.issue(), merged, now=NOW)
    assert verify_license(world.issue(cosigner=COSIGNER), merged, now=NOW)


def test_trust_cannot_be_changed_from_outside() -> None:
    until, issuers = dict(UNTIL), [OLD.public]
    trust = Trust(issuers, (), until)
    until.clear()
    issuers.append(NEW.public)
    assert trust.until == UNTIL and trust.issuers == (OLD.public,)
    with pytest.raises(TypeError):
        trust.until[OLD.public.thumbprint] = MAX_TIME  # type: ignore[index]


def test_an_issuer_key_in_a_trust_file_is_the_one_in_its_pem(tmp_path: Path) -> None:
    NEW.public.save(tmp_path / "issuer.pub")
    saved(tmp_path, Trust([NEW.public]))
    [issuer] = Trust.load(tmp_path / "trust.json").issuers
    assert issuer.key.public_bytes_raw() == IssuerPublicKey.load(tmp_path / "issuer.pub").key.public_bytes_raw()
