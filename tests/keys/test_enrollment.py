from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from license_world import NOW, World

from keylatch.errors import EnrollmentError, FormatError, KeylatchError, OutputError
from keylatch.keys import DevicePublicKey, FileDeviceKey, HybridDeviceKey
from keylatch.keys._encoding import canonical_json, decode_base64url, encode_base64url
from keylatch.keys._enrollment import (
    MAX_FACT_CHARACTERS,
    MAX_FACTS,
    MAX_REQUEST_BYTES,
    EnrollmentRequest,
    check_facts,
    load_device,
    load_enrollment,
    make_enrollment_request,
    parse_enrollment_request,
    write_enrollment_request,
)

FACTS = {"hostname": "edge-7", "tpm.vendor": "Ångström"}
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def made(world: World, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {"facts": FACTS, "created_at": NOW, **changes}
    return make_enrollment_request(world.device, **arguments)


def edited(data: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(data), **changes}).encode()


def signed(world: World, **changes: Any) -> bytes:
    """A request with the given members, really signed by the device."""
    value = {**json.loads(made(world)), **changes}
    del value["proof"]
    proof = world.device.prove_possession(b"keylatch/1 enrollment" + canonical_json(value))
    return json.dumps({**value, "proof": encode_base64url(proof)}).encode()


def with_proof(data: bytes, r: int, s: int) -> bytes:
    return edited(data, proof=encode_base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big")))


def test_a_request_round_trips(world: World) -> None:
    request = parse_enrollment_request(made(world))
    assert request == EnrollmentRequest(world.device.public, FACTS, NOW)
    assert request.public.key.public_numbers() == world.device.public.key.public_numbers()


def test_a_request_is_readable_and_says_what_it_is(world: World) -> None:
    data = made(world)
    assert data.isascii() and data.endswith(b"}\n") and b'    "hostname": "edge-7"' in data
    assert list(json.loads(data)) == ["keylatch", "public_key", "thumbprint", "facts", "created_at", "proof"]
    assert json.loads(data)["keylatch"] == "enrollment/1"


def test_the_proof_is_an_ecdsa_signature_over_context_and_canonical_members(world: World) -> None:
    value = json.loads(made(world))
    proof = decode_base64url(value.pop("proof"), "proof")
    statement = b"keylatch/1 enrollment" + json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")
    r, s = int.from_bytes(proof[:32], "big"), int.from_bytes(proof[32:], "big")
    world.device.public.key.verify(encode_dss_signature(r, s), statement, ECDSA(SHA256()))


def test_whitespace_and_order_do_not_matter(world: World) -> None:
    shuffled = dict(reversed(json.loads(made(world)).items()))
    assert parse_enrollment_request(json.dumps(shuffled).encode()).facts == FACTS


@given(
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9_.-]{0,31}", fullmatch=True), st.text(min_size=1), max_size=5),
    st.integers(0, 253_402_300_799),
)
def test_any_facts_that_are_taken_round_trip(world: World, facts: dict[str, str], created_at: int) -> None:
    try:
        data = made(world, facts=facts, created_at=created_at)
    except FormatError:
        assert not all(value.isprintable() and len(value) <= MAX_FACT_CHARACTERS for value in facts.values())
        return
    request = parse_enrollment_request(data)
    assert (dict(request.facts), request.created_at) == (facts, created_at)


def test_every_single_bit_flip_is_refused(world: World) -> None:
    data = made(world, facts={"hostname": "edge-7"})
    accepted = []
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        try:
            parse_enrollment_request(bytes(flipped))
        except KeylatchError:
            continue
        accepted.append(position)
    assert accepted == []


