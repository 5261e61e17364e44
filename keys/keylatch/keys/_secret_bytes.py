"""The one type that holds secret bytes, and the base of everything that must not be copied out of the process."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Uncopyable:
    """Base of objects that hold secrets: pickle, copy and deepcopy raise ``TypeError``.

    A pickle of a key lands in a cache, a queue or a crash report before anyone thinks of it as a key.
    """

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets and cannot be pickled")

    def __copy__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets and cannot be copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets and cannot be copied")


class SecretBytes(Uncopyable):
    """Secret bytes that show nothing: repr, str and format hide them; pickle, copy and hash raise ``TypeError``.

    Equality is constant-time and defined between two `SecretBytes` only: comparing with plain ``bytes`` would
    invite keeping the secret as plain ``bytes``.

    Args:
        data: The secret; it is copied.
    """

    __slots__ = ("_data",)

    # A hash of a short secret gives it away to anyone who can guess it. Annotated for type checkers, None at run time.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data: bytearray | None = bytearray(data)

    def reveal(self) -> bytes:
        """Returns a plain copy of the secret; a search for this name finds every use.

        Raises:
            ValueError: The secret was wiped.
        """
        if self._data is None:
            raise ValueError("the secret was wiped")
        return bytes(self._data)

    def wipe(self) -> None:
        """Overwrites this object's own buffer with zeros; `reveal` raises from then on.

        What it cannot do: reach the copies that `reveal` returned, the ``bytes`` this object was made from, copies
        inside OpenSSL or numpy, pages that were swapped out, or a core dump. It shortens exposure; it ends nothing.
        """
        if self._data is not None:
            self._data[:] = bytes(len(self._data))
            self._data = None

    def __len__(self) -> int:
        return 0 if self._data is None else len(self._data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretBytes):
            return NotImplemented
        return hmac.compare_digest(self.reveal(), other.reveal())

    def __repr__(self) -> str:
        return "SecretBytes(hidden)"

    def __format__(self, spec: str) -> str:
        # Ignores the specification: "{:x}" must not become a way in.
        return repr(self)
