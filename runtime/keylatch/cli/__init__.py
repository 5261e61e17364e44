"""The `keylatch` command.

Results go to stdout, everything else to stderr. Exit status: 0 done, 1 refused or failed, 2 wrong usage. One module
holds one group of verbs; each imports what it needs when it runs, so that `keylatch run` needs no torch.
"""

from __future__ import annotations

import sys

from keylatch.cli._app import app
from keylatch.cli._output import print_error
from keylatch.errors import KeylatchError
from keylatch.keys import guard_process

__all__ = ["app", "main"]


def main() -> None:
    """Run the command."""
    try:
        guard_process()
        app()
    except KeylatchError as error:
        print_error(error)
        sys.exit(1)
