"""The demo of domains, with a shorter training: every license opens what it names."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_world import Command

from keylatch.cli._demo import digit_domains, domain_training
from keylatch.cli._demo.domain_story import choices
from keylatch.errors import InputError


def test_each_license_opens_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(domain_training, "EPOCHS", 8)
    monkeypatch.setattr(domain_training, "MASK_EPOCHS", 10)
    monkeypatch.setattr(domain_training, "MASK_RATE", 0.1)  # as 50 epochs at the demo's: no luck in what is asserted
    images, labels = digit_domains._small_digits()
    monkeypatch.setattr(digit_domains, "_small_digits", lambda: (images[:600], labels[:600]))
    outcome = command("demo-domains", "--json")
    assert outcome.status == 0, outcome.err
    result = json.loads(outcome.out)
    rows = result["accuracy"]
    assert list(rows) == [
        "no license", "license for paper", "license for colored", "license for paper + colored", "original network"
    ]  # fmt: skip
    original, nothing = rows["original network"], rows["no license"]
    assert original["digits"] > 80
    assert rows["license for paper + colored"] == original
    assert result["largest_difference"] < 1e-5
    assert nothing["digits"] > nothing["paper"] + 20
    assert rows["license for paper"]["paper"] > nothing["paper"] + 20
    assert set(result["withheld"]) == {"paper", "colored"}
    picture = Path(result["picture"]).read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", picture[16:24])[0] > 800


def test_made_domains_share_no_digit_between_training_and_test() -> None:
    domains = digit_domains.load_digit_domains(None)
    assert list(domains) == ["digits", "paper", "colored"]
    sizes = {len(domain.test_labels) for domain in domains.values()}
    assert sizes == {449}
    first = domains["digits"]
    for domain in domains.values():
        assert torch.equal(domain.test_labels, first.test_labels)  # the same digits are held out everywhere
        assert domain.train_images.shape == (1348, 3, 32, 32) and domain.train_images.dtype == torch.uint8
    gray, paper = (domains[name].test_images.float().mean() for name in ("digits", "paper"))
    assert paper > 150 > 100 > gray
    colors = domains["colored"].test_images.float()
    assert float((colors[:, 0] - colors[:, 1]).abs().mean()) > 20


def test_the_data_pack_gives_mnist_as_the_source(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    labels = (np.arange(40) % 10).astype(np.uint8)
    np.savez(folder / "mnist_t10k.npz", x=np.full((40, 28, 28), 7, np.uint8), y=labels)
    np.savez(folder / "usps.npz", x_train=np.full((40, 16, 16), 9, np.uint8), y_train=labels)
    np.savez(folder / "mnist_m_2000.npz", x=np.full((40, 32, 32, 3), 11, np.uint8), y=labels)
    domains = digit_domains.load_digit_domains(tmp_path)
    assert list(domains) == ["mnist", "usps", "mnist-m", "digits"]
    assert [int(domain.train_images[0, 0, 5, 5]) for domain in domains.values()][:3] == [7, 9, 11]
    assert len(domains["usps"].train_labels) == 30 and len(domains["usps"].test_labels) == 10


def test_a_folder_without_digits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mnist_t10k\.npz cannot be read"):
        digit_domains.load_digit_domains(tmp_path)


def test_every_choice_of_domains_has_a_license() -> None:
    assert choices(["a", "b", "c"]) == [
        ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")
    ]  # fmt: skip
