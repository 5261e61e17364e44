"""`keylatch device`: keys, enrollment requests, and what a device remembers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cli_world import Command, Outcome

from keylatch.errors import KeyStoreMissingError, OutputError
from keylatch.keys import FileDeviceKey, FileIssuerKey, HybridDeviceKey, current_time, open_device_key
from keylatch.keys._device_state import DeviceState
from keylatch.keys._enrollment import load_device, load_enrollment, parse_enrollment_request
from keylatch.keys._time_token import TimeRequest, sign_time_token


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


def files() -> set[str]:
    return {path.name for path in Path().iterdir()}


def assert_refused(outcome: Outcome, words: str) -> None:
    assert outcome.status == 1, outcome
    assert outcome.out == ""
    assert words in outcome.err and "hint:" in outcome.err and "Traceback" not in outcome.err


# init.


def test_init_prints_the_request_and_nothing_else_on_stdout(command: Command) -> None:
    outcome = command("device", "init", "--fact", "hostname=edge-7", "--fact", "site=a=b")
    assert outcome.status == 0, outcome.err
    request = parse_enrollment_request(outcome.out.encode())
    assert request.facts == {"hostname": "edge-7", "site": "a=b"}
    assert abs(request.created_at - current_time()) < 600
    assert files() == {"device.key", "device.pub"}
    key = FileDeviceKey.load("device.key")
    assert request.public == key.public == load_device("device.pub")
    assert "made device.key and device.pub" in outcome.err and key.public.thumbprint in outcome.err


def test_init_into_a_request_file_prints_facts(command: Command) -> None:
    text = command("device", "init", "--key", "file:a.key", "--request", "a.json")
    assert text.status == 0 and text.err == ""
    assert load_device("a.json") == FileDeviceKey.load("a.key").public
    for word in ("a.key", "a.pub", "a.json", load_device("a.json").thumbprint):
        assert word in text.out
    facts = json.loads(command("device", "init", "--key", "b.key", "--request", "b.json", "--json").out)
    assert facts == {
        "private_key": "b.key",
        "public_key": "b.pub",
        "request": "b.json",
        "thumbprint": load_device("b.pub").thumbprint,
    }


def test_a_hybrid_key_s_public_half_is_what_is_sent(command: Command) -> None:
    outcome = command("device", "init", "--key", "hybrid:device.key")
    assert outcome.status == 0, outcome.err
    Path("sent").write_text(outcome.out)
    public = HybridDeviceKey.load("device.key").public
    assert load_device("sent") == load_device("device.pub") == public


@pytest.mark.parametrize("options", [("--fact", "a=b"), ("--request", "r.json")])
def test_a_hybrid_key_signs_no_request_and_none_is_made_for_one(command: Command, options: tuple[str, ...]) -> None:
    assert_refused(command("device", "init", "--key", "hybrid:device.key", *options), "hybrid key cannot sign")
    assert files() == set()


def test_a_key_named_by_the_environment_is_made_where_that_says(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICE_KEY", "file:there.key")
    assert command("device", "init", "--key", "env:DEVICE_KEY").status == 0
    assert files() == {"there.key", "there.pub"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--key", "file:device.pub"), "no public key file can stand beside"),
        (("--key", "file:"), "no public key file can stand beside"),
        (("--key", "file:no/device.key"), "no folder"),
        (("--key", "vault:x"), "vault: are not supported"),
        (("--key", "file://host/device.key"), "host"),
        (("--request", "no/request.json"), "no folder"),
        (("--request", "taken"), "taken exists already"),
        (("--public", "taken"), "taken exists already"),
        (("--key", "file:taken", "--public", "free.pub"), "taken exists already"),
        (("--key", "file:taken.key"), "taken.pub exists already"),
        (("--fact", "Host=x"), "fact called 'Host'"),
        (("--fact", "host="), "printable characters"),
        (("--fact", "host=a\nb"), "printable characters"),
        (tuple(f"--fact=f{index}=x" for index in range(17)), "17 facts, expected at most 16"),
        (("--protect",), "--passphrase-file"),
        (("--passphrase-file", "missing"), "cannot be read"),
    ],
)
def test_whatever_cannot_be_made_is_refused_before_anything_is(
    command: Command, arguments: tuple[str, ...], words: str
) -> None:
    Path("taken").write_text("mine")
    Path("taken.pub").write_text("mine")
    assert_refused(command("device", "init", *arguments), words)
    assert files() == {"taken", "taken.pub"}
    assert Path("taken").read_text() == Path("taken.pub").read_text() == "mine"


@pytest.mark.parametrize("facts", [("--fact", "x"), ("--fact", "a=b", "--fact", "a=c")])
def test_a_fact_that_is_no_pair_or_repeated_is_wrong_usage(command: Command, facts: tuple[str, ...]) -> None:
    outcome = command("device", "init", *facts)
    assert (outcome.status, outcome.out, files()) == (2, "", set())


@pytest.mark.parametrize(("scheme", "load"), [("file", FileDeviceKey.load), ("hybrid", HybridDeviceKey.load)])
def test_a_protected_key_opens_with_its_passphrase(command: Command, scheme: str, load: Any) -> None:
    Path("pass").write_text("correct horse\n")
    made = command("device", "init", "--key", f"{scheme}:safe.key", "--protect", "--passphrase-file", "pass")
    assert made.status == 0, made.err
    assert b"PRIVATE KEY" not in Path("safe.key").read_bytes()
    assert load("safe.key", lambda _: b"correct horse").public == load_device("safe.pub")
    shown = command("device", "show", "--key", f"{scheme}:safe.key", "--passphrase-file", "pass")
    assert load_device("safe.pub").thumbprint in shown.out
    assert_refused(command("device", "show", "--key", f"{scheme}:safe.key"), "--passphrase-file")


@pytest.mark.parametrize("failing", ["public", "request", "proof"])
def test_what_exists_after_a_failure_is_said(command: Command, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OutputError("the disk is full", hint="make room")

    target = {
        "public": "keylatch.keys._device_key.write_file",
        "request": "keylatch.keys._enrollment.write_file",
        "proof": "keylatch.cli.device.make_enrollment_request",
    }[failing]
    with monkeypatch.context() as patch:
        patch.setattr(target, fail)
        outcome = command("device", "init", "--request", "request.json")
    assert_refused(outcome, "the disk is full")
    exists = "device.key" if failing == "public" else "device.key, device.pub"
    assert f"made before this failed, and kept: {exists}\n" in outcome.err
    assert files() == set(exists.split(", "))
    # What it says to do next works.
    for arguments in ("show --key file:device.key --public FILE", "request --key file:device.key"):
        assert f"keylatch device {arguments}" in outcome.err
        assert command("device", *arguments.split()).status == 0
    assert load_device("FILE") == FileDeviceKey.load("device.key").public


# Keys in hardware, played by files.


class Store(ModuleType):
    """What `keylatch.keys._tpm` and its like offer; remembers the passphrase callbacks that it was given."""

    def __init__(self) -> None:
        super().__init__("store_for_cli")
        self.asked: list[str | None] = []

    def generate_device_key(self, location: str, passphrase: Any) -> FileDeviceKey:
        self.asked.append(None if passphrase is None else bytes(passphrase("the key").reveal()).decode())
        return FileDeviceKey.generate("inside")

    def open_device_key(self, location: str, passphrase: Any) -> FileDeviceKey:
        self.asked.append(None if passphrase is None else "callback")
        return FileDeviceKey.load("inside")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    from keylatch.keys import _key_uri

    fake = Store()
    monkeypatch.setitem(sys.modules, "store_for_cli", fake)
    for scheme in ("tpm", "pkcs11", "awskms"):
        monkeypatch.setitem(_key_uri._STORES, scheme, ("store_for_cli", scheme))
    Path("pin").write_text("1234\n")
    yield fake


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("tpm:device.tpm", "device.pub"),
        ("tpm:device.tpm?tcti=device:/dev/tpmrm0&pcrs=sha256:7", "device.pub"),
        ("awskms:edge.kms?key-id=alias/keylatch&region=eu-central-1", "edge.pub"),
    ],
)
def test_the_public_key_stands_beside_the_file_of_a_key_that_has_one(
    command: Command, store: Store, uri: str, public: str
) -> None:
    outcome = command("device", "init", "--key", uri)
    assert outcome.status == 0, outcome.err
    assert parse_enrollment_request(outcome.out.encode()).public == load_device(public)
    assert files() == {"pin", "inside", public}
    assert store.asked == [None]


def test_a_key_on_a_token_has_a_public_key_file_where_it_is_asked_for(command: Command, store: Store) -> None:
    uri = "pkcs11:token=t;object=device?module-path=/usr/lib/m.so"
    outcome = command("device", "init", "--key", uri, "--public", "token.pub", "--passphrase-file", "pin")
    assert outcome.status == 0, outcome.err
    assert load_device("token.pub") == parse_enrollment_request(outcome.out.encode()).public
    Path("inside").unlink()
    assert command("device", "init", "--key", uri, "--passphrase-file", "pin").status == 0
    assert files() == {"pin", "inside", "token.pub"}


def test_a_token_always_gets_its_pin_and_a_tpm_key_if_it_is_to_have_one(command: Command, store: Store) -> None:
    for arguments in (
        ("tpm:device.tpm", "--protect", "--passphrase-file", "pin"),
        ("pkcs11:object=device", "--passphrase-file", "pin"),
        ("tpm:other.tpm",),
    ):
        assert command("device", "init", "--key", *arguments).status == 0
        Path("inside").unlink()
    assert store.asked == ["1234", "1234", None]
    assert_refused(command("device", "init", "--key", "pkcs11:object=device"), "--passphrase-file")


def test_opening_a_key_can_always_ask(command: Command, store: Store) -> None:
    FileDeviceKey.generate("inside")
    for verb in ("show", "request"):
        assert command("device", verb, "--key", "tpm:device.tpm").status == 0
    assert store.asked == ["callback", "callback"]


def test_a_store_that_is_not_there_leaves_nothing(command: Command, store: Store, monkeypatch: Any) -> None:
    def missing(*_: object) -> None:
        raise KeyStoreMissingError("no TPM answers at /dev/tpmrm0", hint="check that the machine has one")

    monkeypatch.setattr(store, "generate_device_key", missing)
    outcome = command("device", "init", "--key", "tpm:device.tpm")
    assert_refused(outcome, "no TPM answers")
    assert "made before" not in outcome.err
    assert files() == {"pin"}


# request and show.


def test_request_makes_a_new_request_for_a_key_that_exists(command: Command) -> None:
    public = FileDeviceKey.generate("device.key").public
    printed = command("device", "request", "--key", "file:device.key", "--fact", "site=north")
    request = parse_enrollment_request(printed.out.encode())
    assert (request.public, request.facts, printed.err) == (public, {"site": "north"}, "")
    written = command("device", "request", "--key", "device.key", "--request", "r.json")
    assert written.status == 0 and public.thumbprint in written.out
    assert load_enrollment("r.json") == (public, {})
    before = Path("r.json").read_bytes()
    assert_refused(command("device", "request", "--key", "device.key", "--request", "r.json"), "exists already")
    assert Path("r.json").read_bytes() == before


def test_request_for_a_hybrid_key_says_what_to_send(command: Command) -> None:
    HybridDeviceKey.generate("device.key")
    outcome = command("device", "request", "--key", "hybrid:device.key")
    assert_refused(outcome, "cannot sign")
    assert "keylatch device show --key hybrid:device.key --public FILE" in " ".join(outcome.err.split())


@pytest.mark.parametrize(
    ("scheme", "generate"), [("file", FileDeviceKey.generate), ("hybrid", HybridDeviceKey.generate)]
)
def test_show_prints_thumbprint_and_public_key(command: Command, scheme: str, generate: Any) -> None:
    public = generate("device.key").public
    text = command("device", "show", "--key", f"{scheme}:device.key", "--public", "again.pub")
    assert text.status == 0 and public.thumbprint in text.out
    assert json.dumps(public.to_jwk()) in text.out
    assert load_device("again.pub") == public
    facts = json.loads(command("device", "show", "--key", f"{scheme}:device.key", "--json").out)
    expected = {"key": f"{scheme}:device.key", "thumbprint": public.thumbprint, "public_key": public.to_jwk()}
    assert facts == expected
    assert_refused(
        command("device", "show", "--key", f"{scheme}:device.key", "--public", "again.pub"), "exists already"
    )


@pytest.mark.parametrize("verb", ["request", "show", "show-state", "time-request", "init-state"])
def test_a_key_that_is_not_there_is_refused(command: Command, verb: str) -> None:
    assert_refused(command("device", verb, "--key", "file:absent.key"), "does not exist")
    assert files() == set()


# What the device remembers.


class Counter:
    """A counter that cannot be turned back, in memory."""

    def __init__(self) -> None:
        self.count = 40

    def read(self) -> int:
        return self.count

    def increment(self) -> int:
        self.count += 1
        return self.count


@pytest.fixture
def key() -> str:
    FileDeviceKey.generate("device.key")
    return "file:device.key"


def test_a_state_is_made_shown_and_never_replaced(command: Command, key: str) -> None:
    made = json.loads(command("device", "init-state", "--key", key, "--json").out)
    assert made == {"state": "device.state", "device": open_device_key(key).public.thumbprint, "counter": None}
    facts = json.loads(command("device", "show-state", "--key", key, "--json").out)
    assert abs(facts.pop("high_water") - current_time()) < 600
    assert facts == {
        "state": "device.state", "device": made["device"], "signed_floor": 0, "list_seq": 0, "counter": None,
        "licenses": {},
    }  # fmt: skip
    text = command("device", "show-state", "--key", key)
    assert text.status == 0 and "none yet" in text.out and "nothing signed yet" in text.out
    before = Path("device.state").read_bytes()
    assert_refused(command("device", "init-state", "--key", key), "device.state exists already")
    assert Path("device.state").read_bytes() == before


def test_a_state_of_another_device_or_an_edited_one_is_not_shown(command: Command, key: str) -> None:
    assert command("device", "init-state", "--key", key, "--state", "s").status == 0
    FileDeviceKey.generate("other.key")
    assert_refused(command("device", "show-state", "--key", "other.key", "--state", "s"), "is of device")
    data = bytearray(Path("s").read_bytes())
    data[data.index(b'"high_water":') + 14] ^= 1
    Path("s").write_bytes(data)
    for verb in ("show-state", "time-request"):
        assert_refused(command("device", verb, "--key", key, "--state", "s"), "was altered")
    assert_refused(command("device", "show-state", "--key", key, "--state", "missing"), "does not exist")


def test_the_time_is_set_by_the_issuer_s_answer_once(
    command: Command, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer, foreign = FileIssuerKey.generate(), FileIssuerKey.generate()
    issuer.public.save("issuer.pub")
    foreign.public.save("foreign.pub")
    now = current_time()
    monkeypatch.setattr("keylatch.cli._device_state.current_time", lambda: now + 5 * 366 * 86_400)
    assert command("device", "init-state", "--key", key).status == 0  # by a clock that is five years ahead
    monkeypatch.setattr("keylatch.cli._device_state.current_time", lambda: now)

    printed = command("device", "time-request", "--key", key)
    assert command("device", "time-request", "--key", key, "--out", "t.json").status == 0
    assert Path("t.json").read_text() == printed.out
    Path("t.token").write_bytes(sign_time_token(issuer=issuer, request=TimeRequest.load("t.json"), issued_at=now))

    set_time = ("device", "set-time", "t.token", "--key", key, "--trust")
    assert_refused(command(*set_time, "foreign.pub"), "signed by issuer")
    done = command(*set_time, "issuer.pub", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out) == {"state": "device.state", "high_water": now}
    assert_refused(command(*set_time, "issuer.pub"), "answers an earlier request")
    assert_refused(command("device", "time-request", "--key", key, "--out", "t.json"), "exists already")


def test_set_time_needs_somebody_to_trust(command: Command, key: str) -> None:
    Path("t.token").write_bytes(b"x")
    assert command("device", "set-time", "t.token", "--key", key).status == 2


def test_a_counter_is_made_with_the_state_and_needed_from_then_on(
    command: Command, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, named = Counter(), "tpm:nv=0x01800100"
    uris: list[str] = []
    for name in ("define_counter", "open_counter"):
        take = lambda uri, name=name: uris.append(f"{name} {uri}") or counter  # noqa: E731
        monkeypatch.setattr(f"keylatch.cli._device_state.{name}", take)
    assert command("device", "init-state", "--key", key, "--counter", named).status == 0
    assert uris == [f"define_counter {named}"]
    old = Path("device.state").read_bytes()
    facts = json.loads(command("device", "show-state", "--key", key, "--counter", named, "--json").out)
    assert facts["counter"] == 41 == counter.count
    assert_refused(command("device", "show-state", "--key", key), "goes with a counter")
    counter.increment()
    counter.increment()
    Path("device.state").write_bytes(old)
    assert_refused(command("device", "show-state", "--key", key, "--counter", named), "its counter stands at 43")
    Path("device.state").unlink()
    uris.clear()
    again = command("device", "init-state", "--key", key, "--counter", named, "--counter-exists")
    assert again.status == 0 and uris == [f"open_counter {named}"]


def test_a_counter_that_was_made_is_said_if_the_state_was_not(
    command: Command, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OutputError("the disk is full", hint="make room")

    monkeypatch.setattr("keylatch.cli._device_state.define_counter", lambda uri: Counter())
    monkeypatch.setattr(DeviceState, "create", fail)
    outcome = command("device", "init-state", "--key", key, "--counter", "tpm:nv=0x01800100")
    assert_refused(outcome, "the disk is full")
    assert "the counter tpm:nv=0x01800100 exists now: try again with --counter-exists" in outcome.err


def test_counters_are_named_rightly_or_not_taken(command: Command, key: str) -> None:
    assert_refused(command("device", "init-state", "--key", key, "--counter", "file:x"), "only at tpm:")
    assert command("device", "init-state", "--key", key, "--counter-exists").status == 2
    assert not Path("device.state").exists()


# All of it.


def test_a_license_for_what_was_printed_opens_on_that_device(folder: Path, command: Command) -> None:
    for uri, name in (("file:edge.key", "request.json"), ("hybrid:pq.key", "pq.json")):
        Path(name).write_text(command("device", "init", "--key", uri).out)
    issued = command("license", "issue", "net.latch", "--secret", "net.secret", "--issuer", "issuer.key", "--to",
                     "request.json", "--to", "pq.json", "--customer", "me", "--out", "edge.license")  # fmt: skip
    assert issued.status == 0, issued.err
    outputs = []
    for uri in ("file:edge.key", "hybrid:pq.key"):
        ran = command("run", "net.latch", "images.npy", "--license", "edge.license", "--key", uri, "--trust",
                      "issuer.pub", "--out", f"{len(outputs)}.npz")  # fmt: skip
        assert ran.status == 0, ran.err
        outputs.append(np.load(f"{len(outputs)}.npz")["output"])
    np.testing.assert_array_equal(*outputs)
    forged = json.loads(Path("request.json").read_text())
    forged["facts"] = {"hostname": "another"}
    Path("forged.json").write_text(json.dumps(forged))
    refused = command("license", "issue", "net.latch", "--secret", "net.secret", "--issuer", "issuer.key", "--to",
                      "forged.json", "--customer", "me", "--out", "forged.license")  # fmt: skip
    assert_refused(refused, "does not verify with key")
    assert not Path("forged.license").exists()


def test_no_passphrase_or_pin_is_ever_an_argument(command: Command) -> None:
    for verb in ("init", "request", "show", "init-state", "show-state", "time-request", "set-time"):
        text = command("device", verb, "--help").out
        assert "--passphrase-file" in text
        assert "--passphrase " not in text and "--pin" not in text