@pytest.mark.parametrize(
    "changes",
    [{"facts": {"hostname": "edge-8"}}, {"facts": {}}, {"facts": {**FACTS, "admin": "yes"}}, {"created_at": NOW + 1}],
)
def test_edited_members_do_not_verify(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(EnrollmentError, match="does not verify with key") as caught:
        parse_enrollment_request(edited(made(world), **changes))
    assert world.device.public.thumbprint in caught.value.message
    assert caught.value.hint


def test_another_device_s_key_cannot_be_put_in(world: World) -> None:
    foreign = world.foreign_device.public
    for changes, message in (
        ({"public_key": foreign.to_jwk()}, "does not name its key's thumbprint"),
        ({"thumbprint": foreign.thumbprint}, "does not name its key's thumbprint"),
        ({"public_key": foreign.to_jwk(), "thumbprint": foreign.thumbprint}, "does not verify"),
    ):
        with pytest.raises(EnrollmentError, match=message):
            parse_enrollment_request(edited(made(world), **changes))


def test_a_key_without_its_name_is_refused_even_if_signed(world: World) -> None:
    jwk = {name: member for name, member in world.device.public.to_jwk().items() if name != "kid"}
    with pytest.raises(EnrollmentError, match="does not name its key's thumbprint"):
        parse_enrollment_request(signed(world, public_key=jwk))


def test_a_proof_of_another_request_or_purpose_does_not_do(world: World) -> None:
    other = json.loads(made(world, created_at=NOW + 1))["proof"]
    with pytest.raises(EnrollmentError, match="does not verify"):
        parse_enrollment_request(edited(made(world), proof=other))
    value = json.loads(made(world))
    del value["proof"]
    without_context = encode_base64url(world.device.prove_possession(canonical_json(value)))
    with pytest.raises(EnrollmentError, match="does not verify"):
        parse_enrollment_request(edited(made(world), proof=without_context))


@pytest.mark.parametrize(("r", "s"), [(0, 0), (0, 1), (1, 0), (1, 1), (ORDER, 1), (1, ORDER), (2**256 - 1,) * 2])
def test_a_signature_out_of_range_is_refused(world: World, r: int, s: int) -> None:
    with pytest.raises(EnrollmentError, match="does not verify"):
        parse_enrollment_request(with_proof(made(world), r, s))


def test_a_value_beyond_the_order_never_reaches_the_library(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the library were one that verifies everything, such as CVE-2022-21449's.
    data = made(world)
    monkeypatch.setattr("keylatch.keys._enrollment.encode_dss_signature", lambda r, s: genuine)
    proof = decode_base64url(json.loads(data)["proof"], "proof")
    r, s = int.from_bytes(proof[:32], "big"), int.from_bytes(proof[32:], "big")
    genuine = encode_dss_signature(r, s)
    assert parse_enrollment_request(with_proof(data, 1, 1))
    for pair in ((0, s), (r, 0), (ORDER, s), (r, ORDER)):
        with pytest.raises(EnrollmentError):
            parse_enrollment_request(with_proof(data, *pair))


@pytest.mark.parametrize("proof", [None, 5, "", "!", "AA", "A" * 85, "A" * 88, "A" * 86 + "=="])
def test_a_proof_in_another_form_is_a_format_error(world: World, proof: object) -> None:
    with pytest.raises(FormatError):
        parse_enrollment_request(edited(made(world), proof=proof))


def test_a_key_off_the_curve_is_refused_before_anything_is_verified(world: World) -> None:
    jwk = world.device.public.to_jwk()
    off_curve = {**jwk, "y": encode_base64url(bytes(31) + b"\x05")}
    with pytest.raises(FormatError, match="not a point on P-256"):
        parse_enrollment_request(edited(made(world), public_key=off_curve))
    hybrid = {"kty": "AKP", "alg": "MLKEM768-X25519", "pub": "AA"}
    for other in ({**jwk, "crv": "P-384"}, {**jwk, "d": "AA"}, {**jwk, "use": "enc"}, hybrid, {}):
        with pytest.raises(FormatError):
            parse_enrollment_request(edited(made(world), public_key=other))


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda value: value.pop(name)


@pytest.mark.parametrize(
    "edit",
    [
        lambda value: value.update(keylatch="enrollment/2"),
        lambda value: value.update(keylatch=1),
        lambda value: value.update(admin=True),
        lambda value: value.update(facts=[]),
        lambda value: value.update(facts=None),
        lambda value: value.update(public_key="x"),
        *map(without, ["keylatch", "public_key", "thumbprint", "facts", "created_at", "proof"]),
    ],
)
def test_missing_unknown_and_malformed_members_are_refused(world: World, edit: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(made(world))
    edit(value)
    with pytest.raises(FormatError) as caught:
        parse_enrollment_request(json.dumps(value).encode())
    assert caught.value.hint


BAD_FACTS: list[Any] = [
    {"": "x"},
    {"Hostname": "x"},
    {"host name": "x"},
    {"7": "x"},
    {"a\n": "x"},
    {"a" * 33: "x"},
    {"a": ""},
    {"a": "x" * (MAX_FACT_CHARACTERS + 1)},
    {"a": "two\nlines"},
    {"a": "\x1b[2J"},
    {"a": "\u202eevil"},
    {"a": 5},
    {"a": None},
    {"a": ["x"]},
    {f"f{index}": "x" for index in range(MAX_FACTS + 1)},
    {f"f{index}": "\U0001f512" * MAX_FACT_CHARACTERS for index in range(MAX_FACTS)},
]


@pytest.mark.parametrize("facts", BAD_FACTS)
def test_facts_are_bounded_on_both_sides_even_if_signed(world: World, facts: Any) -> None:
    with pytest.raises(FormatError) as caught:
        check_facts(facts)
    assert caught.value.hint
    with pytest.raises(FormatError):
        made(world, facts=facts)
    with pytest.raises(FormatError):
        parse_enrollment_request(signed(world, facts=facts))


def test_the_most_facts_fit_a_request(world: World) -> None:
    facts = {
        f"{index:02d}".translate({48 + n: 97 + n for n in range(10)}) * 16: "x" * 200 for index in range(MAX_FACTS)
    }
    data = made(world, facts=facts)
    assert len(data) < MAX_REQUEST_BYTES
    assert parse_enrollment_request(data).facts == facts
    emoji = {f"f{index}": "\U0001f512" * 60 for index in range(MAX_FACTS)}
    assert len(made(world, facts=emoji)) < MAX_REQUEST_BYTES


@pytest.mark.parametrize("created_at", [-1, True, 1.5, "1", None, 253_402_300_800])
def test_a_time_out_of_range_is_refused_even_if_signed(world: World, created_at: Any) -> None:
    with pytest.raises(FormatError):
        made(world, created_at=created_at)
    with pytest.raises(FormatError):
        parse_enrollment_request(signed(world, created_at=created_at))


def test_duplicate_keys_and_oversized_requests_are_refused(world: World) -> None:
    data = made(world)
    with pytest.raises(FormatError, match="a key is repeated"):
        parse_enrollment_request(data.replace(b'"hostname"', b'"hostname": "a", "hostname"'))
    with pytest.raises(FormatError, match=f"expected at most {MAX_REQUEST_BYTES}"):
        parse_enrollment_request(data + b" " * MAX_REQUEST_BYTES)


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_with_an_error_of_ours(data: bytes) -> None:
    with pytest.raises((FormatError, EnrollmentError)):
        parse_enrollment_request(data)


def test_facts_in_a_request_cannot_be_changed_afterwards(world: World) -> None:
    facts = dict(FACTS)
    request = EnrollmentRequest(world.device.public, facts, NOW)
    facts["hostname"] = "other"
    assert request.facts == FACTS
    with pytest.raises(TypeError):
        request.facts["hostname"] = "other"  # type: ignore[index]


def test_a_token_that_signs_wrongly_is_found_on_the_device(world: World) -> None:
    class Faulty:
        public = world.device.public

        def prove_possession(self, statement: bytes) -> bytes:
            return world.foreign_device.prove_possession(statement)

    with pytest.raises(EnrollmentError, match="does not verify"):
        make_enrollment_request(Faulty(), {}, created_at=NOW)  # type: ignore[arg-type]


def test_a_request_holds_no_private_bytes(world: World) -> None:
    private = world.device._key.private_numbers().private_value.to_bytes(32, "big")
    assert encode_base64url(private).encode() not in made(world)


def test_what_a_device_sent_is_told_apart(world: World, tmp_path: Path) -> None:
    world.device.public.save(tmp_path / "device.pub")
    hybrid = HybridDeviceKey.generate(tmp_path / "hybrid.key")
    hybrid.public.save(tmp_path / "hybrid.pub")
    write_enrollment_request(tmp_path / "request.json", made(world))
    assert load_device(tmp_path / "device.pub") == world.device.public
    assert load_device(str(tmp_path / "request.json")) == world.device.public
    assert load_device(tmp_path / "hybrid.pub") == hybrid.public
    assert load_enrollment(tmp_path / "request.json") == (world.device.public, FACTS)
    assert load_enrollment(tmp_path / "hybrid.pub") == (hybrid.public, {})
    assert isinstance(load_device(tmp_path / "device.pub"), DevicePublicKey)


def test_a_request_with_a_bad_proof_is_not_taken_for_its_key(world: World, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_bytes(edited(made(world), facts={"hostname": "other"}))
    with pytest.raises(EnrollmentError, match="does not verify"):
        load_device(tmp_path / "request.json")


def test_private_keys_sent_by_mistake_are_refused_by_name(world: World, tmp_path: Path) -> None:
    HybridDeviceKey.generate(tmp_path / "hybrid.key")
    for path in (world.device_path, tmp_path / "hybrid.key"):
        with pytest.raises(FormatError, match="got a private key") as caught:
            load_device(path)
        assert caught.value.hint == "never send the private key"
    jwk = {"kty": "AKP", "alg": "MLKEM768-X25519", "pub": "AA", "priv": "AA"}
    (tmp_path / "private.jwk").write_text(json.dumps(jwk))
    with pytest.raises(FormatError, match="holds a private key"):
        load_device(tmp_path / "private.jwk")


def test_whatever_else_is_sent_is_a_format_error(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b" " * (MAX_REQUEST_BYTES + 1))
    (tmp_path / "list").write_bytes(b"[]")
    (tmp_path / "empty").write_bytes(b"{}")
    ed25519 = {"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(Ed25519PrivateKey.generate().private_bytes_raw())}
    (tmp_path / "ed25519").write_text(json.dumps(ed25519))
    for name in ("missing", ".", "large", "list", "empty", "ed25519"):
        with pytest.raises(FormatError) as caught:
            load_device(tmp_path / name)
        assert caught.value.hint


def test_a_request_is_never_overwritten(world: World, tmp_path: Path) -> None:
    write_enrollment_request(tmp_path / "request.json", b"first")
    with pytest.raises(OutputError, match="exists already"):
        write_enrollment_request(tmp_path / "request.json", made(world))
    assert (tmp_path / "request.json").read_bytes() == b"first"


def test_file_keys_prove_possession_in_64_bytes_whatever_leading_zeros(tmp_path: Path) -> None:
    # One signature in 128 has an r or s with a leading zero byte.
    device = FileDeviceKey(generate_private_key(SECP256R1()))
    proofs = [device.prove_possession(str(number).encode()) for number in range(1500)]
    assert {len(proof) for proof in proofs} == {64}
    assert any(proof[0] == 0 or proof[32] == 0 for proof in proofs)
