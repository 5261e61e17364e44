"""Every parser takes hostile bytes: the committed corpus again, and random inputs, without Atheris.

The long way is `make fuzz`; what it finds comes into the corpus.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz import harnesses
from fuzz.attempts import REFUSED, Finding, attempt, must_refuse
from keylatch.errors import FormatError, IntegrityError

FUZZ = Path(harnesses.__file__).parent
# A part of a corpus that grows is enough here; `make fuzz` replays all of it.
MAX_CORPUS_BYTES = 1_500_000
NAMES = harnesses.names()
ESCAPES = (ValueError, KeyError, RecursionError, MemoryError, UnicodeError, OverflowError)


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_finds_nothing(name: str) -> None:
    harness, paths = harnesses.load(name), harnesses.corpus(name)
    assert paths, "no committed corpus: python tests/fuzz/run.py --minimize"
    for data in (*harness.initial_inputs(), *(path.read_bytes() for path in paths)):
        harness(data)


@pytest.mark.parametrize("name", NAMES)
def test_random_inputs_find_nothing(name: str) -> None:
    harness = harnesses.load(name)
    seeds = st.sampled_from(list(harness.initial_inputs()))

    # The same inputs in every run; half of them are seeds with a piece replaced.
    @settings(max_examples=400, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=256) | st.tuples(seeds, st.integers(0, 600), st.binary(max_size=16)).map(_overwritten))
    def attack(data: bytes) -> None:
        harness(data)

    attack()


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_has_seeds(name: str) -> None:
    harness = harnesses.load(name)
    assert len(harness.seeds) == len(harness.attacks)
    assert all(harness.seeds)


@pytest.mark.parametrize("escape", ESCAPES)
def test_an_error_that_is_not_deliberate_is_a_finding(escape: type[Exception]) -> None:
    def parse(data: bytes) -> None:
        raise escape(data)

    with pytest.raises(escape):
        attempt(parse, b"")


@pytest.mark.parametrize("message", ["line\nforged: line", "\x1b[2J", "\udcff", "a" * 10_000])
def test_an_error_that_cannot_be_shown_is_a_finding(message: str) -> None:
    def parse(data: bytes) -> None:
        raise FormatError(message)

    with pytest.raises(Finding):
        attempt(parse, b"")


def test_an_error_that_the_parser_does_not_name_is_a_finding() -> None:
    def parse(data: bytes) -> None:
        raise FormatError("malformed")

    with pytest.raises(FormatError):
        attempt(parse, b"", errors=IntegrityError)


def test_what_is_accepted_must_be_an_original() -> None:
    must_refuse("opened", b"original", {b"original"})
    must_refuse(REFUSED, b"changed", {b"original"})
    with pytest.raises(Finding):
        must_refuse("opened", b"changed", {b"original"})


def test_the_corpus_stays_small() -> None:
    paths = [path for path in harnesses.CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in paths} == set(NAMES)
    assert max(path.stat().st_size for path in paths) <= harnesses.MAX_INPUT_BYTES
    assert sum(path.stat().st_size for path in paths) <= MAX_CORPUS_BYTES


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--only", "nothing"], ["--jobs", "many"]])
def test_the_runner_refuses_a_wrong_command(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, FUZZ / "run.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_the_runner_says_that_atheris_is_missing(tmp_path: Path) -> None:
    hidden = "import importlib.util as u, sys, runpy; find = u.find_spec; "
    hidden += "u.find_spec = lambda name, *rest: None if name == 'atheris' else find(name, *rest); "
    hidden += f"sys.argv = ['run.py']; runpy.run_path({str(FUZZ / 'run.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'keylatch[fuzz]'" in done.stderr


def _overwritten(parts: tuple[bytes, int, bytes]) -> bytes:
    seed, position, piece = parts
    position %= len(seed)
    return seed[:position] + piece + seed[position + len(piece) :]
