"""`python -m bridge` is the `jobbridge` command."""

from bridge.cli import main

main()
