"""A file of this format that was written once is read for ever."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from license_world import NOW
from vector_keys import COSIGNER, DEVICE, EXPIRES_AT, HYBRID, ISSUED_AT, ISSUER, MIXED, VALUES

from keylatch.errors import CosignatureError
from keylatch.keys import CosignerKey, Trust, decrypt_license, parse_license, read_license, verify_license

TRUST = Trust([ISSUER.public], [COSIGNER.public])
THUMBPRINTS = {
    "issuer": "WWpn_pfHui9YKR4CZtQsDGMu7_Gch2zYChfSvnxgtPk",
    "cosigner": "r9ljdxSmoUdhk9Z3YJmY6gwsDkH59n8KpGJwUjwzLpM",
    "device": "i-RMP30_sYyCovV51wCq5OQAr5ssWamGEgnQFgzLhSo",
    "hybrid": "EjgCO4tM7SY26GkD-ulYcUmb2OSjcfFgBu59bURmCUQ",
}


def test_the_file_is_the_one_that_was_written() -> None:
    assert (
        hashlib.sha256(MIXED.read_bytes()).hexdigest()
        == "438d65c908eb571ad70d9ad5e6ec7bf7bbb1839f318b9658250871794ec65acc"
    )
    assert read_license(MIXED).serialize() == MIXED.read_bytes()


def test_thumbprints_of_keys_do_not_change() -> None:
    keys: dict[str, Any] = {"issuer": ISSUER, "cosigner": COSIGNER, "device": DEVICE, "hybrid": HYBRID}
    assert {name: key.public.thumbprint for name, key in keys.items()} == THUMBPRINTS


def test_its_claims_are_read_as_they_were_written() -> None:
    claims = verify_license(read_license(MIXED), TRUST, now=NOW)
    assert claims.to_payload() == {
        "iss": THUMBPRINTS["issuer"],
        "sub": "Ångström AB",
        "aud": "keylatch-runtime",
        "iat": ISSUED_AT,
        "nbf": ISSUED_AT,
        "exp": EXPIRES_AT,
        "jti": "8043eb82-b629-40a2-85f4-91791a2757e9",
        "seq": 7,
        "cnf": {"jkt": sorted([THUMBPRINTS["device"], THUMBPRINTS["hybrid"]])},
        "keylatch": 1,
        "model_id": "3f9a" * 16,
        "max_list_age": 86_400,
        "jwe_sha256": "abdc4e7b95883aedf163be3c25da82de8af514f589741ac6f077345a5d890901",
        "blob_sha256": "3048cbc9a5afeb8a8bb82a94a333434d2948457ecbfaf07612828037e8002163",
        "cosignature_sha256": "8b6160b87712b795c8c9898a3ed43d869e1572333a3eb89660c5911863bd0538",
    }


@pytest.mark.parametrize("key", [DEVICE, HYBRID], ids=["P-256", "hybrid"])
def test_each_device_opens_it(key: Any) -> None:
    license = read_license(MIXED)
    opened = decrypt_license(license, verify_license(license, TRUST, now=NOW), key)
    assert opened.keys() == VALUES.keys()
    for name, value in VALUES.items():
        np.testing.assert_array_equal(opened[name], value, strict=True)


def test_its_recipients_are_of_both_kinds() -> None:
    recipients = json.loads(read_license(MIXED).jwe)["recipients"]
    assert {item["header"]["kid"]: item["header"]["alg"] for item in recipients} == {
        THUMBPRINTS["device"]: "ECDH-ES+A256KW",
        THUMBPRINTS["hybrid"]: "HPKE-MLKEM768-X25519-KE",
    }


def test_its_second_signature_is_that_key_s_alone() -> None:
    other = Trust([ISSUER.public], [CosignerKey.generate().public])
    with pytest.raises(CosignatureError, match="is cosigned by"):
        verify_license(parse_license(MIXED.read_bytes()), other, now=NOW)
