"""The commands that a user runs, in order, with what they print."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from cli_world import CREDENTIALS, Command


def test_a_licensed_run_gives_the_original_networks_answers(folder: Path, command: Command) -> None:
    import torch
    from PIL import Image

    assert command("run", "net.latch", "images.npy", *CREDENTIALS, "--out", "keyed.npz").status == 0
    assert command("run", "net.latch", "images.npy", "--locked", "--out", "locked.npz").status == 0
    sys.path.insert(0, str(folder))
    try:
        from nets_for_cli import small  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    images = torch.from_numpy(np.load("images.npy"))
    with torch.no_grad():
        expected = small().eval()(images).numpy()
    keyed, locked = np.load("keyed.npz")["output"], np.load("locked.npz")["output"]
    assert np.abs(keyed - expected).max() < 1e-4 * np.ptp(expected)
    assert np.abs(locked - expected).max() > 0.1 * np.ptp(expected)
    Image.fromarray(np.zeros((50, 40, 3), dtype=np.uint8)).save("photo.png")
    result = json.loads(command("run", "net.latch", "photo.png", "photo.png", *CREDENTIALS, "--json").out)
    assert result["outputs"]["output"]["shape"] == [2, 12]
    assert len(result["top"][0]) == 5


def test_run_prints_a_table_and_json(folder: Path, command: Command) -> None:
    text = command("run", "net.latch", "images.npy", *CREDENTIALS)
    assert text.status == 0 and "class 1" in text.out and text.err == ""
    top = json.loads(command("run", "net.latch", "images.npy", *CREDENTIALS, "--json").out)["top"]
    assert len(top) == 3 and top[0][0]["score"] >= top[0][1]["score"]


def test_inspect_shows_the_bound_and_needs_no_key(folder: Path, command: Command) -> None:
    for name in ("issuer.key", "device.key", "net.secret", "acme.license"):
        (folder / name).unlink()
    text = command("inspect", "net.latch")
    assert text.status == 0
    assert "2^-64 an image" in text.out
    facts = json.loads(command("inspect", "net.latch", "--json").out)
    assert facts["intact"] is True
    assert facts["false_positive"]["log2"] == -64
    assert facts["false_positive"]["log2_within_bits"]["1"] == pytest.approx(np.log2(65) - 64, abs=0.01)
    assert facts["model_id"] in text.out


def test_inspect_shows_a_license_without_any_key(folder: Path, command: Command) -> None:
    text = command("inspect", "acme.license")
    assert text.status == 0 and "acme" in text.out and "not verified" in text.out
    facts = json.loads(command("license", "inspect", "acme.license", "--trust", "issuer.pub", "--json").out)
    assert facts["verification"] == "signature and time verified"
    assert facts["expires_at"] - facts["not_before"] == 30 * 86_400


def test_bench_compares_and_prints_the_promised_figures(folder: Path, command: Command) -> None:
    facts = json.loads(command("bench", "net.latch", *CREDENTIALS, "--runs", "20", "--json").out)
    assert {"plain_p50_ms", "keyed_p50_ms", "plain_p99_ms", "keyed_p99_ms", "ratio_p50", "ratio_ci95"} <= facts.keys()
    low, high = facts["ratio_ci95"]
    assert 0 < low <= facts["ratio_p50"] <= high
    assert "opened model" in facts["plain"]
    text = command("bench", "net.latch", *CREDENTIALS, "--plain", "net.latch/model.onnx", "--runs", "20")
    assert "original network" in text.out and "ratio" in text.out


def test_lock_takes_a_saved_program_and_weights(folder: Path, command: Command) -> None:
    import torch

    sys.path.insert(0, str(folder))
    try:
        from nets_for_cli import small
    finally:
        sys.path.pop(0)
    network = small().eval()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=({0: batch},))
    torch.export.save(program, "saved.pt2")
    torch.save({"state_dict": network.state_dict()}, "weights.pth")
    common = ("--input", "3x32x32", "--patch-size", "8", "--issuer", "issuer.key", "--json")
    first = command("lock", "saved.pt2", *common, "--out", "a.pt2", "--secret", "a.secret")
    assert first.status == 0, first.err
    second = command("lock", "nets_for_cli:small", "--weights", "weights.pth", *common, "--out", "b.pt2",
                     "--secret", "b.secret")  # fmt: skip
    assert second.status == 0, second.err
    report = json.loads(second.out)["report"]
    assert report["log2_false_positive"] == -64 and report["unlocked_error"] < 1e-5


def test_a_vault_under_a_passphrase_serves_export_and_issuing(folder: Path, command: Command) -> None:
    Path("pass").write_text("correct horse\nsecond line is ignored\n")
    Path("wrong").write_text("battery staple\n")
    lock = ("lock", "nets_for_cli:small", "--input", "3x32x32", "--patch-size", "8", "--out", "p.pt2")
    assert command(*lock, "--secret", "p.secret", "--passphrase-file", "pass").status == 0
    refused = command("export", "p.pt2", "--secret", "p.secret", "--passphrase-file", "wrong", "--out", "p.latch")
    assert refused.status == 1 and "wrong passphrase" in refused.err and not Path("p.latch").exists()
    exported = command("export", "p.pt2", "--secret", "p.secret", "--passphrase-file", "pass", "--out", "p.latch")
    assert exported.status == 0, exported.err
    issue = ("license", "issue", "p.latch", "--secret", "p.secret", "--issuer", "issuer.key", "--to", "device.pub",
             "--customer", "me", "--out", "p.license")  # fmt: skip
    assert command(*issue, "--passphrase-file", "pass").status == 0
    opened = command(
        "run", "p.latch", "images.npy", "--license", "p.license", "--key", "device.key", "--trust", "issuer.pub"
    )
    assert opened.status == 0, opened.err


def test_protected_keys_ask_for_their_passphrase(folder: Path, command: Command) -> None:
    Path("pass").write_text("correct horse\n")
    made = command("device", "init", "--key", "file:safe.key", "--passphrase-file", "pass", "--request", "safe.json",
                   "--json")  # fmt: skip
    assert made.status == 0 and b"PRIVATE KEY" not in Path("safe.key").read_bytes()
    assert json.loads(made.out)["public_key"] == "safe.pub"
    issued = command("license", "issue", "net.latch", "--secret", "net.secret", "--issuer", "issuer.key", "--to",
                     "safe.pub", "--customer", "me", "--out", "safe.license")  # fmt: skip
    assert issued.status == 0
    run = (
        "run",
        "net.latch",
        "images.npy",
        "--license",
        "safe.license",
        "--key",
        "file:safe.key",
        "--trust",
        "issuer.pub",
    )
    assert command(*run, "--passphrase-file", "pass").status == 0
    silent = command(*run)
    assert silent.status == 1 and "--passphrase-file" in silent.err


def test_an_fp16_artifact_with_raw_bytes_runs(folder: Path, command: Command) -> None:
    exported = command("export", "net.pt2", "--secret", "net.secret", "--issuer", "issuer.key", "--out", "half.latch",
                       "--fp16", "--uint8", "--name", "half")  # fmt: skip
    assert exported.status == 0, exported.err
    issued = command("license", "issue", "half.latch", "--secret", "net.secret", "--issuer", "issuer.key", "--to",
                     "device.pub", "--customer", "me", "--out", "half.license")  # fmt: skip
    assert issued.status == 0, issued.err
    np.save("bytes.npy", np.zeros((2, 32, 32, 3), dtype=np.uint8))
    credentials = ("--license", "half.license", "--key", "file:device.key", "--trust", "issuer.pub")
    assert command("run", "half.latch", "bytes.npy", *credentials).status == 0
    # Adding a model to the vault keeps the ones that were there.
    again = command("license", "issue", "net.latch", "--secret", "net.secret", "--issuer", "issuer.key", "--to",
                    "device.pub", "--customer", "me", "--out", "again.license")  # fmt: skip
    assert again.status == 0


def test_a_bf16_artifact_says_what_it_needs(folder: Path, command: Command) -> None:
    export = (
        "export",
        "net.pt2",
        "--secret",
        "net.secret",
        "--issuer",
        "issuer.key",
        "--out",
        "narrow.latch",
        "--bf16",
    )
    both = command(*export, "--fp16")
    assert both.status == 2 and "either --fp16 or --bf16" in both.err
    assert not Path("narrow.latch").exists()
    exported = command(*export)
    assert exported.status == 0, exported.err
    assert "bfloat16 error" in exported.out
    assert "bfloat16" in command("inspect", "narrow.latch").out
    refused = command("run", "narrow.latch", "images.npy", "--locked")
    assert refused.status == 1
    assert "the model computes in bfloat16" in refused.err and "CUDAExecutionProvider" in refused.err


def test_stock_onnxruntime_runs_the_artifact_locked(folder: Path) -> None:
    session = onnxruntime.InferenceSession("net.latch/model.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"image": np.load("images.npy")})[0].shape == (3, 12)


def test_running_needs_neither_torch_nor_onnx(folder: Path) -> None:
    program = (
        "import sys\nfrom keylatch.cli import main\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in {'torch', 'onnx', 'onnxscript', 'onnx_ir', 'transformers', 'matplotlib'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "main()\n"
    )
    arguments = ["run", "net.latch", "images.npy", *CREDENTIALS]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lock = ["lock", "nets_for_cli:small", "--input", "3x32x32", "--out", "x", "--secret", "y"]
    refused = subprocess.run([sys.executable, "-c", program, *lock], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "pip install 'keylatch[export]'" in refused.stderr


def test_the_version_is_that_of_the_distribution(command: Command) -> None:
    outcome = command("--version")
    assert (outcome.status, outcome.out) == (0, f"keylatch {version('keylatch')}\n")
