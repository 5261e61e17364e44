"""`python -m keylatch.cli`: the command."""

from keylatch.cli import main

main()
