"""The guards of a process, as a user who is not root: in a process of his own."""

from __future__ import annotations

import os
import subprocess
import sys

NOBODY = 65534

AS_A_USER = f"""
import ctypes, os
from keylatch.keys import guard_process, keep_out_of_core_dumps
if os.geteuid() == 0:
    os.setgid({NOBODY})
    os.setuid({NOBODY})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # changing the user made it undumpable; a user's own process is not
assert os.access("/proc/self/coredump_filter", os.W_OK)
keep_out_of_core_dumps()
guard_process()
assert not os.access("/proc/self/coredump_filter", os.W_OK)
keep_out_of_core_dumps()  # as every opening does
guard_process()
print(open("/proc/self/coredump_filter").read().strip(), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_a_guarded_process_of_a_user_opens_licenses() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", AS_A_USER], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["00000000", "0"]
