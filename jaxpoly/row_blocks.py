"""Loops over row blocks of X, so that what is read once is used while it is in cache."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxpoly import thin_products

BLOCK_BYTES = 2 * 2**20
BLOCKS_AT_ONCE = 2

Weigh = Callable[..., Array]


def project(values: Array, block: Array) -> Array:
    """Return `X block` in the dtype of `block`, whatever that of X."""
    products = jnp.zeros((values.shape[0], *block.shape[1:]), block.dtype)
    return _visited(_project_block, products, values, block)


def back_project(values: Array, rows: Array) -> Array:
    """Return `X^T rows`."""
    total = jnp.zeros((rows.shape[1], values.shape[1]), rows.dtype)
    return _visited(_back_project_block, total, values, rows).T


def sweep(weigh: Weigh, values: Array, block: Array, *rows: Array) -> tuple[Array, Array]:
    """Return `X^T weigh(X block, *rows)` and `X block`."""
    total = jnp.zeros((block.shape[1], values.shape[1]), block.dtype)
    products = jnp.zeros((values.shape[0], block.shape[1]), block.dtype)
    visit = partial(_sweep_block, weigh)
    total, products = _visited(visit, (total, products), values, block, *rows)
    return total.T, products


def magnitude(values: Array, counted: Array) -> Array:
    """Return the largest `|x|` of the rows counted in float32, not finite if any entry is not."""
    return _visited(_magnitude_block, jnp.zeros((), jnp.float32), values, counted)


def largest(values: Array, counted: Array) -> Array:
    """Return the largest `|x|` of the rows counted, not finite if any entry of X is not."""
    # By rows, for masks of X's size take ten times as long; 0 x is NaN for x not finite.
    of_rows = jnp.max(jnp.abs(values), axis=1, initial=0)
    return jnp.max(jnp.where(counted, of_rows, 0), initial=0) + jnp.sum(0 * values)


def _project_block(products: Array, start: Array, rows_of_x: Array, block: Array) -> Array:
    """Return `products` with those of one row block written in at `start`."""
    found = thin_products.forward(rows_of_x.astype(block.dtype), block)
    return lax.dynamic_update_slice_in_dim(products, found, start, 0)


def _back_project_block(total: Array, start: Array, rows_of_x: Array, rows: Array) -> Array:
    """Return `total`, (k, p), plus what one row block adds to it."""
    part = lax.dynamic_slice_in_dim(rows, start, rows_of_x.shape[0])
    return total + thin_products.adjoint(rows_of_x, part)


def _magnitude_block(total: Array, start: Array, rows_of_x: Array, counted: Array) -> Array:
    part = lax.dynamic_slice_in_dim(counted, start, rows_of_x.shape[0])
    return jnp.maximum(total, largest(rows_of_x.astype(total.dtype), part))


def _sweep_block(
    weigh: Weigh,
    carry: tuple[Array, Array],
    start: Array,
    rows_of_x: Array,
    block: Array,
    *rows: Array,
) -> tuple[Array, Array]:
    """Return the sum, (k, p), and the products, with what one row block adds to them."""
    total, products = carry
    rows_of_x = rows_of_x.astype(block.dtype)
    size = rows_of_x.shape[0]
    found = thin_products.forward(rows_of_x, block)
    weighed = weigh(found, *(lax.dynamic_slice_in_dim(row, start, size) for row in rows))
    products = lax.dynamic_update_slice_in_dim(products, found, start, 0)
    return total + thin_products.adjoint(rows_of_x, weighed), products


def _visited(visit: Callable[..., Any], carry: Any, values: Array, *rest: Array) -> Any:
    """Return the carry after `visit(carry, start, rows of X, *rest)` of every row block."""
    num_rows, dim = values.shape
    size = min(num_rows, max(1, BLOCK_BYTES // (dim * max(values.dtype.itemsize, 4))))

    brain = values.dtype == jnp.bfloat16
    if brain:
        # XLA's CPU compiler cannot slice bfloat16 and would convert all of X to float32;
        # as integers it takes one copy of 16 bits.
        values = lax.bitcast_convert_type(values, jnp.uint16)

    def view(rows_of_x: Array) -> Array:
        return lax.bitcast_convert_type(rows_of_x, jnp.bfloat16) if brain else rows_of_x

    def body(index: Array, carry: Any) -> Any:
        for place in range(BLOCKS_AT_ONCE):
            start = (BLOCKS_AT_ONCE * index + place) * size
            rows_of_x = lax.dynamic_slice_in_dim(values, start, size)
            carry = visit(carry, start, view(rows_of_x), *rest)
        return carry

    num_turns = num_rows // (BLOCKS_AT_ONCE * size)
    carry = lax.fori_loop(0, num_turns, body, carry)
    done = num_turns * BLOCKS_AT_ONCE * size
    return visit(carry, done, view(values[done:]), *rest) if done < num_rows else carry
