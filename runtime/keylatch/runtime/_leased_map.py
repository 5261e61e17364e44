"""A file's bytes where they already lie, in the page cache, and a read lease so that nobody changes them there.

A mapping saves the copy: opening takes less time and half the memory, and processes share one model. But whoever may
write a mapped file could change what was verified. A read lease (fcntl(2), F_SETLEASE) is granted only while nobody
has the file open for writing, and whoever then wants to write or cut it has to wait until the lease is given up, 45 s
at most (proc(5), lease-break-time). The kernel tells `_watch`, which puts a copy in place of the mapped pages first.

What this cannot do: a process that is kept stopped for all that time loses the lease with nothing done about it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import mmap
import os
import signal
import struct
import threading
import weakref

import numpy as np

from keylatch.runtime._aligned_buffer import Buffer

# Only one thread of ours is sent it, and by default it is ignored; SIGIO, the usual one, would end the process.
_SIGNAL = signal.SIGURG
_LOOK_AGAIN_SECONDS = 5.0  # should a signal get lost
_F_SETOWN_EX, _F_OWNER_TID = 15, 0  # asm-generic/fcntl.h
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2  # linux/mman.h
_MAP_FAILED = ctypes.c_void_p(-1).value

# Guards all three; held over a fork, so that the child finds it free.
_lock = threading.Lock()
# Each mapping's own descriptor, which keeps the lease as long as the mapping lives.
_leases: weakref.WeakKeyDictionary[mmap.mmap, int] = weakref.WeakKeyDictionary()
_watcher: int | None = None


def map_leased(descriptor: int, size: int) -> Buffer | None:
    """Map a file that nobody can change as long as the mapping lives.

    Args:
        descriptor: Open for reading only.
        size: The whole file's bytes, more than none.

    Returns:
        (size,) uint8, not writable; None if the file has another size by now, or there is no lease to be had: somebody
        has the file open for writing, it belongs to another user (and there is no CAP_LEASE), or its file system or
        this system has none. Then its bytes have to be copied.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    with _lock:
        own = os.dup(descriptor)
        try:
            _take_lease(own, _watching_thread())
            if os.fstat(own).st_size != size:
                raise OSError
            mapping = mmap.mmap(own, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        except OSError:
            os.close(own)
            return None
        _leases[mapping] = own
        weakref.finalize(mapping, os.close, own).atexit = False
    with contextlib.suppress(OSError):
        mapping.madvise(mmap.MADV_WILLNEED)
    return np.frombuffer(mapping, dtype=np.uint8)


def forget_pages(buffer: Buffer) -> None:
    """Take what `map_leased` gave out of this process's resident memory; what is read again comes from the page cache.

    onnxruntime reads most weights once, to lay them out anew.
    """
    address = buffer.ctypes.data
    with _lock:  # a copy that took the pages' place has nowhere to come from again, and is no longer listed
        for mapping in _leases:
            if _address(mapping) == address:
                mapping.madvise(mmap.MADV_DONTNEED)


def _address(mapping: mmap.mmap) -> int:
    return int(np.frombuffer(mapping, dtype=np.uint8).ctypes.data)


def _take_lease(descriptor: int, thread: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, _SIGNAL)
    fcntl.fcntl(descriptor, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_TID, thread))
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)


def _watching_thread() -> int:
    """The thread that is told when somebody wants to write, started when first needed; its id."""
    global _watcher
    if _watcher is None:
        ready = threading.Event()
        thread = threading.Thread(target=_watch, args=(ready,), name="keylatch-leases", daemon=True)
        thread.start()
        ready.wait()
        _watcher = thread.native_id
    assert _watcher is not None  # noqa: S101  a thread that runs has an id
    return _watcher


def _watch(ready: threading.Event) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {_SIGNAL})  # for this thread: what is blocked waits for `sigtimedwait`
    ready.set()
    while True:
        signal.sigtimedwait({_SIGNAL}, _LOOK_AGAIN_SECONDS)
        with _lock, contextlib.suppress(OSError, MemoryError):  # once more a little later
            _settle_asked_for()


def _settle_asked_for() -> None:
    for mapping, descriptor in list(_leases.items()):
        if fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            _settle(mapping)


def _settle(mapping: mmap.mmap) -> None:
    """Replace mapped pages by a copy at the same address, at once: who reads them sees the same bytes throughout.

    Copy-on-write would not do: cutting the file takes its private copies away as well (mmap(2), SIGBUS).
    """
    size, address = len(mapping), _address(mapping)
    libc = _libc()
    copy = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if copy == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "no memory for a copy of a mapped file")
    ctypes.memmove(copy, address, size)
    if libc.mremap(copy, size, size, _MREMAP_MAYMOVE | _MREMAP_FIXED, ctypes.c_void_p(address)) == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "the copy of a mapped file cannot take its place")
    fcntl.fcntl(_leases.pop(mapping), fcntl.F_SETLEASE, fcntl.F_UNLCK)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    address, size, flags = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.argtypes, libc.mmap.restype = [address, size, flags, flags, flags, ctypes.c_long], address
    libc.mremap.argtypes, libc.mremap.restype = [address, size, size, flags, address], address
    return libc


def _before_fork() -> None:
    # The child has no watching thread, and this process could give a lease up before the child has one of its own.
    _lock.acquire()
    with contextlib.suppress(OSError):
        for mapping in list(_leases):
            _settle(mapping)


def _after_fork_in_child() -> None:
    global _watcher
    _watcher = None
    _lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_after_fork_in_child)
