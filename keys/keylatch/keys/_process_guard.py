"""Keeping this process's memory out of core dumps, and out of the hands of the same user's other processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

from keylatch.errors import KeylatchError

_COREDUMP_FILTER = Path("/proc/self/coredump_filter")
_PR_SET_DUMPABLE = 4  # linux/prctl.h


def keep_out_of_core_dumps() -> None:
    """Lets this process die without a core file, and keeps memory out of what a crash reporter gets instead (core(5)).

    Whoever opens a license calls it; children inherit it. Both settings are needed: a dump without memory still holds
    the vector registers, and those hold secret values; and a reporter that core files are piped to need not care about
    the limit on their size. What it cannot do: stop a debugger, or root.

    Raises:
        KeylatchError: The system does not allow it.
    """
    try:
        # The soft limit only: who knows what he does can raise it again.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        with contextlib.suppress(FileNotFoundError):  # no /proc: then there is no reporter that could read it either
            # After guard_process the file belongs to root; what was written before stays in force.
            if int(_COREDUMP_FILTER.read_text(), 16) != 0:
                _COREDUMP_FILTER.write_text("0x0")
    except (OSError, ValueError) as error:
        found = f"secrets cannot be kept out of core dumps: {error}"
        raise KeylatchError(found, hint="allow the setrlimit system call and writing /proc/self") from None


def guard_process() -> None:
    """Makes this process opaque to others of the same user: no ptrace, no /proc/PID/mem, no core dump at all.

    The `keylatch` command does this first. A server may: its own user's debuggers and profilers then stay out too,
    and files in /proc/PID belong to root (prctl(2), PR_SET_DUMPABLE). It does not stop root.

    Raises:
        KeylatchError: The system does not allow it.
    """
    keep_out_of_core_dumps()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise KeylatchError(f"this process cannot be guarded: {reason}", hint="allow the prctl system call")
