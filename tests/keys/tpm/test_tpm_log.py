"""The TSS's own log: it writes what crosses the bus, and more, as an environment variable tells it to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tpm_world import Simulator, location

from keylatch.keys._tpm import generate_device_key

PIN = b"0000-a-pin-of-32-bytes-and-two"
PROGRAM = f"""
import sys
from keylatch.keys import open_device_key
key = open_device_key(sys.argv[1], passphrase=lambda _: {PIN!r})
print(key.exchange(key.public.key).reveal().hex())
"""


@pytest.mark.parametrize("level", ["all+TRACE", "all+debug", "esys+INFO,tcti+Trace", "all+INFO"])
def test_no_setting_writes_a_pin_or_a_shared_secret(tpm: Simulator, backend: str, tmp_path: Path, level: str) -> None:
    uri = location(tpm, backend, tmp_path / "device.tpm")
    generate_device_key(uri, lambda _: PIN)
    log = tmp_path / "log"
    setting = {"TSS2_LOG": level, "TSS2_LOGFILE": str(log)}
    command = [sys.executable, "-c", PROGRAM, f"tpm:{uri}"]
    ended = subprocess.run(command, env={**os.environ, **setting}, capture_output=True, text=True, check=True)
    secret = ended.stdout.strip()
    assert len(secret) == 64
    written = ended.stderr + (log.read_text("latin-1") if log.exists() else "")
    # Bytes are written in hex, in lines of sixteen.
    digits = re.sub(r"[^0-9a-f]", "", written.lower())
    assert secret[:16] not in digits
    assert PIN.hex()[:16] not in digits
