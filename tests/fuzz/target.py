"""One harness under Atheris, as its own process: `python target.py NAME FOLDER [LIBFUZZER-FLAG …]`.

Seeds and the dictionary are written to FOLDER, new inputs go to FOLDER/corpus, findings to FOLDER/findings.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz.harnesses import MAX_INPUT_BYTES, Harness, corpus, load

# An input that takes longer than this, in seconds, or more memory, in MiB, is a finding.
INPUT_TIMEOUT = 10
MEMORY_LIMIT = 2048


def main() -> None:
    name, folder, flags = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    with atheris.instrument_imports(include=["keylatch"]):
        harness = load(name)
    for kind in ("seeds", "corpus", "findings", "committed"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    _write_seeds(harness, folder / "seeds")
    _write_words(harness.words, folder / "words.dict")
    for path in corpus(name):
        (folder / "committed" / path.name).write_bytes(path.read_bytes())
    limits = [f"-timeout={INPUT_TIMEOUT}", f"-rss_limit_mb={MEMORY_LIMIT}", f"-max_len={MAX_INPUT_BYTES}"]
    files = [f"-dict={folder / 'words.dict'}", f"-artifact_prefix={folder / 'findings'}/"]
    atheris.Setup(
        [_restart_script(folder), *limits, *files, "-print_final_stats=1", *flags], lambda data: harness(data)
    )
    atheris.Fuzz()


def _restart_script(folder: Path) -> str:
    """A program that does the same again with other flags: libFuzzer merges in processes that it starts itself."""
    path, words = folder / "again", (sys.executable, str(Path(__file__).resolve()), sys.argv[1], str(folder))
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o700)
    return str(path)


def _write_seeds(harness: Harness, folder: Path) -> None:
    for number, data in enumerate(harness.initial_inputs()):
        (folder / f"{number:03}").write_bytes(data)


def _write_words(words: tuple[bytes, ...], path: Path) -> None:
    lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in words)
    path.write_text("".join(f'"{line}"\n' for line in lines))


if __name__ == "__main__":
    main()
