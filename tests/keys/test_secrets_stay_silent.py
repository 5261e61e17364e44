"""Whatever is printed, logged, raised or passed on by these objects, their secret bytes are not in it."""

from __future__ import annotations

import base64
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from license_world import DAY, NOW, SECRET, World

from keylatch.errors import KeylatchError
from keylatch.keys import (
    CosignerKey,
    DeviceState,
    FileDeviceKey,
    FileIssuerKey,
    HybridDeviceKey,
    KnownDevice,
    Ledger,
    LicensedModel,
    LicenseTerms,
    Vault,
    issue_and_record,
    open_device_key,
    open_issuer_key,
    parse_license,
    read_vault,
    write_vault,
)

PASSPHRASE = b"correct horse battery staple"


def spellings(secret: bytes) -> Iterator[bytes]:
    """The ways in which bytes are written by accident."""
    yield secret
    yield secret.hex().encode()
    yield base64.b64encode(secret)[:-4]
    yield base64.urlsafe_b64encode(secret)[:-4]
    yield str(int.from_bytes(secret, "big")).encode()
    yield repr(secret)[2:-1].encode()
    yield str(list(secret))[1:-1].encode()


def holds(text: bytes, secrets: list[bytes]) -> bool:
    return any(spelling in text for secret in secrets for spelling in spellings(secret))


class Made:
    """One of everything that holds a secret, and the secrets."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.device = FileDeviceKey.generate(folder / "device.key")
        self.sealed = FileDeviceKey.generate(folder / "sealed.key", lambda _what: PASSPHRASE)
        self.hybrid = HybridDeviceKey.generate(folder / "hybrid.key")
        self.issuer, self.cosigner = FileIssuerKey.generate(), CosignerKey.generate()
        self.issuer.save(folder / "issuer.key")
        self.state = DeviceState.create(folder / "device.state", self.device, now=NOW)
        self.values = {"gate.patch": np.frombuffer(SECRET, np.uint8)}
        self.vault = Vault({"lock": self.values})
        write_vault(folder / "net.secret", self.vault, issuer=self.issuer)
        self.secrets = [
            *(key._key.private_numbers().private_value.to_bytes(32, "big") for key in (self.device, self.sealed)),
            self.hybrid.private_seed().reveal()[:64],
            self.hybrid.private_seed().reveal()[64:],
            self.issuer._key.private_bytes_raw(),
            self.issuer.vault_key().reveal(),
            self.cosigner._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()),
            self.state._store._mac_key.reveal(),
            PASSPHRASE,
            SECRET,
        ]

    def objects(self) -> list[Any]:
        kept = [self.device, self.sealed, self.hybrid, self.issuer, self.cosigner, self.state, self.vault]
        return [*kept, self.issuer.vault_key(), self.hybrid.private_seed(), self.world.issue()]


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(world, tmp_path_factory.mktemp("made"))


def test_nothing_that_holds_a_secret_shows_it(made: Made) -> None:
    for item in made.objects():
        for shown in (repr(item), str(item), f"{item}", f"{[item]}", f"{item!r:.500}"):
            assert not holds(shown.encode(), made.secrets), type(item)


def use(made: Made) -> None:
    """Everything that touches a secret, once."""
    folder = made.folder
    open_device_key(folder / "sealed.key", passphrase=lambda _what: PASSPHRASE)
    open_device_key(f"hybrid:{folder / 'hybrid.key'}")
    issuer = open_issuer_key(folder / "issuer.key")
    read_vault(folder / "net.secret", issuer=issuer)
    license = made.world.issue(
        devices=[made.device.public, made.hybrid.public], secret_values=made.values, cosigner=made.cosigner
    )
    for key in (made.device, made.hybrid):
        made.world.open(license.serialize(), key)
    DeviceState.open(folder / "device.state", made.device).advance(NOW + DAY)
    (folder / "issuer.ledger").unlink(missing_ok=True)
    with Ledger.create(folder / "issuer.ledger", made.issuer.public) as ledger:
        issue_and_record(
            ledger,
            issuer=made.issuer,
            model=LicensedModel(model_id="3f9a" * 16, name="resnet50", secret_values=made.values),
            devices=[KnownDevice(made.device.public)],
            terms=LicenseTerms(customer="ACME Vision", not_before=NOW, expires_at=NOW + DAY),
        )


def test_nothing_is_logged_printed_or_put_into_the_environment(
    made: Made, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        use(made)
    shown = capfd.readouterr()
    logged = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    environment = repr(os.environ) + Path("/proc/self/environ").read_text() + Path("/proc/self/cmdline").read_text()
    for text in (shown.out, shown.err, logged, environment):
        assert not holds(text.encode(), made.secrets)


def test_no_file_holds_a_secret_but_the_key_files_that_must(made: Made) -> None:
    use(made)
    plain = {"device.key", "hybrid.key", "issuer.key", "sealed.key"}
    for path in made.folder.rglob("*"):
        if path.is_file() and path.name not in plain:
            assert not holds(path.read_bytes(), made.secrets), path.name
    assert not holds((made.folder / "sealed.key").read_bytes(), made.secrets)
    # The control: what is looked for would be found.
    assert holds(made.folder.joinpath("issuer.key").read_bytes() + made.secrets[4], made.secrets)


FAILURES: dict[str, Callable[[Made], object]] = {
    "wrong passphrase": lambda made: open_device_key(made.folder / "sealed.key", passphrase=lambda _what: b"wrong"),
    "key of another kind": lambda made: open_issuer_key(made.folder / "device.key"),
    "vault under another key": lambda made: read_vault(made.folder / "net.secret", issuer=made.world.foreign_issuer),
    "license for another device": lambda made: made.world.open(made.world.issue().serialize(), made.device),
    "damaged blob": lambda made: made.world.open(made.world.resign(made.world.issue(), blob=bytes(64)).serialize()),
    "damaged frame": lambda made: parse_license(made.world.issue().serialize()[:-1]),
    "another device's state": lambda made: DeviceState.open(made.folder / "device.state", made.sealed),
    "value that cannot be stored": lambda made: made.world.issue(secret_values={"": made.values["gate.patch"]}),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_no_error_shows_a_secret(made: Made, failure: str) -> None:
    with pytest.raises(KeylatchError) as caught:
        FAILURES[failure](made)
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error.args) + str(error.hint) + repr(error.__dict__)
    chain = [error.__cause__, error.__context__ if not error.__suppress_context__ else None]
    assert not holds((shown + repr(chain)).encode(), made.secrets)
