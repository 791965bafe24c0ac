"""The memory of the device, so that what cannot fit is refused before it is tried."""

import os
from typing import Any

import jax
import jax.numpy as jnp


def device_bytes() -> int | None:
    """Return the memory of the device that is computed on, in bytes; None where it is not known.

    >>> device_bytes() is None or device_bytes() > 2**20
    True
    """
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None or device.platform != "cpu" or not hasattr(os, "sysconf"):
        return limit
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_dense(name: str, dim: int, dtype: Any, num_matrices: int, instead: str) -> None:
    """Refuse p x p matrices that the memory of the device cannot hold.

    Args:
        name: what makes them.
        dim: p.
        dtype: of their entries.
        num_matrices: how many there are at a time, at least.
        instead: what to use without them.

    Raises:
        ValueError: with the bytes needed and those there are.

    >>> check_dense("it", 10**7, "float32", 2, "jaxpoly.ap_rom")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: it makes 2 matrices of p x p, p = 10000000: 7.5e+05 GiB, with ... instead
    """
    needed = num_matrices * dim**2 * jnp.dtype(dtype).itemsize
    limit = device_bytes()
    if limit is not None and needed > limit:
        raise ValueError(
            f"{name} makes {num_matrices} matrices of p x p, p = {dim}: {needed / 2**30:.2g} GiB, "
            f"with {limit / 2**30:.2g} GiB on this device; use {instead}, matrix-free, instead"
        )
