"""An interposer on the bus between a program and a TPM: it records all that passes, and may alter the answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tpm_world import Simulator, free_ports, receive_message

Alter = Callable[[int, bytes, bytes], bytes]


def pass_on(code: int, command: bytes, response: bytes) -> bytes:
    return response


@dataclass
class Bus:
    """Stands where a simulator stands; `alter` takes command code, command and response, and returns the response."""

    behind: Simulator
    alter: Alter = pass_on
    port: int = field(default_factory=free_ports)
    commands: list[bytes] = field(default_factory=list)
    responses: list[bytes] = field(default_factory=list)

    @property
    def tcti(self) -> str:
        return f"swtpm:host=127.0.0.1,port={self.port}"

    @property
    def wire(self) -> bytes:
        return b"|".join(self.commands + self.responses)

    @property
    def codes(self) -> list[int]:
        return [int.from_bytes(command[6:10], "big") for command in self.commands]

    def serve(self, listener: socket.socket, exchange: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed: the test is over
                return
            with connection, contextlib.suppress(OSError):
                exchange(connection)

    def exchange_commands(self, connection: socket.socket) -> None:
        while command := receive_message(connection):
            response = self.alter(int.from_bytes(command[6:10], "big"), command, self.behind.transmit(command))
            self.commands.append(command)
            self.responses.append(response)
            connection.sendall(response)

    def exchange_control(self, connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.behind.port + 1)) as behind:
            while data := connection.recv(4096):
                behind.sendall(data)
                connection.sendall(behind.recv(4096))


@contextlib.contextmanager
def interposed(behind: Simulator, alter: Alter = pass_on) -> Iterator[Bus]:
    bus = Bus(behind, alter)
    ends = [bus.exchange_commands, bus.exchange_control]
    listeners = [socket.create_server(("127.0.0.1", bus.port + offset)) for offset in range(2)]
    pairs = zip(listeners, ends, strict=True)
    threads = [threading.Thread(target=bus.serve, args=pair, daemon=True) for pair in pairs]
    for thread in threads:
        thread.start()
    try:
        yield bus
    finally:
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which close() alone does not
            listener.close()
        for thread in threads:
            thread.join(10)
