"""Bad input is refused before anything long runs, with a sentence that says what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_command import IMAGES, OWNER, Audit, errors_of, leftovers
from audit_world import Shipped

import networks
from keylatch.cli import _audit_run
from keylatch.exporters import export, export_plain
from keylatch.keys import FileIssuerKey, Vault, write_vault


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        pytest.fail("an attack ran")

    monkeypatch.setattr(_audit_run, "run_audit", refuse)


def save(name: str, array: np.ndarray) -> str:
    np.save(name, array)
    return name


def labels() -> np.ndarray:
    return np.load("labels.npy")


def images() -> np.ndarray:
    return np.load("images.npy")


def many_classes() -> list[object]:
    return ["digits.latch", "--images", "images.npy", "--labels", save("bad.npy", labels() + 1)]


def csv(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


CASES: dict[str, tuple[Callable[[], list[object]], str]] = {
    "no labels": (lambda: ["digits.latch", "--images", "images.npy"], "got --images without --labels"),
    "no images": (lambda: ["digits.latch"], "an audit needs labeled images, got none"),
    "no test labels": (
        lambda: ["digits.latch", *IMAGES, "--test-images", "images.npy"], "got --test-images without --test-labels"
    ),
    "absent images": (lambda: ["digits.latch", "--images", "x.npy", "--labels", "labels.npy"], "x.npy does not exist"),
    "fewer labels": (
        lambda: ["digits.latch", "--images", "images.npy", "--labels", save("few.npy", labels()[:-1])],
        "got 597 images and 596 labels",
    ),
    "wrong class count": (many_classes, "labels go from 1 to 10, the model has 10 classes"),
    "labels that are no numbers": (
        lambda: ["digits.latch", "--images", "images.npy", "--labels", csv("l.csv", "label\nthree\n")],
        "l.csv has 'three' for a label, expected an integer",
    ),
    "labels that are fractions": (
        lambda: ["digits.latch", "--images", "images.npy", "--labels", save("f.npy", labels() / 2)],
        "f.npy holds float64",
    ),
    "images of another size": (
        lambda: ["digits.latch", "--images", save("s.npy", images()[..., :30]), "--labels", "labels.npy"],
        "got torch.float32 images of shape (3, 32, 30), expected torch.float32 (3, 32, 32)",
    ),
    "bytes of another size": (
        lambda: [
            "digits.latch", "--images", save("b.npy", np.zeros((597, 16, 16, 3), np.uint8)), "--labels", "labels.npy"
        ],
        "got torch.uint8 images of shape (16, 16, 3)",
    ),
    "images that are none": (
        lambda: ["digits.latch", "--images", save("n.npy", images() * np.nan), "--labels", "labels.npy"], "not finite"
    ),
    "too few images": (
        lambda: [
            "digits.latch", "--images", save("i.npy", images()[:60]), "--labels", save("l.npy", labels()[:60])
        ],
        "60 images leave",
    ),
    "fewer images than asked": (
        lambda: ["digits.latch", *IMAGES, "--labeled", "10,5000"], "5000 labeled images were asked for, attackers have"
    ),
    "the same images twice": (
        lambda: ["digits.latch", *IMAGES, "--test-images", "images.npy", "--test-labels", "labels.npy"],
        "597 of 597 test images are among the attacker's",
    ),
    "few test images": (
        lambda: [
            "digits.latch", *IMAGES, "--test-images", save("i.npy", images()[:9] + 1), "--test-labels",
            save("l.npy", labels()[:9]),
        ],
        "got 9 test images, expected at least 50",
    ),
    "a license": (lambda: ["digits.latch", *IMAGES, "--license", "a.license"], "an attacker has no license"),
    "a key": (lambda: ["digits.latch", *IMAGES, "--key", "file:device.key"], "an attacker has no license"),
    "a plain directory": (lambda: ["plain", *IMAGES], "plain is not a locked model: it has no manifest.json"),
    "a plain file": (lambda: ["plain/model.onnx", *IMAGES], "is not a locked model"),
    "nothing": (lambda: ["nothing.latch", *IMAGES], "nothing.latch does not exist"),
    "no time": (lambda: ["digits.latch", *IMAGES, "--minutes", "0"], "an audit of 0 minutes cannot be done"),
    "infinite time": (lambda: ["digits.latch", *IMAGES, "--minutes", "inf"], "an audit of inf minutes"),
    "one seed": (lambda: ["digits.latch", *IMAGES, "--seeds", "1"], "got --seeds 1, expected at least 2"),
    "an unknown attack": (lambda: ["digits.latch", *IMAGES, "--attack", "no-kay"], "there is no attack 'no-kay'"),
    "somebody's folder": (
        lambda: ["digits.latch", *IMAGES, "--out", "plain"], "plain exists and was not made by an audit"
    ),
    "a file for a folder": (
        lambda: ["digits.latch", *IMAGES, "--out", "labels.npy"], "labels.npy is a file, expected a folder"
    ),
    "a base that is none": (lambda: ["digits.latch", *IMAGES, "--base", "labels.npy"], "labels.npy is no ONNX model"),
    "no vault": (lambda: ["digits.latch", *IMAGES, "--secret", "x.secret", "--issuer", "issuer.key"], "x.secret"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_with_a_reason(case: str, folder: Path, audit: Audit) -> None:
    make, reason = CASES[case]
    left = audit(*make())
    assert left.status == 1, left
    assert reason in errors_of(left)
    assert "hint:" in left.err and left.out == ""
    assert leftovers(folder) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["digits.latch", *IMAGES, "--labeled", "ten"], ["digits.latch", *IMAGES, "--labeled", "0"],
        ["digits.latch", *IMAGES, "--issuer", "issuer.key"], ["digits.latch", *IMAGES, "--seeds", "two"],
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_2(arguments: list[str], folder: Path, audit: Audit) -> None:
    left = audit(*arguments)
    assert left.status == 2 and left.out == ""


def test_close_names_are_offered(folder: Path, audit: Audit) -> None:
    assert "did you mean no-key" in errors_of(audit("digits.latch", *IMAGES, "--attack", "no-kay"))
    assert "keylatch audit --list" in errors_of(audit("digits.latch", *IMAGES, "--attack", "zzzzzz"))


def test_a_vault_of_another_model_is_refused(folder: Path, audit: Audit) -> None:
    other = FileIssuerKey.generate()
    other.save(folder / "other.key")
    write_vault(folder / "other.secret", Vault({"0" * 64: {"gate.patch": np.zeros(3)}}), issuer=other)
    left = audit("digits.latch", *IMAGES, "--secret", "other.secret", "--issuer", "other.key")
    assert left.status == 1 and "vault has no secrets for" in errors_of(left)


def test_an_artifact_with_opened_values_is_not_locked(shipped: Shipped, folder: Path, audit: Audit) -> None:
    gate = folder / "digits.latch" / "gate.bin"
    data = bytearray(gate.read_bytes())
    mask = shipped.owner.values["gate.mask"].tobytes()
    place = bytes(data).index(b"\0" * len(mask), -1 % 1)
    import onnx

    graph = onnx.load(folder / "digits.latch" / "model.onnx", load_external_data=False)
    entry = next(tensor for tensor in graph.graph.initializer if tensor.name == "gate.mask")
    place = int({item.key: item.value for item in entry.external_data}.get("offset", 0))
    data[place : place + len(mask)] = mask
    gate.write_bytes(bytes(data))
    left = audit("digits.latch", *IMAGES)
    assert left.status == 1 and "digits.latch is not locked: its gate.bin holds opened values" in errors_of(left)


def test_a_damaged_artifact_is_refused(folder: Path, audit: Audit) -> None:
    weights = folder / "digits.latch" / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    left = audit("digits.latch", *IMAGES)
    assert left.status == 1 and "model.onnx.data" in errors_of(left)


def test_sealed_weights_leave_nothing_to_attack(folder: Path, audit: Audit) -> None:
    locked = networks.lock(networks.settle(networks.PaddedConvs))
    export(locked.module, locked.secret, folder / "sealed.latch", report=locked.report, sealed_weights=True)
    refused = audit("sealed.latch", *IMAGES)
    assert refused.status == 1
    assert "has sealed weights" in errors_of(refused)


def test_audits_measure_classifiers(tmp_path: Path, audit: Audit, folder: Path) -> None:
    locked = networks.lock(networks.settle(networks.Dense))
    export(locked.module, locked.secret, folder / "dense.latch", report=locked.report)
    left = audit("dense.latch", *IMAGES)
    assert left.status == 1 and "gives an output of shape (2, 5, 32, 32) for 2 images" in errors_of(left)


def test_an_original_with_other_classes_is_refused(folder: Path, audit: Audit) -> None:
    export_plain(networks.settle(lambda: networks.PaddedConvs(classes=7)), networks.SPEC, folder / "other")
    left = audit("digits.latch", *IMAGES, "--original", "other")
    assert left.status == 1 and "other has 7 classes, the locked model 10" in errors_of(left)


def test_a_base_with_other_images_is_refused(folder: Path, audit: Audit) -> None:
    export_plain(
        networks.settle(lambda: networks.PaddedConvs(channels=1), 1), networks.InputSpec(1, 32, 32), folder / "gray"
    )
    left = audit("digits.latch", *IMAGES, "--base", "gray")
    assert left.status == 1 and "gray does not take float32 images of shape (3, 32, 32)" in errors_of(left)


def test_a_folder_of_pictures_needs_a_label_for_each(folder: Path, audit: Audit) -> None:
    from PIL import Image

    (folder / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "pictures" / name)
    one = csv("one.csv", "file,label\na.png,3\n")
    left = audit("digits.latch", "--images", "pictures", "--labels", one)
    assert left.status == 1 and "one.csv has no label for b.png" in errors_of(left)
    absent = csv("absent.csv", "a.png,3\nb.png,4\nc.png,4\n")
    assert "c.png does not exist" in errors_of(audit("digits.latch", "--images", "pictures", "--labels", absent))
    bare = csv("bare.csv", "3\n4\n")
    assert "bare.csv names no pictures" in errors_of(audit("digits.latch", "--images", "pictures", "--labels", bare))


def test_the_vault_is_read_before_the_display_could_hide_a_question(folder: Path, audit: Audit) -> None:
    left = audit("digits.latch", *IMAGES, *OWNER[:2], "--passphrase-file", "nothing.txt")
    assert left.status == 1 and left.out == ""
    shutil.rmtree(folder / "plain")
