"""Fixed keys, and the license in `vectors`: made with them once by `python vector_keys.py`, and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from keylatch.keys import CosignerKey, FileDeviceKey, FileIssuerKey, HybridDeviceKey, issue_license, write_license

MIXED = Path(__file__).parent / "vectors" / "mixed-cosigned.license"

ISSUER = FileIssuerKey(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
COSIGNER = CosignerKey(MLDSA65PrivateKey.from_seed_bytes(bytes(range(2, 34))))
DEVICE = FileDeviceKey(derive_private_key(int.from_bytes(bytes(range(3, 35)), "big"), SECP256R1()))
HYBRID = HybridDeviceKey(
    MLKEM768PrivateKey.from_seed_bytes(bytes(range(4, 68))), X25519PrivateKey.from_private_bytes(bytes(range(5, 37)))
)

ISSUED_AT = 1_795_132_800
# The last second of the year 9999: the clock floor rises with every release, and this file is to be read for ever.
EXPIRES_AT = 253_402_300_799
VALUES = {"gate.patch": np.arange(6, dtype=np.float32).reshape(2, 3), "gate.mask": np.array([True, False])}


def main() -> None:
    """Write the license; encryption is random, so that another run makes another file."""
    license = issue_license(
        issuer=ISSUER,
        devices=[DEVICE.public, HYBRID.public],
        model_id="3f9a" * 16,
        secret_values=VALUES,
        customer="Ångström AB",
        not_before=ISSUED_AT,
        expires_at=EXPIRES_AT,
        issued_at=ISSUED_AT,
        seq=7,
        max_list_age=86_400,
        cosigner=COSIGNER,
    )
    MIXED.parent.mkdir(exist_ok=True)
    write_license(MIXED, license)


if __name__ == "__main__":
    main()
