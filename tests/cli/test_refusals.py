"""Whatever is refused: exit status 1, the error and its hint on stderr, nothing on stdout, nothing written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from cli_world import CREDENTIALS, Command, Outcome


def listing(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def assert_refused(outcome: Outcome, words: str) -> None:
    assert outcome.status == 1, outcome
    assert outcome.out == ""
    assert words in outcome.err
    assert "hint:" in outcome.err
    assert "Traceback" not in outcome.err


def test_verifying_with_a_foreign_issuer_does_not_exit_0(folder: Path, command: Command) -> None:
    command("issuer", "init", "--out", "foreign.key")
    outcome = command("license", "inspect", "acme.license", "--trust", "foreign.pub")
    assert_refused(outcome, "signed by issuer")


RUN = ("run", "net.latch", "images.npy")
LOCK = ("lock", "nets_for_cli:small", "--input", "3x32x32", "--patch-size", "8", "--issuer", "issuer.key",
        "--out", "new.pt2", "--secret", "new.secret")  # fmt: skip


EXPORT = ("export", "net.pt2", "--secret", "net.secret", "--issuer", "issuer.key", "--out", "n.latch")


def without(arguments: tuple[str, ...], option: str) -> tuple[str, ...]:
    place = arguments.index(option)
    return arguments[:place] + arguments[place + 2 :]


def swapped(arguments: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    place = arguments.index(option)
    return (*arguments[: place + 1], value, *arguments[place + 2 :])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*RUN, *without(CREDENTIALS, "--license")), "no license was given"),
        ((*RUN, *without(CREDENTIALS, "--key")), "no device key was given"),
        ((*RUN, *without(CREDENTIALS, "--trust")), "no trusted issuer was given"),
        ((*RUN, *swapped(CREDENTIALS, "--license", "absent.license")), "does not exist"),
        ((*RUN, *swapped(CREDENTIALS, "--license", "images.npy")), "not a license"),
        ((*RUN, *swapped(CREDENTIALS, "--license", "net.secret")), "sealed vault"),
        ((*RUN, *swapped(CREDENTIALS, "--key", "file:absent.key")), "does not exist"),
        ((*RUN, *swapped(CREDENTIALS, "--key", "vault:somewhere")), "vault"),
        ((*RUN, *swapped(CREDENTIALS, "--key", "file:issuer.key")), ""),
        ((*RUN, *swapped(CREDENTIALS, "--trust", "device.pub")), ""),
        (("run", "absent.latch", "images.npy", *CREDENTIALS), "does not exist"),
        (("run", "net.pt2", "images.npy", *CREDENTIALS), "is not a directory"),
        (("run", "net.latch", "absent.npy", *CREDENTIALS), "absent.npy does not exist"),
        (("run", "net.latch", "absent.jpg", *CREDENTIALS), "absent.jpg does not exist"),
        ((*RUN, *CREDENTIALS, "--out", "absent/all.npz"), "there is no folder absent"),
        (("run", "net.latch", "nets_for_cli.py", *CREDENTIALS), "not a readable picture"),
        ((*RUN, *CREDENTIALS, "--provider", "NoSuchProvider"), "NoSuchProvider is not available"),
        (("inspect", "absent"), "does not exist"),
        (("inspect", "net.pt2"), "not a license"),
        (swapped(LOCK, "--out", "net.pt2"), "exists already"),
        (swapped(LOCK, "--secret", "net.secret"), "exists already"),
        (("lock", "absent_module:small", *LOCK[2:]), "cannot import"),
        (("lock", "nets_for_cli:absent", *LOCK[2:]), "cannot import"),
        (("lock", "nets_for_cli:not_a_network", *LOCK[2:]), "expected a torch.nn.Module"),
        (("lock", "nets_for_cli", *LOCK[2:]), "neither module:factory nor"),
        (("lock", "net.secret.pt2", *LOCK[2:]), "not a torch.export program"),
        ((*LOCK, "--weights", "images.npy"), "do not load"),
        ((*LOCK, "--weights", "absent.safetensors"), "cannot be read"),
        ((*LOCK, "--calibration", "nets_for_cli.py"), "not an .npy file"),
        (swapped(LOCK, "--out", "absent/new.pt2"), "there is no folder absent"),
        (swapped(LOCK, "--secret", "absent/new.secret"), "there is no folder absent"),
        (("lock", "absent.pt2", *LOCK[2:]), "it does not exist"),
        ((*LOCK, "--layer", "nothing"), "not a layer"),
        ((*LOCK, "--method", "spell"), "not available"),
        ((*LOCK, "--code-bits", "200"), "cannot carry"),
        (swapped(LOCK, "--patch-size", "40"), "does not fit"),
        (swapped(LOCK, "--issuer", "device.key"), ""),
        (swapped(EXPORT, "--out", "net.latch"), "exists already"),
        (("export", "net.secret", *EXPORT[2:]), "not a locked"),
        (("export", "net.latch", *EXPORT[2:]), "not a locked"),
        (("export", "absent.pt2", *EXPORT[2:]), "does not exist"),
        (swapped(EXPORT, "--out", "absent/n.latch"), "there is no folder absent"),
        (swapped(EXPORT, "--secret", "acme.license"), "vault"),
        (("export", "net.pt2", "--secret", "net.secret", "--out", "n.latch"), "issuer key"),
        (("issuer", "init"), "exists already"),
        (("device", "init"), "keylatch device request --key file:device.key"),
        (("device", "init", "--key", "vault:somewhere"), "vault: are not supported"),
        (("bench", "net.latch", *CREDENTIALS, "--plain", "absent.onnx"), "does not exist"),
        (("bench", "net.latch", *CREDENTIALS, "--plain", "images.npy"), "onnxruntime cannot run images.npy"),
    ],
)  # fmt: skip
def test_refused(folder: Path, command: Command, arguments: tuple[str, ...], words: str) -> None:
    before = listing(folder)
    assert_refused(command(*arguments), words)
    assert listing(folder) == before


def test_what_opens_a_model_is_named_as_the_command_takes_it(folder: Path, command: Command) -> None:
    assert "give --license, --key and --trust" in command(*RUN).err
    alone = command(*RUN, *CREDENTIALS, "--counter", "tpm:nv=0x01800100")
    assert alone.status == 2 and "--state" in alone.err


@pytest.mark.parametrize("arguments", [LOCK, EXPORT, (*RUN, *CREDENTIALS, "--out", "all.npz")])
def test_a_folder_that_cannot_be_written_is_found_at_once(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)  # chmod would not stop root
    assert_refused(command(*arguments), "does not allow it")


ISSUE = ("license", "issue", "net.latch", "--secret", "net.secret", "--issuer", "issuer.key", "--to", "device.pub",
         "--customer", "me", "--out", "new.license")  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (swapped(ISSUE, "--out", "acme.license"), "exists already"),
        (swapped(ISSUE, "--to", "issuer.pub"), ""),
        (swapped(ISSUE, "--to", "device.key"), ""),
        (swapped(ISSUE, "--issuer", "absent.key"), "does not exist"),
        (swapped(ISSUE, "--secret", "absent.secret"), "does not exist"),
        ((*ISSUE, "--days", "0"), "--days"),
        ((*ISSUE, "--days", "9999999"), "after the year 9999"),
    ],
)
def test_issuing_is_refused(folder: Path, command: Command, arguments: tuple[str, ...], words: str) -> None:
    before = listing(folder)
    assert_refused(command(*arguments), words)
    assert listing(folder) == before


def test_a_license_needs_the_vault_of_its_model(folder: Path, command: Command) -> None:
    assert command(*LOCK).status == 0
    before = listing(folder)
    assert_refused(command(*swapped(ISSUE, "--secret", "new.secret")), "holds no secrets for model")
    assert listing(folder) == before


def test_a_foreign_vault_does_not_export(folder: Path, command: Command) -> None:
    assert command(*LOCK, "--layer", "head").status == 0
    before = listing(folder)
    export = ("export", "net.pt2", "--secret", "new.secret", "--issuer", "issuer.key", "--out", "n.latch")
    assert_refused(command(*export), "does not fit")
    assert listing(folder) == before


def test_times_are_judged(folder: Path, command: Command) -> None:
    assert command(*ISSUE, "--not-before", "2026-01-01", "--days", "10").status == 1
    future = swapped(ISSUE, "--out", "future.license")
    assert command(*future, "--not-before", "2199-01-01").status == 0
    outcome = command(*RUN, *swapped(CREDENTIALS, "--license", "future.license"))
    assert_refused(outcome, "valid from 2199-01-01")


def test_an_open_key_file_is_refused(folder: Path, command: Command) -> None:
    Path("device.key").chmod(0o644)
    assert_refused(command(*RUN, *CREDENTIALS), "open to other users")


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "gate.bin", "manifest.json"])
def test_an_edited_or_missing_file_is_refused(folder: Path, command: Command, name: str) -> None:
    file = Path("net.latch") / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert_refused(command(*RUN, *CREDENTIALS), "")
    if name != "manifest.json":
        assert_refused(command("inspect", "net.latch"), name)
    file.unlink()
    assert_refused(command(*RUN, *CREDENTIALS), "missing")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3, 32, 32)), "dtype float64, expected float32"),
        (np.zeros((2, 3, 16, 32), dtype=np.float32), "expected (batch, 3, 32, 32)"),
    ],
)
def test_wrong_images_are_explained(folder: Path, command: Command, array: np.ndarray, words: str) -> None:
    np.save("wrong.npy", array)
    before = listing(folder)
    assert_refused(command("run", "net.latch", "wrong.npy", *CREDENTIALS, "--out", "o.npz"), words)
    assert listing(folder) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-verb",),
        ("lock",),
        ("run", "net.latch"),
        swapped(LOCK, "--input", "large"),
        (*LOCK, "--mean", "a,b"),
        (*LOCK, "--corner", "middle"),
        (*LOCK, "--layout", "CHWN"),
        (*ISSUE, "--not-before", "tomorrow"),
        ("bench", "net.latch", "--runs", "none"),
        (*RUN, *CREDENTIALS, "--locked"),
    ],
)
def test_wrong_usage_exits_2(folder: Path, command: Command, arguments: tuple[str, ...]) -> None:
    before = listing(folder)
    outcome = command(*arguments)
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert listing(folder) == before


def test_a_passphrase_is_never_an_argument(command: Command) -> None:
    for verb in (["lock"], ["export"], ["license", "issue"], ["run"], ["issuer", "init"], ["device", "init"]):
        text = command(*verb, "--help").out
        assert "--passphrase-file" in text
        assert "--passphrase " not in text
