"""What may come out of a parser: a value, or a deliberate error that is fit to be shown. All else is a finding."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from keylatch.errors import KeylatchError

MAX_MESSAGE_CHARACTERS = 600


class Finding(AssertionError):
    """A parser did what it must not."""


class Refused:
    """The type of `REFUSED`."""

    def __repr__(self) -> str:
        return "REFUSED"


REFUSED: Final = Refused()


def attempt(
    parse: Callable[..., Any],
    *arguments: Any,
    errors: type[KeylatchError] | tuple[type[KeylatchError], ...] = KeylatchError,
    typed_by_user: bool = False,
    **options: Any,
) -> Any:
    """What `parse` returns, or `REFUSED` after one of `errors`; any other exception goes through, as a crash.

    Args:
        errors: What may come out.
        typed_by_user: What is parsed is the user's own, such as a path: it may come back to him as it is.
    """
    try:
        return parse(*arguments, **options)
    except errors as error:
        if not typed_by_user:
            check_error(error)
        return REFUSED


def check_error(error: KeylatchError) -> None:
    """A message is bounded and printable: what it quotes of a hostile file must not forge a line of a log."""
    for text in (error.message, error.hint or ""):
        if len(text) > MAX_MESSAGE_CHARACTERS or not text.isprintable():
            raise Finding(f"{type(error).__name__} has a message that is too long or unprintable: {text[:300]!a}")


def must_refuse(outcome: object, data: bytes, originals: Collection[bytes]) -> None:
    """Whatever is accepted must be an original."""
    if outcome is not REFUSED and data not in originals:
        raise Finding(f"accepted after a change: {outcome!r:.80} from {data[:2000].hex()}")


def require(holds: bool, claim: str) -> None:
    """A claim about what was parsed."""
    if not holds:
        raise Finding(claim)
