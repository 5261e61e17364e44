"""Throw-away keys, and valid files made with them, for the harnesses to change.

The keys come from one seed, and the files are committed beside it, so that an input means the same in every process.
`python tests/fuzz/make_originals.py` makes both anew, after a change of a format; the old corpus then tests on.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from keylatch.keys import CosignerKey, FileDeviceKey, FileIssuerKey, HybridDeviceKey, Trust

FOLDER = Path(__file__).parent / "originals"
MODEL_ID, OTHER_MODEL_ID = "3f9a" * 16, "b71c" * 16
DAY = 86_400
# Within every license's validity, and after any release's build time: 2027-01-15.
NOW = 1_800_000_000
EXPIRES_AT = NOW + 20_000 * DAY
SECRETS = MappingProxyType({"gate.patch": b"\x5a\x11\xc3\x77secret-values\xff\xfe\xfd\xfc"})
PASSPHRASE = b"a throw-away passphrase"

_SEED = bytes.fromhex((FOLDER / "seed.hex").read_text())


def _seed(name: str, count: int = 32) -> bytes:
    return hashlib.shake_256(_SEED + name.encode()).digest(count)


def _device(name: str) -> FileDeviceKey:
    return FileDeviceKey(derive_private_key(int.from_bytes(_seed(name)) >> 1 or 1, SECP256R1()))


def _issuer(name: str) -> FileIssuerKey:
    return FileIssuerKey(Ed25519PrivateKey.from_private_bytes(_seed(name)))


def _cosigner(name: str) -> CosignerKey:
    return CosignerKey(MLDSA65PrivateKey.from_seed_bytes(_seed(name)))


ISSUER, FOREIGN_ISSUER = _issuer("issuer"), _issuer("foreign issuer")
DEVICE, OTHER_DEVICE, FOREIGN_DEVICE = _device("device"), _device("other device"), _device("foreign device")
HYBRID_DEVICE = HybridDeviceKey(
    MLKEM768PrivateKey.from_seed_bytes(_seed("ml-kem", 64)), X25519PrivateKey.from_private_bytes(_seed("x25519"))
)
COSIGNER, FOREIGN_COSIGNER = _cosigner("cosigner"), _cosigner("foreign cosigner")
TRUST = Trust([ISSUER.public])
COSIGNED_TRUST = Trust([ISSUER.public], [COSIGNER.public])


def original(name: str) -> bytes:
    """A committed valid file."""
    return (FOLDER / name).read_bytes()
