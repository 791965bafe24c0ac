"""Solvers: frozen dataclasses with `init` and `step`; numbers are leaves, structure is static."""
