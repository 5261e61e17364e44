"""Format-preserving encryption of short numbers: FF1 of NIST SP 800-38G, with AES.

FF1 is the standardized form of FFX (Bellare, Rogaway and Spies, "The FFX mode of operation", 2010): ten rounds of a
Feistel network whose halves are numbers in a radix.

Not a cipher to rely on here. A byte as three decimal digits has a domain of 1000; Revision 1 of SP 800-38G wants a
million, because small domains are told apart and reconstructed. The keyed block transforms (arXiv 2103.03525) use this
domain all the same, as a transform of pixels that a network can learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from keylatch.errors import LockError

KEY_BYTES = (16, 24, 32)
RADIX_LIMIT = 1 << 16
# SP 800-38G, section 5.1: radix^length is 100 or more.
SMALLEST_DOMAIN = 100
LARGEST_NUMBER = 999

_ROUNDS = 10
_BLOCK_BYTES = 16
_DIGITS = 3


def ff1_encrypt(key: bytes, tweak: bytes, digits: Sequence[int], radix: int) -> tuple[int, ...]:
    """Encrypt digits to as many digits: FF1.Encrypt, SP 800-38G, algorithm 7.

    Args:
        key: AES key of 16, 24 or 32 bytes.
        tweak: Public bytes that the encryption depends on; may be empty.
        digits: Most significant first, each in [0, radix).
        radix: From 2 to 65536.

    Raises:
        LockError: If the key, the radix or a digit is not as above, or there are fewer than 100 such numbers.
    """
    _require_ff1(key, digits, radix)
    split = len(digits) // 2
    left, right = _number(digits[:split], radix), _number(digits[split:], radix)
    for index in range(_ROUNDS):
        width = split if index % 2 == 0 else len(digits) - split
        left, right = right, (left + _round(key, tweak, index, right, len(digits), radix)) % radix**width
    return (*_digits(left, radix, split), *_digits(right, radix, len(digits) - split))


def byte_table(key: bytes) -> torch.Tensor:
    """What each byte value is encrypted to, written as three decimal digits, without a tweak.

    Args:
        key: AES key of 16, 24 or 32 bytes.

    Returns:
        (256,) int16, distinct numbers in [0, 999].

    Raises:
        LockError: If the key has another length.
    """
    encrypted = (ff1_encrypt(key, b"", _digits(value, 10, _DIGITS), 10) for value in range(256))
    return torch.tensor([_number(digits, 10) for digits in encrypted], dtype=torch.int16)


def _round(key: bytes, tweak: bytes, index: int, half: int, length: int, radix: int) -> int:
    # b bytes hold any right half, and d bytes of key stream are at least four more: the bias of `% radix^m` is small.
    half_bytes = ((radix ** (length - length // 2) - 1).bit_length() + 7) // 8
    stream_bytes = 4 * ((half_bytes + 3) // 4) + 4
    fixed = bytes([1, 2, 1]) + radix.to_bytes(3, "big") + bytes([_ROUNDS, length // 2 % 256])
    fixed += length.to_bytes(4, "big") + len(tweak).to_bytes(4, "big")
    padding = bytes((-len(tweak) - half_bytes - 1) % _BLOCK_BYTES)
    mac = _last_block(key, fixed + tweak + padding + bytes([index]) + half.to_bytes(half_bytes, "big"))
    stream, counter = mac, 0
    while len(stream) < stream_bytes:
        counter += 1
        masked = int.from_bytes(mac, "big") ^ counter
        stream += _last_block(key, masked.to_bytes(_BLOCK_BYTES, "big"))
    return int.from_bytes(stream[:stream_bytes], "big")


def _last_block(key: bytes, data: bytes) -> bytes:
    # CBC from a block of zeros: the standard's PRF; on one block, AES itself.
    encryptor = Cipher(algorithms.AES(key), modes.CBC(bytes(_BLOCK_BYTES))).encryptor()
    return (encryptor.update(data) + encryptor.finalize())[-_BLOCK_BYTES:]


def _number(digits: Sequence[int], radix: int) -> int:
    number = 0
    for digit in digits:
        number = number * radix + digit
    return number


def _digits(number: int, radix: int, count: int) -> tuple[int, ...]:
    return tuple(number // radix**place % radix for place in reversed(range(count)))


def _require_ff1(key: bytes, digits: Sequence[int], radix: int) -> None:
    if len(key) not in KEY_BYTES:
        raise LockError(f"an AES key has 16, 24 or 32 bytes, got {len(key)}", hint="draw 32 bytes")
    if not 2 <= radix <= RADIX_LIMIT:
        raise LockError(f"radix {radix} is not from 2 to {RADIX_LIMIT}", hint="take 10 for decimal digits")
    # Seven digits are enough in any radix: radix^length of a long text would be a number of millions of digits.
    if len(digits) < 2 or radix ** min(len(digits), 7) < SMALLEST_DOMAIN:
        raise LockError(
            f"{len(digits)} digits in radix {radix} are too few, expected 2 or more and {SMALLEST_DOMAIN} numbers",
            hint="give more digits",
        )
    if not all(0 <= digit < radix for digit in digits):
        raise LockError(f"a digit is outside 0 to {radix - 1}", hint="give numbers, most significant first")
