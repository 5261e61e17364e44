"""A license's blob, its digest really signed: the encryption, the tensors inside, what the model makes of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

import numpy as np
import safetensors.numpy

from keylatch.keys import License, canonical_json
from vectors.base_originals import GATE, MODEL_ID, VALUES, base
from vectors.content_keys import seal_blob
from vectors.signing import flip, license_vector, payload_of, with_parts
from vectors.value_headers import Array, value_headers
from vectors.vector_file import Vector


def vectors() -> Iterator[Vector]:
    yield from _ciphertexts()
    yield from _plaintexts()
    yield from _model_misfits()


def _vector(
    name: str, comment: str, license: License, expect: str = "IntegrityError", *given: tuple[str, str]
) -> Vector:
    return license_vector(f"blob-{name}", expect, comment, license, *given)


def _ciphertexts() -> Iterator[Vector]:
    license = base("p256")
    blob = license.blob
    changes = {
        "tag-flipped": (flip(blob), "the tag's last bit is flipped"),
        "ciphertext-flipped": (flip(blob, 12 * 8), "the ciphertext's first bit is flipped"),
        "nonce-flipped": (flip(blob, 0), "the nonce's first bit is flipped"),
        "nonce-truncated": (blob[1:], "the nonce lacks its first byte"),
        "tag-truncated": (blob[:-4], "the tag is cut to 96 bits"),
        "longer": (blob + b"\0", "a byte follows the tag"),
        "nonce-alone": (blob[:12], "there is nothing but the nonce"),
        "one-byte": (blob[:1], "there is nothing but a byte of the nonce"),
        "without-ciphertext": (blob[:12] + blob[-16:], "there is nothing but nonce and tag"),
    }
    for name, (data, comment) in changes.items():
        yield _vector(name, comment, with_parts(license, blob=data))
    other = payload_of(base("p256-second"))["jti"]
    plaintext = safetensors.numpy.save(VALUES)
    comment = "encrypted rightly, with another license's id as associated data"
    yield _vector("associated-data", comment, seal_blob(license, plaintext, license_id=other))
    license, comment = seal_blob(license, plaintext), "encrypted under another nonce, which is as good"
    yield _vector("re-encrypted", comment, license, "success", *value_headers(VALUES))


def _plaintexts() -> Iterator[Vector]:
    whole = safetensors.numpy.save(VALUES)
    (header_bytes,) = struct.unpack("<Q", whole[:8])
    header, data = json.loads(whole[8 : 8 + header_bytes]), whole[8 + header_bytes :]

    def safetensors_file(changed: bytes) -> bytes:
        return struct.pack("<Q", len(changed)) + changed + data

    def typed(dtype: str) -> bytes:
        return safetensors_file(canonical_json({**header, "gate.scale": {**header["gate.scale"], "dtype": dtype}}))

    start, end = header["gate.scale"]["data_offsets"]
    outside = {**header, "gate.scale": {**header["gate.scale"], "data_offsets": [start, end + 8]}}
    overlapping = {**header, "copy": header["gate.scale"]}
    twice = canonical_json(header)[:-1] + b',"gate.scale":' + canonical_json(header["gate.scale"]) + b"}"
    plaintexts = {
        "empty": (b"", "is empty"),
        "not-safetensors": (b"\x80\x04K\x01.", "is a pickle"),
        "truncated": (whole[:-1], "lacks its last byte"),
        "trailing": (whole + b"\0", "has a byte more"),
        "header-length": (struct.pack("<Q", 2**63) + whole[8:], "has a header of 2^63 bytes"),
        "header-not-json": (safetensors_file(b"{" * 16), "has a header that is not JSON"),
        "offsets-outside": (safetensors_file(canonical_json(outside)), "has a tensor that ends behind the file"),
        "offsets-overlapping": (safetensors_file(canonical_json(overlapping)), "has two tensors in one place"),
        "name-twice": (safetensors_file(twice), "has a tensor's name twice"),
        "name-unprintable": (
            safetensors.numpy.save({**VALUES, "gate.\x1b[2J": GATE["gate.patch"]}),
            "has a tensor whose name holds a terminal's escape",
        ),
        "name-empty": (safetensors.numpy.save({**VALUES, "": GATE["gate.patch"]}), "has a tensor without a name"),
        "complex64": (_eight_bytes_as(header, data, "C64", 1), "has a tensor of complex64"),
        "bfloat16": (_eight_bytes_as(header, data, "BF16", 4), "has a tensor of bfloat16"),
        "float8": (_eight_bytes_as(header, data, "F8_E4M3", 8), "has a tensor of float8"),
        "unknown-dtype": (typed("F128"), "has a tensor of an unknown dtype"),
    }
    for name, (plaintext, what) in plaintexts.items():
        yield _vector(f"plaintext-{name}", f"the plaintext {what}", seal_blob(base("p256"), plaintext))


def _eight_bytes_as(header: dict[str, dict[str, object]], data: bytes, dtype: str, count: int) -> bytes:
    """The tensors with the eight bytes of gate.scale as `count` values of another dtype."""
    changed = canonical_json({**header, "gate.scale": {**header["gate.scale"], "dtype": dtype, "shape": [count]}})
    return struct.pack("<Q", len(changed)) + changed + data


def _model_misfits() -> Iterator[Vector]:
    """Step 11: a runtime holds the tensors to the manifest; whoever opens licenses without a model cannot."""
    pairs = VALUES["known_answer.pairs"]
    misfits: dict[str, tuple[dict[str, Array | None], str]] = {
        "tensor-missing": ({"gate.scale": None}, "a gate tensor is missing"),
        "tensor-unknown": ({"gate.more": np.zeros(2, np.uint8)}, "there is a tensor that the manifest does not name"),
        "tensor-dtype": ({"gate.patch": GATE["gate.patch"].astype(np.int8)}, "a gate tensor has another dtype"),
        "tensor-shape": ({"gate.scale": GATE["gate.scale"].reshape(2, 1)}, "a gate tensor has another shape"),
        "answer-missing": ({name: None for name in VALUES if name not in GATE}, "there is no known answer"),
        "answer-tag-missing": ({"known_answer.tag": None}, "the known answer has no tag"),
        "answer-key-short": (
            {"known_answer.key": VALUES["known_answer.key"][:16]},
            "the known answer's key has 16 bytes",
        ),
        "answer-unknown": ({"known_answer.bits": np.array([True])}, "the known answer brings the answer itself"),
        "answer-images-0": ({"known_answer.images": np.array([0], np.int64)}, "the known answer has no image"),
        "answer-images-65": ({"known_answer.images": np.array([65], np.int64)}, "the known answer has 65 images"),
        "answer-pairs-0": ({"known_answer.pairs": np.zeros((0, 2), np.int64)}, "the known answer has no pair"),
        "answer-pairs-float": (
            {"known_answer.pairs": pairs.astype(np.float64)},
            "the known answer's pairs are no integers",
        ),
        "answer-pairs-negative": ({"known_answer.pairs": -1 - pairs}, "a pair's position is negative"),
    }
    model = (("model", MODEL_ID), *(("gate", text.rsplit(" ", 1)[0]) for _, text in value_headers(GATE)))
    for name, (changes, comment) in misfits.items():
        values = {key: value for key, value in {**VALUES, **changes}.items() if value is not None}
        license = seal_blob(base("p256"), safetensors.numpy.save(values))
        yield license_vector(f"model-{name}", "IntegrityError", comment, license, *model)
