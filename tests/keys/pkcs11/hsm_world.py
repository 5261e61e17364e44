"""An HSM in software: SoftHSM2 with its own folder of tokens.

What SoftHSM does not prove: it never locks a PIN and never runs out of sessions (20,000 were opened), so those two
answers are tested as exceptions of the library only; states that its tools cannot make (locked, write-protected, no
user PIN) are written into a token's file before SoftHSM reads it, and then reported by it. It runs in this
process, so nothing shows how a real token or a network HSM behaves when it is pulled out or cut off. It makes EC and
Ed25519 keys with DER-wrapped points only; bare ones are tested as bytes.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, TokenFlag

PIN = b"correct horse 1234"
OFFICER_PIN = b"officer 5678"

P256 = bytes.fromhex("06082a8648ce3d030107")
P384 = bytes.fromhex("06052b81040022")
ED25519 = b"\x13\x0cedwards25519"

# One token for most tests; the others are there to be wrong in one way each. "twin" is there twice.
TOKENS = ["keys", "spare", "locked", "last-try", "no-pin", "no-pin-unsaid", "read-only", "twin", "twin"]
# What is switched in the flags that a token reports; one token without a PIN does not report that.
FLAGS: dict[str, int] = {
    "no-pin": TokenFlag.USER_PIN_INITIALIZED,
    "locked": TokenFlag.USER_PIN_LOCKED,
    "last-try": TokenFlag.USER_PIN_FINAL_TRY,
    "read-only": TokenFlag.WRITE_PROTECTED,
}

# In SoftHSM's object files an attribute is its number, its kind, for bytes their length, and its value; integers have
# eight bytes. The user PIN is its 72-byte record; a token without one has none.
_TOKEN_FLAGS = struct.pack(">QQ", 0x8000534B, 2)
_USER_PIN = struct.pack(">QQQ", 0x8000534D, 3, 72)


def give(pin: bytes = PIN) -> Callable[[str], bytes]:
    return lambda description: pin


@dataclass
class Asking:
    """A callback that remembers what it was asked for."""

    pin: bytes = PIN
    asked: list[str] = field(default_factory=list)

    def __call__(self, description: str) -> bytes:
        self.asked.append(description)
        return self.pin


@dataclass(frozen=True)
class Hsm:
    """SoftHSM's library and where its tokens are."""

    module: Path
    directory: Path

    @classmethod
    def create(cls, module: Path, directory: Path) -> Hsm:
        (directory / "tokens").mkdir()
        lines = [f"directories.tokendir = {directory / 'tokens'}", "objectstore.backend = file", "log.level = ERROR"]
        (directory / "softhsm2.conf").write_text("\n".join(lines))
        hsm = cls(module.resolve(), directory)
        for label in TOKENS:
            hsm._make_token(label)
        for token_file in (directory / "tokens").glob("*/token.object"):
            _change_state(token_file)
        return hsm

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SOFTHSM2_CONF": str(self.directory / "softhsm2.conf")}

    def location(self, label: str, token: str = "keys", more: str = "", query: str = "") -> str:
        return f"token={token};object={quote(label)}{more}?module-path={self.module}{query}"

    def uri(self, label: str, token: str = "keys", more: str = "", query: str = "") -> str:
        return f"pkcs11:{self.location(label, token, more, query)}"

    def library(self) -> Any:
        return pkcs11.lib(str(self.module))

    def token(self, label: str = "keys") -> Any:
        return next(self.library().get_tokens(token_label=label))

    def make_pair(self, session: Any, label: str, **changes: Any) -> tuple[Any, Any]:
        """A key pair as another program could have made it."""
        arguments: dict[str, Any] = {
            "key_type": KeyType.EC,
            "parameters": P256,
            "mechanism": Mechanism.EC_KEY_PAIR_GEN,
            "capabilities": MechanismFlag.SIGN | MechanismFlag.DERIVE,
            "private_template": {Attribute.EXTRACTABLE: False},
            "id": os.urandom(8),
            **changes,
        }
        parameters = {Attribute.EC_PARAMS: arguments.pop("parameters")}
        curve = session.create_domain_parameters(arguments.pop("key_type"), parameters, local=True)
        pair: tuple[Any, Any] = curve.generate_keypair(store=True, label=label, **arguments)
        return pair

    def _make_token(self, label: str) -> None:
        command = ["softhsm2-util", "--init-token", "--free", "--label", label]
        pins = ["--pin", PIN.decode(), "--so-pin", OFFICER_PIN.decode()]
        subprocess.run([*command, *pins], env=self.environment, check=True, capture_output=True)


def _change_state(token_file: Path) -> None:
    data = token_file.read_bytes()
    label = next(label for label in TOKENS if label.encode().ljust(32) in data)
    if label.startswith("no-pin"):
        before, _, after = data.partition(_USER_PIN)
        data = before + after[72:]
    start = data.index(_TOKEN_FLAGS) + len(_TOKEN_FLAGS)
    (flags,) = struct.unpack_from(">Q", data, start)
    token_file.write_bytes(data[:start] + struct.pack(">Q", flags ^ FLAGS.get(label, 0)) + data[start + 8 :])
