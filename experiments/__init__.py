"""Experiments: every claim a command, `python -m experiments NAME`."""
