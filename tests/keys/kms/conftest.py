"""One KMS for these tests: moto, on a port of this machine, and credentials that are none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kms_world import KmsWorld
from moto.server import ThreadedMotoServer

from keylatch.keys import DevicePublicKey, generate_device_key


@dataclass(frozen=True)
class MadeKey:
    """A device key whose file stands at `key_path`."""

    public: DevicePublicKey


@pytest.fixture(scope="module", autouse=True)
def aws_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No credentials but these, no configuration, and no request to an instance's metadata."""
    nowhere = tmp_path_factory.mktemp("aws") / "nothing"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "none")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", str(nowhere))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere))
        yield


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def kms(moto_endpoint: str, aws_environment: None) -> KmsWorld:
    return KmsWorld.create(moto_endpoint)


@pytest.fixture
def key_path(tmp_path: Path) -> Path:
    return tmp_path / "device.kms"


@pytest.fixture(scope="module")
def made_key(kms: KmsWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeKey, bytes]:
    path = tmp_path_factory.mktemp("kms") / "device.kms"
    return MadeKey(generate_device_key(kms.new_uri(path)).public), path.read_bytes()


@pytest.fixture
def device(made_key: tuple[MadeKey, bytes], key_path: Path) -> MadeKey:
    key_path.write_bytes(made_key[1])
    key_path.chmod(0o600)
    return made_key[0]
