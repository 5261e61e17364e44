"""A TPM 2.0 simulator in its own process, and raw commands by which tests play its owner, others, or an attacker."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keylatch.keys._tpm._structures import sized, storage_root_template

OWNER, LOCKOUT_HIERARCHY, NO_HANDLE = 0x40000001, 0x4000000A, 0x40000007
CREATE_PRIMARY, CREATE, START_SESSION, ECDH_ZGEN, NV_READ = 0x131, 0x153, 0x176, 0x154, 0x14E
NV_INCREMENT, PCR_READ, SIGN, LOAD, READ_PUBLIC = 0x134, 0x17E, 0x15D, 0x157, 0x173
TRANSIENT, LOADED_SESSION, SAVED_SESSION, PERSISTENT = 0x80000000, 0x02000000, 0x03000000, 0x81000000
SRK_TEMPLATE = storage_root_template(2 * sized(bytes(32)))


class Simulator:
    """swtpm, with a TPM that keeps its state in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.start()

    @property
    def tcti(self) -> str:
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def start(self) -> None:
        # Between looking for free ports and taking them somebody else may.
        if not any(self._starts() for _ in range(3)):
            raise AssertionError("swtpm does not start")

    def _starts(self) -> bool:
        self.port = free_ports()
        channel = "type=tcp,bindaddr=127.0.0.1,port="
        ends = ["--server", f"{channel}{self.port}", "--ctrl", f"{channel}{self.port + 1}"]
        state = ["--tpmstate", f"dir={self.directory}", "--flags", "not-need-init,startup-clear"]
        self.process = subprocess.Popen(["swtpm", "socket", "--tpm2", *state, *ends], stderr=subprocess.DEVNULL)
        return self._answers()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        for _ in range(1000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port + 1)):
                return self.process.poll() is None
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        self.stop()
        return False

    def command(self, code: int, body: bytes, *, tag: int = 0x8001) -> bytes:
        """Sends a command and returns what follows the response's header."""
        response = self.transmit(struct.pack(">HII", tag, 10 + len(body), code) + body)
        answer = int.from_bytes(response[6:10], "big")
        assert answer == 0, f"command 0x{code:x} was answered with 0x{answer:x}"
        return response[10:]

    def transmit(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(command)
            return receive_message(connection)

    def authorized(self, code: int, handles: list[int], parameters: bytes, password: bytes = b"") -> bytes:
        session = struct.pack(">IHB", 0x40000009, 0, 0) + sized(password)
        area = b"".join(struct.pack(">I", handle) for handle in handles) + struct.pack(">I", len(session)) + session
        return self.command(code, area + parameters, tag=0x8002)

    def handles(self, first: int) -> list[int]:
        answer = self.command(0x17A, struct.pack(">III", 1, first, 64))
        count = int.from_bytes(answer[5:9], "big")
        return list(struct.unpack(f">{count}I", answer[9 : 9 + 4 * count]))

    def held(self) -> list[int]:
        """Everything that occupies a slot."""
        return [handle for first in (TRANSIENT, LOADED_SESSION, SAVED_SESSION) for handle in self.handles(first)]

    def flush(self, handle: int) -> None:
        self.command(0x165, struct.pack(">I", handle))

    def extend_pcr(self, index: int) -> None:
        self.authorized(0x182, [index], struct.pack(">IH", 1, 0x000B) + b"\x17" * 32)

    def create_primary(self, template: bytes = SRK_TEMPLATE) -> int:
        parameters = sized(sized(b"") + sized(b"")) + template + sized(b"") + bytes(4)
        return int.from_bytes(self.authorized(CREATE_PRIMARY, [OWNER], parameters)[:4], "big")

    def start_session(self) -> int:
        body = struct.pack(">II", NO_HANDLE, NO_HANDLE) + sized(bytes(16)) + sized(b"") + b"\0" + b"\0\x10\0\x0b"
        return int.from_bytes(self.command(START_SESSION, body)[:4], "big")

    def keep(self, handle: int, persistent: int) -> None:
        self.authorized(0x120, [OWNER, handle], struct.pack(">I", persistent))

    def undefine(self, index: int) -> None:
        self.authorized(0x122, [OWNER, index], b"")

    def define(self, nv_public: bytes) -> None:
        self.authorized(0x12A, [OWNER], sized(b"") + nv_public)

    def set_owner_password(self, new: bytes, old: bytes = b"") -> None:
        self.authorized(0x129, [OWNER], sized(new), old)

    def set_lockout(self, tries: int, seconds: int) -> None:
        self.authorized(0x13A, [LOCKOUT_HIERARCHY], struct.pack(">III", tries, seconds, seconds))

    def end_lockout(self) -> None:
        self.authorized(0x139, [LOCKOUT_HIERARCHY], b"")


def receive_message(connection: socket.socket) -> bytes:
    """One command or response; its header holds its size. Empty when the other side has closed."""
    data = b""
    while len(data) < 10 or len(data) < int.from_bytes(data[2:6], "big"):
        piece = connection.recv(4096)
        if not piece:
            return b""
        data += piece
    return data


def free_ports() -> int:
    """The first of two free ports in a row, below those that the system hands out by itself."""
    for port in range(20_000 + time.monotonic_ns() // 1000 % 10_000, 32_000, 2):
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port
    raise AssertionError("no free ports")


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Simulator]:
    directory.mkdir()
    simulator = Simulator(directory)
    try:
        yield simulator
    finally:
        simulator.stop()


def give(pin: bytes) -> Callable[[str], bytes]:
    return lambda description: pin


def location(tpm: Simulator, backend: str, path: object, **options: Any) -> str:
    """A key's or counter's URI without its scheme."""
    query = {"tcti": tpm.tcti, "backend": backend, **options}
    return f"{path}?" + "&".join(f"{name}={value}" for name, value in query.items())
