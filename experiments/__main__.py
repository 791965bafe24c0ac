"""Command line: `python -m experiments NAME --help`."""

from experiments.cli import main

main()
