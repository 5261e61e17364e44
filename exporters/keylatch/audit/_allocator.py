"""Keep memory that PyTorch has freed: its activations are large, and each new page is zeroed by the kernel."""

from __future__ import annotations

import ctypes
import sys

# From malloc.h of glibc.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_NEVER = 2**31 - 1
_TOP_PAD_BYTES = 2**28


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory instead of giving it back, for the rest of the process.

    On two cores a training step of MobileNetV2 at 224 x 224 takes 0.45 s instead of 0.83, and an evaluation half the
    time. The process stays as large as it once was, so this is for programs that do nothing else.

    Returns:
        Whether it could be set: False where the C library is not glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    asked = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(bool(mallopt(option, value)) for option, value in asked)
