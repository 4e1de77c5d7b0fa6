"""`python -m hauslm` is the command line."""

from hauslm.cli import main

main()
