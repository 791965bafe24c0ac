"""Inputs that stay on disk: row blocks are read ahead while the last one is computed with."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxpoly import kernels
from jaxpoly.validation import check_count, working_dtype

# Bytes to whose multiple an array's address has to be for XLA to use it as it is.
ALIGNMENT = 64


@jax.tree_util.register_static
class StreamedRows:
    """Inputs X (m, p) larger than memory, read in row blocks whenever they are needed.

    Stands for X in a `Lifting`; `solve`, `init_run` and `advance` then run their loops on
    the host, and every solver is the same.  Of X two or three blocks are in memory
    at a time.  What has one entry or a few for each sample (targets, weights, residual,
    products X V) is kept whole.

    Args:
        source: anything with `shape`, `dtype` and `source[start:stop]` that gives numpy
            rows: `numpy.load(path, mmap_mode="r")`, a zarr array, an h5py data set.
        block_bytes: bytes of a block, in whole rows, and in whole chunks of a source
            that has `chunks`.
        dtype: of the computation, float32 or float64; None for that of the source
            (integers and 16-bit floats: see `Lifting`).

    Raises:
        ValueError, TypeError: a source that is not (m, p) of real numbers, options out
            of range; while it is read, slices of other shapes than the source's, of another kind of
            numbers, or with masked entries.

    One read of the source checks for entries that are not finite, when a run begins.  A step
    of AP-ROM and factored descent takes two, of Gauss-Newton two and one more for every inner
    step.  Not for `jit`, `vmap`, `trajectory`, `whiten`, `with_linear_terms` or `recover`.

    >>> import jax, numpy as np, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> rows = StreamedRows(np.asarray(problem.lifting.inputs), block_bytes=4096)
    >>> solution = jp.solve(jp.gauss_newton(2), jp.Lifting(rows), problem.targets,
    ...     jax.random.key(1))
    >>> bool(jp.relative_error(solution.value, problem.truth) < 1e-4)
    True
    """

    def __init__(self, source: Any, block_bytes: int = 64 * 2**20, dtype: Any = None):
        needed = ("shape", "dtype", "__getitem__")
        if isinstance(source, type) or not all(hasattr(source, name) for name in needed):
            raise TypeError(
                f"source is a {type(source).__name__}; expected something with shape, dtype and "
                "slices of rows, such as numpy.load(path, mmap_mode='r')"
            )
        if len(source.shape) != 2:
            raise ValueError(f"source has shape {tuple(source.shape)}; expected (m, p)")
        if isinstance(source, np.ma.MaskedArray):
            raise TypeError("source is a masked array; fill it, or give such rows no weight")
        if source.dtype.kind not in "biuf" and not jnp.issubdtype(source.dtype, jnp.floating):
            raise TypeError(f"source has dtype {source.dtype}; expected real numbers")
        if hasattr(source, "toarray"):
            raise TypeError(
                f"source is a sparse {type(source).__name__}; expected slices that are numpy rows: "
                "take .toarray() if it fits into memory"
            )
        self.source = source
        self.shape = tuple(map(int, source.shape))
        self.dtype = jnp.dtype(working_dtype("source", source) if dtype is None else dtype)
        if self.dtype not in (np.float32, jnp.result_type(float)):
            raise ValueError(
                f"dtype is {self.dtype}; expected float32, or float64 with jax_enable_x64 on"
            )
        block_bytes = check_count("block_bytes", block_bytes, 1)
        rows = max(1, block_bytes // max(1, self.shape[1] * self.dtype.itemsize))
        chunks = getattr(source, "chunks", None)
        if chunks is not None and rows > chunks[0]:
            rows -= rows % chunks[0]
        self.block_rows = int(min(rows, max(self.shape[0], 1)))

    def project(self, block: Array) -> Array:
        """Return `X block`."""
        products = jnp.zeros((self.shape[0], *block.shape[1:]), block.dtype)
        return self._fold(_project, products, block)

    def back_project(self, rows: Array) -> Array:
        """Return `X^T rows`."""
        total = jnp.zeros((self.shape[1], *rows.shape[1:]), rows.dtype)
        return self._fold(_back_project, total, rows)

    def sweep(self, block: Array, weigh: kernels.Weigh, *rows: Array) -> tuple[Array, Array]:
        """Return `X^T weigh(X block, *rows)` and `X block`, by one read of the source."""
        products = jnp.zeros((self.shape[0], block.shape[1]), block.dtype)
        carry = jnp.zeros_like(block), products
        return self._fold(partial(_sweep, weigh), carry, block, *rows)

    def weighted_gram(self, row_weight: Array, unit: Array | float = 1.0) -> Array:
        """Return `X^T diag(row_weight) X / unit^2`, (p, p)."""
        visit, dim = partial(_weighted_gram, unit), self.shape[1]
        return self._fold(visit, jnp.zeros((dim, dim), row_weight.dtype), row_weight)

    def magnitude(self, counted: Array) -> Array:
        """Return the largest `|x|` of the rows counted, not finite if some entry of X is not."""
        return self._fold(_magnitude, jnp.zeros((), self.dtype), counted)

    def _fold(self, visit: Callable[..., Any], carry: Any, *rest: Array) -> Any:
        """Return the carry after `visit(carry, start, rows of X, *rest)` of every block."""
        if any(isinstance(array, jax.core.Tracer) for array in rest):
            raise TypeError(
                "streamed inputs were used under jit, vmap, grad or in trajectory, where nothing "
                "can be read from disk; call jaxpoly.solve, or init_run and advance, directly"
            )
        for start, rows in self._blocks():
            carry = visit(carry, start, rows, *rest)
            # The buffer of this block is filled again next.
            jax.block_until_ready(carry)
        return carry

    def _blocks(self) -> Iterator[tuple[int, Array]]:
        # Two buffers for the whole read: one is filled while the other is computed with.
        buffers = [_aligned((self.block_rows, self.shape[1]), self.dtype) for _ in range(2)]

        def read(start: int) -> np.ndarray:
            # A copy, so that a memory map is read here and not while it is computed with.
            stop = min(start + self.block_rows, self.shape[0])
            rows = self.source[start:stop]
            if np.shape(rows) != (stop - start, self.shape[1]):
                raise ValueError(
                    f"source[{start}:{stop}] has shape {np.shape(rows)}; expected "
                    f"{(stop - start, self.shape[1])}, as source.shape {self.shape} says"
                )
            if np.ma.is_masked(rows):
                raise TypeError(
                    f"source[{start}:{stop}] has masked entries; fill them, and give such rows "
                    "no weight"
                )
            if np.asarray(rows).dtype.kind != np.dtype(self.source.dtype).kind:
                raise TypeError(
                    f"source[{start}:{stop}] has dtype {np.asarray(rows).dtype}; expected "
                    f"{self.source.dtype}, as source.dtype says"
                )
            buffer = buffers[start // self.block_rows % 2][: len(rows)]
            np.copyto(buffer, rows, casting="unsafe")
            return buffer

        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(read, 0)
            for start in range(0, self.shape[0], self.block_rows):
                rows = coming.result()
                if start + self.block_rows < self.shape[0]:
                    coming = reader.submit(read, start + self.block_rows)
                yield start, jax.device_put(rows, may_alias=True)


def _aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array that JAX can use on a CPU without copying it."""
    size = shape[0] * shape[1] * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + size].view(dtype).reshape(shape)


