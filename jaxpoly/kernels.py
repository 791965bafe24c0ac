"""The only place where the inputs X (m x p) are touched: one seam for every faster form.

`project`, `back_project` and the fused `sweep` are all that the matrix-free methods
need.  None writes anything larger than m x k or p x k; `weighted_gram` is dense by
definition.  X is an array, `HalfPrecision`, or any object that has these four as
methods, such as `StreamedRows`.

Which form is chosen, and why (two CPU cores, in reads of X; a plain sum over X is one):

- `project` is one matrix product everywhere: 1.0 to 2.5 reads for up to 5 columns.
- `back_project` and `sweep` on a CPU go through blocks of rows, two a turn (`row_blocks`).  The
  second product of a sweep then finds its block in cache: 1.8 to 3.7 reads for 5 columns
  instead of 2.8 to 7.7.  Blocks are cut out by `dynamic_slice`: indexing a reshaped X is slower.
- The way back on a CPU is rows^T X and not X^T rows, with rows^T written out before: two to
  four times as fast for the same product.
- An X of up to `CACHE_BYTES` fits in cache as a whole; there the columns are padded to a
  multiple of `LANES`, for which Eigen is up to twice as fast in a sweep, two to seven times on
  the way back, alone and in batches; in `project` only where one column is missing.  Batches
  that share X are wide products already, and padded take up to 1.8 times as long: they are not.
- With several devices, X may be sharded, and cutting blocks out of it would gather it;
  accelerators do two large products at full speed.  Both take the plain products.

Between this and one read stand thin products at a tenth of the arithmetic speed of large ones:
a compiled kernel that keeps 8 rows and 5 columns in registers would be put in `sweep`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxpoly import row_blocks
from jaxpoly.half_precision import HalfPrecision
from jaxpoly.kernel_tangents import tangent_of_back_project, tangent_of_project, tangent_of_sweep
from jaxpoly.precision import matmul, matmul_rows
from jaxpoly.shared_inputs import two_forms
from jaxpoly.thin_products import adjoint, missing_lanes, wider

CACHE_BYTES = 8 * 2**20

Weigh = row_blocks.Weigh


def unit(inputs: Any) -> Array | float:
    """Return what X is divided by: 1 except for `scaled.Scaled`."""
    return getattr(inputs, "unit", 1.0)


def project(inputs: Any, block: Array) -> Array:
    """Return `X block`: (p, k) to (m, k), or (p,) to (m,).  One read of X."""
    if hasattr(inputs, "project"):
        return inputs.project(block)
    if isinstance(inputs, HalfPrecision) and _in_blocks(inputs):
        if block.ndim == 1:
            return project(inputs, block[:, None])[:, 0]
        return _blocked_project(inputs.values, block)
    values = _values(inputs).astype(block.dtype)
    if block.ndim == 1 or missing_lanes(block.shape[1]) != 1 or _in_blocks(inputs):
        return matmul(values, block)
    return matmul(values, wider(block, 1))[:, :-1]


def back_project(inputs: Any, rows: Array) -> Array:
    """Return `X^T rows`: (m, k) to (p, k), or (m,) to (p,).  One read of X."""
    if hasattr(inputs, "back_project"):
        return inputs.back_project(rows)
    if rows.ndim == 1:
        return back_project(inputs, rows[:, None])[:, 0]
    return _back_project(_in_blocks(inputs), _values(inputs), rows)


def sweep(inputs: Any, block: Array, weigh: Weigh, *rows: Array) -> tuple[Array, Array]:
    """Return `X^T weigh(X block, *rows)`, (p, k), and `X block`, (m, k).

    One read of X where X is read in blocks, two where not.

    Args:
        inputs: X.
        block: (p, k).
        weigh: a function of the products (n, k) and of the same n rows of every one of
            `rows`, row by row, to (n, k), that leaves columns of zeros zero.  A
            function of a module, not a closure: it is compared by identity.
        rows: arrays (m,), or (m, k); `weigh` is linear in the last of them.
    """
    if hasattr(inputs, "sweep"):
        return inputs.sweep(block, weigh, *rows)
    return _sweep(weigh, _in_blocks(inputs), _values(inputs), block, rows)


def weighted_gram(inputs: Any, row_weight: Array, unit: Array | float = 1.0) -> Array:
    """Return `X^T diag(row_weight) X / unit^2`, (p, p), for the dense methods only."""
    if hasattr(inputs, "weighted_gram"):
        return inputs.weighted_gram(row_weight, unit)
    values = _values(inputs).astype(row_weight.dtype)
    # Not X alone: divided it would be copied, out of the loop of a solver.
    weighed = (row_weight / unit)[:, None] * values
    return matmul_rows(values, weighed if isinstance(unit, float) else weighed / unit)


def magnitude(inputs: Any, sample_weight: Array | None = None) -> Array:
    """Return the largest `|x|` in rows of some weight, not finite if any entry of X is not.

    A reduction that fuses; tests by entry would write m x p masks down, and on CPU the
    maximum of a large array may pass over NaN.
    """
    counted = jnp.ones(inputs.shape[:1], bool) if sample_weight is None else sample_weight != 0
    if hasattr(inputs, "magnitude"):
        return inputs.magnitude(counted)
    values = _values(inputs)
    if isinstance(inputs, HalfPrecision) and _in_blocks(inputs):
        return row_blocks.magnitude(values, counted)
    return row_blocks.largest(values.astype(inputs.dtype), counted)


def while_loop(
    inputs: Any, unfinished: Callable[[Any], Array], body: Callable[[Any], Any], carry: Any
) -> Any:
    """Return `lax.while_loop`, run on the host where X has to be read from disk in its body."""
    # Scaled inputs lie where those lie that they stand for.
    inputs = getattr(inputs, "inputs", inputs)
    if not hasattr(inputs, "sweep"):
        return lax.while_loop(unfinished, body, carry)
    while unfinished(carry):
        carry = body(carry)
    return carry


@jax.custom_jvp
def _blocked_project(values: Array, block: Array) -> Array:
    return row_blocks.project(values, block)


@partial(_blocked_project.defjvp, symbolic_zeros=True)
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    return _blocked_project(*primals), tangent_of_project(primals, tangents)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _back_project(in_blocks: bool, values: Array, rows: Array) -> Array:
    if jax.device_count() > 1:
        return _whole_back_project(values, rows)
    small = two_forms(_small_back_project, _small_shared_back_project)
    on_cpu = row_blocks.back_project if in_blocks else lambda *data: small(*data)[0]
    return lax.platform_dependent(values, rows, cpu=on_cpu, default=_whole_back_project)


@partial(_back_project.defjvp, symbolic_zeros=True)
def _(in_blocks: bool, primals: Any, tangents: Any) -> tuple[Array, Array]:
    return _back_project(in_blocks, *primals), tangent_of_back_project(primals, tangents)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _sweep(
    weigh: Weigh, in_blocks: bool, values: Array, block: Array, rows: tuple[Array, ...]
) -> tuple[Array, Array]:
    whole = partial(_whole_sweep, weigh)
    if jax.device_count() > 1:
        return whole(values, block, *rows)
    small = two_forms(partial(_padded_sweep, weigh), whole)
    on_cpu = partial(row_blocks.sweep, weigh) if in_blocks else small
    return lax.platform_dependent(values, block, *rows, cpu=on_cpu, default=whole)


@partial(_sweep.defjvp, symbolic_zeros=True)
def _(weigh: Weigh, in_blocks: bool, primals: Any, tangents: Any) -> tuple[Any, Any]:
    found = _sweep(weigh, in_blocks, *primals)
    return found, tangent_of_sweep(weigh, primals, tangents, found[1])


def _values(inputs: Any) -> Array:
    return inputs.values if isinstance(inputs, HalfPrecision) else inputs


def _in_blocks(inputs: Any) -> bool:
    values = _values(inputs)
    if jax.device_count() > 1:
        return False
    return isinstance(inputs, HalfPrecision) or values.nbytes > CACHE_BYTES


def _whole_back_project(values: Array, rows: Array) -> Array:
    return matmul_rows(values.astype(rows.dtype), rows)


def _small_back_project(values: Array, rows: Array) -> tuple[Array]:
    width = rows.shape[1]
    return (adjoint(values, wider(rows, missing_lanes(width)))[:width].T,)


def _small_shared_back_project(values: Array, rows: Array) -> tuple[Array]:
    return (_whole_back_project(values, rows),)


def _whole_sweep(weigh: Weigh, values: Array, block: Array, *rows: Array) -> tuple[Array, Array]:
    values = values.astype(block.dtype)
    products = matmul(values, block)
    return matmul_rows(values, weigh(products, *rows)), products


def _padded_sweep(weigh: Weigh, values: Array, block: Array, *rows: Array) -> tuple[Array, Array]:
    width = block.shape[1]
    missing = missing_lanes(width)

    def pad(array: Array) -> Array:
        return wider(array, missing) if array.ndim == 2 else array

    products = matmul(values.astype(block.dtype), pad(block))
    total = adjoint(values, weigh(products, *map(pad, rows)))
    return total[:width].T, products[:, :width]
