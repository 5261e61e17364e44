"""What the command prints, and where: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keylatch.errors import KeylatchError


def result_console() -> Console:
    """The console for results, on stdout."""
    # No emoji: `tpm:key:1` is a name, and must not come out as another.
    return Console(soft_wrap=True, highlight=False, emoji=False)


def note_console() -> Console:
    """The console for everything else, on stderr."""
    return Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def plain(text: str) -> str:
    """Text of others, with what could steer a terminal or reverse a line written out, and markup left as it is.

    File names and a model's own description hold any character (CWE-150); a customer's name was checked when it was
    read.
    """
    return escape("".join(char if char.isprintable() else ascii(char)[1:-1] for char in text))


def print_error(error: KeylatchError) -> None:
    """Print an error and its hint."""
    console = note_console()
    console.print(f"[bold red]error:[/] {plain(error.message)}")
    if error.hint:
        console.print(f"  [bold]hint:[/] {plain(error.hint)}")


def print_warning(text: str) -> None:
    """Print what a user should know although the command goes on."""
    note_console().print(f"[bold yellow]warning:[/] {plain(text)}")


def print_json(value: Mapping[str, Any]) -> None:
    """Print a result for a program, one JSON object."""
    print(json.dumps(value, indent=2))


def print_facts(facts: Iterable[tuple[str, object]], *, title: str | None = None) -> None:
    """Print named facts, one a line, aligned."""
    rows = [(name, str(value).split("\n")) for name, value in facts]
    width = max(len(name) for name, _ in rows)
    console = result_console()
    if title:
        console.print(title, style="bold", markup=False)
    for name, (first, *others) in rows:
        console.print(f"[bold]{plain(name):<{width}}[/]  {plain(first)}")
        for line in others:
            console.print(" " * (width + 2) + plain(line))


def progress() -> Progress:
    """A progress display on stderr; use as a context manager."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=note_console(),
        transient=True,
    )


def working(what: str) -> AbstractContextManager[Any]:
    """Show that something without countable steps is under way."""
    return note_console().status(what)
