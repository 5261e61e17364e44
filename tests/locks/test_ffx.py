"""FF1 gives the numbers that NIST publishes, and the table of bytes is one of distinct three-digit numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keylatch.errors import LockError
from keylatch.locks._ffx import byte_table, ff1_encrypt

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
KEY = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3CEF4359D8D580AA4F7F036D6F04FC6A94")
DIGITS_TWEAK, LETTERS_TWEAK = "39383736353433323130", "3737373770717273373737"

# NIST, "Block Cipher Modes of Operation: FF1 Method for Format-Preserving Encryption", samples 1 to 9 (AES-128, -192,
# -256).
SAMPLES = [
    (1, 16, 10, "", "0123456789", "2433477484"),
    (2, 16, 10, DIGITS_TWEAK, "0123456789", "6124200773"),
    (3, 16, 36, LETTERS_TWEAK, "0123456789abcdefghi", "a9tv40mll9kdu509eum"),
    (4, 24, 10, "", "0123456789", "2830668132"),
    (5, 24, 10, DIGITS_TWEAK, "0123456789", "2496655549"),
    (6, 24, 36, LETTERS_TWEAK, "0123456789abcdefghi", "xbj3kv35jrawxv32ysr"),
    (7, 32, 10, "", "0123456789", "6657667009"),
    (8, 32, 10, DIGITS_TWEAK, "0123456789", "1001623463"),
    (9, 32, 36, LETTERS_TWEAK, "0123456789abcdefghi", "xs8a0azh2avyalyzuwd"),
]


@pytest.mark.parametrize(
    ("key_bytes", "radix", "tweak", "plain", "encrypted"),
    [pytest.param(*sample, id=f"sample-{number}") for number, *sample in SAMPLES],
)
def test_ff1_gives_the_samples_of_nist(key_bytes: int, radix: int, tweak: str, plain: str, encrypted: str) -> None:
    digits = [ALPHABET.index(character) for character in plain]
    found = ff1_encrypt(KEY[:key_bytes], bytes.fromhex(tweak), digits, radix)
    assert "".join(ALPHABET[digit] for digit in found) == encrypted


def test_ff1_of_a_long_text_takes_its_key_stream_from_several_aes_blocks() -> None:
    # 197 bits: halves longer than NIST's nine samples have. A vector that another implementation tests itself with
    # (ubiqsecurity, FF1Test, base2_b).
    key = bytes.fromhex("F4A116D6EE406A53A56CBE0F4AA7B1001CDC0A55CAC963CF5ACE390488B3477A")
    tweak = bytes.fromhex("FD7F4B9945A3C535ADB4720027116CA0F4987D7F3FDBA9BBC40E75375FEAA63C")
    plain = f"{0xED2BF3C5F1A0A5186F085722EE94A551AA85FCF9A18CB486:0197b}"
    encrypted = f"{0x66478BE236C95A5D3523CA90EAADD94D777D657034551A9D8:0197b}"
    found = ff1_encrypt(key, tweak, [int(bit) for bit in plain], 2)
    assert "".join(str(bit) for bit in found) == encrypted


@pytest.mark.parametrize(("radix", "length"), [(10, 3), (10, 2), (36, 2), (2, 7), (3, 5)])
def test_ff1_is_a_permutation_of_all_numbers_of_a_length(radix: int, length: int) -> None:
    numbers = [[value // radix**place % radix for place in range(length)] for value in range(radix**length)]
    found = {ff1_encrypt(KEY, b"tweak", digits, radix) for digits in numbers}
    assert len(found) == radix**length
    assert all(len(digits) == length and min(digits) >= 0 and max(digits) < radix for digits in found)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 65535), min_size=2, max_size=300), st.binary(max_size=40))
def test_ff1_keeps_long_texts_in_their_format_and_uses_key_and_tweak(digits: list[int], tweak: bytes) -> None:
    # Halves of many bytes: the key stream of a round is longer than one AES block.
    found = ff1_encrypt(KEY, tweak, digits, 65536)
    assert len(found) == len(digits)
    assert all(0 <= digit < 65536 for digit in found)
    assert found == ff1_encrypt(KEY, tweak, tuple(digits), 65536)
    assert found != ff1_encrypt(KEY, tweak + b"\0", digits, 65536)
    assert found != ff1_encrypt(KEY[:16], tweak, digits, 65536)


def test_the_table_holds_every_byte_as_three_encrypted_digits() -> None:
    table = byte_table(KEY)
    assert (table.dtype, tuple(table.shape)) == (torch.int16, (256,))
    for value in range(256):
        hundreds, tens, ones = ff1_encrypt(KEY, b"", [int(digit) for digit in f"{value:03d}"], 10)
        assert int(table[value]) == 100 * hundreds + 10 * tens + ones


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([16, 24, 32]).flatmap(lambda length: st.binary(min_size=length, max_size=length)))
def test_no_two_bytes_have_the_same_number(key: bytes) -> None:
    table = byte_table(key).tolist()
    assert len(set(table)) == 256
    assert min(table) >= 0
    assert 255 <= max(table) <= 999
    assert table != list(range(256))


def test_another_key_gives_another_table() -> None:
    same = byte_table(KEY) == byte_table(bytes(32))
    assert int(same.sum()) < 8


@pytest.mark.parametrize("length", [0, 15, 17, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(LockError, match=f"16, 24 or 32 bytes, got {length}") as caught:
        byte_table(bytes(length))
    assert caught.value.hint


@pytest.mark.parametrize("radix", [-1, 0, 1, 65537])
def test_a_radix_outside_the_standard_is_refused(radix: int) -> None:
    with pytest.raises(LockError, match=f"radix {radix} is not from 2 to 65536") as caught:
        ff1_encrypt(KEY, b"", [0, 0, 0], radix)
    assert caught.value.hint


@pytest.mark.parametrize("digits", [[0, 10, 0], [0, 0, -1]])
def test_a_digit_outside_the_radix_is_refused(digits: list[int]) -> None:
    with pytest.raises(LockError, match="a digit is outside 0 to 9") as caught:
        ff1_encrypt(KEY, b"", digits, 10)
    assert caught.value.hint


@pytest.mark.parametrize(("digits", "radix"), [([], 10), ([1], 10), ([1], 65536), ([1] * 6, 2), ([1, 1], 9)])
def test_too_few_digits_are_refused(digits: list[int], radix: int) -> None:
    with pytest.raises(LockError, match=f"{len(digits)} digits in radix {radix} are too few") as caught:
        ff1_encrypt(KEY, b"", digits, radix)
    assert caught.value.hint
