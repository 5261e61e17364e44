from __future__ import annotations

from collections.abc import Iterator

import pytest
from tpm_world import Simulator, location

from keylatch.errors import DeviceKeyError, KeyStoreMissingError, OutputError
from keylatch.keys import MonotonicCounter
from keylatch.keys._tpm import TpmCounter, define_counter, open_counter
from keylatch.keys._tpm._structures import NV_COUNTER_ATTRIBUTES, counter_public

INDEX = 0x01800100


@pytest.fixture
def where(tpm: Simulator, backend: str) -> Iterator[str]:
    yield location(tpm, backend, f"nv=0x{INDEX:08x}")
    if INDEX in tpm.handles(0x01000000):
        tpm.undefine(INDEX)


def test_a_counter_counts(where: str) -> None:
    counter: MonotonicCounter = define_counter(where)
    start = counter.read()
    assert [counter.increment() for _ in range(3)] == [start + 1, start + 2, start + 3]
    assert counter.read() == open_counter(where).read() == start + 3


def test_a_counter_that_is_deleted_and_made_again_counts_on(where: str, tpm: Simulator) -> None:
    count = define_counter(where).increment()
    tpm.undefine(INDEX)
    counter = define_counter(where)
    assert counter.read() > count
    assert counter.increment() > count + 1


def test_a_counter_survives_a_restart(own_tpm: Simulator, backend: str) -> None:
    count = define_counter(location(own_tpm, backend, f"nv=0x{INDEX:08x}")).increment()
    own_tpm.stop()
    own_tpm.start()
    assert open_counter(location(own_tpm, backend, f"nv=0x{INDEX:08x}")).read() == count


def test_a_missing_counter_says_so(where: str) -> None:
    with pytest.raises(KeyStoreMissingError, match="0x01800100 does not exist") as caught:
        open_counter(where)
    assert caught.value.hint


def test_a_counter_that_disappears_says_so(where: str, tpm: Simulator) -> None:
    counter = define_counter(where)
    tpm.undefine(INDEX)
    for use in (counter.read, counter.increment):
        with pytest.raises(KeyStoreMissingError, match="does not exist"):
            use()


def test_an_existing_counter_is_never_replaced(where: str) -> None:
    counter = define_counter(where)
    count = counter.increment()
    with pytest.raises(OutputError, match="exists already"):
        define_counter(where)
    assert counter.read() == count


def test_a_counter_without_its_first_increment_is_refused(where: str, tpm: Simulator) -> None:
    tpm.define(counter_public(INDEX, written=False))
    with pytest.raises(DeviceKeyError, match="never incremented"):
        open_counter(where)


def test_ordinary_memory_is_not_taken_for_a_counter(where: str, tpm: Simulator) -> None:
    ordinary = (NV_COUNTER_ATTRIBUTES & ~(1 << 4)).to_bytes(4, "big")
    tpm.define(counter_public(INDEX, written=False).replace(NV_COUNTER_ATTRIBUTES.to_bytes(4, "big"), ordinary))
    with pytest.raises(DeviceKeyError, match="another kind, expected a counter"):
        open_counter(where)


def test_a_counter_works_beside_an_owner_password_but_cannot_be_made(own_tpm: Simulator, backend: str) -> None:
    where = location(own_tpm, backend, f"nv=0x{INDEX:08x}")
    transient = own_tpm.create_primary()
    own_tpm.keep(transient, 0x81000001)
    own_tpm.flush(transient)
    counter = define_counter(where)
    own_tpm.set_owner_password(b"owner")
    assert counter.increment() == 2
    with pytest.raises(DeviceKeyError, match="owner has set an authorization"):
        define_counter(location(own_tpm, backend, f"nv=0x{INDEX + 1:08x}"))


def test_uses_leave_nothing_in_the_tpm(where: str, tpm: Simulator) -> None:
    counter = define_counter(where)
    for _ in range(10):
        counter.increment()
        assert tpm.held() == []


def test_a_counter_shows_its_index(where: str) -> None:
    assert repr(define_counter(where)) == "TpmCounter(nv_index=0x01800100)"
    assert isinstance(open_counter(where), TpmCounter)
