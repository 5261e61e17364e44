"""`keylatch stain` and `keylatch verify-stain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_world import Command, Outcome

SEALED = ("--issuer", "issuer.key")
STAIN = (
    "stain", "nets_for_cli:small", "--input", "3x32x32", *SEALED, "--layer", "body.2", "--rate", "1e-2", "--count", "2",
    "--decoys", "14", "--out", "stained.safetensors", "--secret", "stain.secret", "--commit", "stain.commitment",
)  # fmt: skip
VERIFY = ("verify-stain", "--secret", "stain.secret", *SEALED)


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What the one staining of this module wrote, file by file: it takes seconds."""
    return {}


@pytest.fixture
def stained(folder: Path, command: Command, kept: dict[str, Any]) -> dict[str, Any]:
    """Facts of the staining; its files stand in the current folder."""
    if not kept:
        made = command(*STAIN, "--json")
        assert made.status == 0, made
        names = ("stained.safetensors", "stain.secret", "stain.commitment", "issuer.key", "issuer.pub")
        kept.update(facts=json.loads(made.out), files={name: (folder / name).read_bytes() for name in names})
    for name, data in kept["files"].items():
        (folder / name).write_bytes(data)
    (folder / "issuer.key").chmod(0o600)
    found: dict[str, Any] = kept["facts"]
    return found


def predict(folder: Path, *, weights: str | None, probes: str = "probes.npy") -> None:
    """Answer the probes as a suspect's service would, and write them down."""
    import importlib
    import sys

    import safetensors.torch

    sys.path.insert(0, str(folder))
    network = importlib.import_module("nets_for_cli").small().eval()
    sys.path.pop(0)
    if weights is not None:
        network.load_state_dict(safetensors.torch.load_file(folder / weights))
    shown = torch.from_numpy(np.load(folder / probes)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        np.savetxt(folder / "predictions.csv", network(shown).numpy(), delimiter=",", header="scores", comments="")


def test_a_stain_is_found_by_weights_by_predictions_and_in_its_commitment(
    folder: Path, command: Command, stained: dict[str, Any]
) -> None:
    report = stained["report"]
    assert (report["layer"], report["fan_in"], report["decoys"]) == ("body.2", 576, 14)
    assert all(facts["bound"] <= 1e-2 and facts["hits"] == 0 for facts in report["stains"])
    outcome = command(
        *VERIFY, "--model", "stained.safetensors", "--source", "nets_for_cli:small", "--commitment", "stain.commitment",
        "--trust", "issuer.pub", "--write-probes", "probes.npy", "--json",
    )  # fmt: skip
    assert outcome.status == 0, outcome
    facts = json.loads(outcome.out)
    assert facts["weights"]["stained"]
    assert facts["weights"]["p_value"] < 1e-30
    assert all(match["response"] > 1 and match["answer"] > 0 for match in facts["weights"]["matches"])
    assert facts["commitment"]["issued_at"] > 1_700_000_000
    predict(folder, weights="stained.safetensors")
    outcome = command(*VERIFY, "--predictions", "predictions.csv")
    assert outcome.status == 0, outcome
    assert "p = 8.3e-03: chance that as many decoys look as good, 8.3e-03 at best" in outcome.out


def test_an_unstained_network_exits_1_and_says_so(folder: Path, command: Command, stained: dict[str, Any]) -> None:
    import safetensors.torch

    state = safetensors.torch.load_file(folder / "stained.safetensors")
    generator = torch.Generator().manual_seed(0)
    state["body.2.weight"] = torch.randn(state["body.2.weight"].shape, generator=generator)
    safetensors.torch.save_file(state, folder / "other.safetensors")
    outcome = command(*VERIFY, "--model", "other.safetensors")
    assert outcome.status == 1
    assert "not shown to be stained; p = " in outcome.out


def test_what_is_printed_names_every_bound(folder: Path, command: Command, stained: dict[str, Any]) -> None:
    outcome = command(*VERIFY, "--model", "stained.safetensors")
    assert outcome.status == 0
    assert "stained; p = " in outcome.out
    assert "chance in weights made without the secret" in outcome.out


def refused(outcome: Outcome, words: str, status: int = 1) -> None:
    assert outcome.status == status, outcome
    assert outcome.out == ""
    assert words in outcome.err
    assert "Traceback" not in outcome.err


def test_a_tampered_or_foreign_commitment_is_refused(folder: Path, command: Command, stained: dict[str, Any]) -> None:
    check = (*VERIFY, "--commitment", "stain.commitment")
    refused(command(*check), "no trusted issuer was given")
    command("issuer", "init", "--out", "foreign.key")
    refused(command(*check, "--trust", "foreign.pub"), "signed by issuer")
    data = bytearray((folder / "stain.commitment").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "stain.commitment").write_bytes(bytes(data))
    refused(command(*check, "--trust", "issuer.pub"), "stain commitment")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "absent.safetensors"), "cannot be read"),
        (("--model", "images.npy"), "do not load"),
        (("--model", "nets_for_cli.safetensors"), "do not load"),
        (("--model", "foreign.pt"), "it is of another architecture"),
        (("--predictions", "absent.csv"), "cannot be read"),
        (("--predictions", "nets_for_cli.py"), "not a table of numbers"),
        (("--predictions", "short.csv"), "3 predictions for 16 probes"),
        (("--write-probes", "images.npy"), "exists already"),
    ],
)
def test_bad_suspects_are_refused(
    folder: Path, command: Command, stained: dict[str, Any], arguments: tuple[str, ...], words: str
) -> None:
    torch.save({"conv.weight": torch.zeros(4, 4)}, folder / "foreign.pt")
    (folder / "short.csv").write_text("class\n1\n2\n3\n")
    (folder / "nets_for_cli.safetensors").write_bytes(b"no tensors here, only words")
    refused(command(*VERIFY, *arguments), words)


def test_wrong_usage_exits_2(folder: Path, command: Command, stained: dict[str, Any]) -> None:
    assert command(*VERIFY).status == 2
    assert command(*VERIFY, "--source", "nets_for_cli:small").status == 2
    unsigned = [argument for argument in STAIN if argument not in SEALED]
    assert command(*unsigned).status == 2


def test_a_vault_of_a_lock_holds_no_stain(folder: Path, command: Command) -> None:
    outcome = command("verify-stain", "--secret", "net.secret", *SEALED, "--model", "images.npy")
    refused(outcome, "holds no stain secret")


def test_a_layer_that_is_too_narrow_is_refused_and_nothing_is_written(folder: Path, command: Command) -> None:
    arguments = [("stem.0" if argument == "body.2" else argument) for argument in STAIN]
    refused(command(*arguments), "reads 27 values at a position, too few")
    assert not any((folder / name).exists() for name in ("stained.safetensors", "stain.secret", "stain.commitment"))
