"""Linux's limit on the memory maps of a process, which thousands of compiled programs reach."""

import gc
from pathlib import Path

import jax

# Of the 65530 that a process may have by default; beyond those XLA crashes.
FEW = 20_000


def keep_few() -> None:
    """Drop all compiled programs if they have taken many memory maps, some for each."""
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > FEW:
        jax.clear_caches()
        gc.collect()
