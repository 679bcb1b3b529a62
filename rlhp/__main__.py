"""`python -m rlhp` is `rlhp`."""

from rlhp.cli import main

main()