def _slice(array: Array, start: Array, rows: Array) -> Array:
    return lax.dynamic_slice_in_dim(array, start, rows.shape[0])


def _write(array: Array, part: Array, start: Array) -> Array:
    return lax.dynamic_update_slice_in_dim(array, part, start, 0)


@partial(jax.jit, donate_argnums=0)
def _project(products: Array, start: Array, rows_of_x: Array, block: Array) -> Array:
    return _write(products, kernels.project(rows_of_x, block), start)


@partial(jax.jit, donate_argnums=0)
def _back_project(total: Array, start: Array, rows_of_x: Array, rows: Array) -> Array:
    return total + kernels.back_project(rows_of_x, _slice(rows, start, rows_of_x))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _sweep(weigh, carry, start, rows_of_x, block, *rows) -> tuple[Array, Array]:
    total, products = carry
    parts = [_slice(row, start, rows_of_x) for row in rows]
    image, found = kernels.sweep(rows_of_x, block, weigh, *parts)
    return total + image, _write(products, found, start)


@partial(jax.jit, donate_argnums=1)
def _weighted_gram(unit, total, start, rows_of_x, row_weight) -> Array:
    part = _slice(row_weight, start, rows_of_x)
    return total + kernels.weighted_gram(rows_of_x, part, unit)


@partial(jax.jit, donate_argnums=0)
def _magnitude(total: Array, start: Array, rows_of_x: Array, counted: Array) -> Array:
    found = kernels.magnitude(rows_of_x, _slice(counted, start, rows_of_x))
    return jnp.where(jnp.isnan(found) | (found > total), found, total)
