"""`python -m rlhp` is `rlhp`."""

from rlhp.cli.main import main

main()
