"""One SoftHSM for these tests, and one open device key.

SoftHSM reads SOFTHSM2_CONF once, when a process loads it: hence one folder of tokens for the whole run, never the
user's own, and a token for each state that a test needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hsm_world import Hsm, give

from keylatch.keys import generate_device_key, generate_issuer_key
from tools import require_programs, softhsm_module


@pytest.fixture(scope="session")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hsm]:
    module = softhsm_module()
    require_programs("softhsm2-util", package="softhsm2")
    hsm = Hsm.create(module, tmp_path_factory.mktemp("softhsm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", hsm.environment["SOFTHSM2_CONF"])
        yield hsm


@pytest.fixture(scope="session")
def device(hsm: Hsm) -> Any:
    return generate_device_key(hsm.uri("device"), passphrase=give())


@pytest.fixture(scope="session")
def issuer(hsm: Hsm) -> Any:
    return generate_issuer_key(hsm.uri("issuer"), passphrase=give())
