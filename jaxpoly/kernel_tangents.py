"""Derivatives of the kernels, as plain products: no derivative is taken through a loop.

JAX would differentiate a loop over row blocks as well, but backwards it would add a zero array
of the size of X for every block.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from jaxpoly.precision import matmul, matmul_rows


def tangent_of_project(primals: Any, tangents: Any) -> Array:
    """Return `dX block + X dblock`; a tangent that is zero by construction costs nothing."""
    (values, block), (moved_values, moved_block) = primals, tangents
    return _sum(
        _product(_forward, moved_values, block),
        _product(_forward, values, moved_block),
        like=jax.ShapeDtypeStruct((values.shape[0], *block.shape[1:]), block.dtype),
    )


def tangent_of_back_project(primals: Any, tangents: Any) -> Array:
    """Return `dX^T rows + X^T drows`."""
    (values, rows), (moved_values, moved_rows) = primals, tangents
    return _sum(
        _product(_backward, moved_values, rows),
        _product(_backward, values, moved_rows),
        like=jax.ShapeDtypeStruct((values.shape[1], *rows.shape[1:]), rows.dtype),
    )


def tangent_of_sweep(
    weigh: Callable[..., Array], primals: Any, tangents: Any, products: Array
) -> tuple[Array, Array]:
    """Return the derivatives of `X^T weigh(X block, *rows)` and of the products `X block`."""
    (values, block, rows), (moved_values, moved_block, moved_rows) = primals, tangents
    moved_products = tangent_of_project((values, block), (moved_values, moved_block))
    moved_rows = tuple(
        jnp.zeros(row.shape, row.dtype) if isinstance(moved, SymbolicZero) else moved
        for row, moved in zip(rows, moved_rows, strict=True)
    )
    weighed, moved = jax.jvp(weigh, (products, *rows), (moved_products, *moved_rows))
    image = tangent_of_back_project((values, weighed), (moved_values, moved))
    return image, moved_products


def _forward(values: Array, block: Array) -> Array:
    return matmul(values.astype(block.dtype), block)


def _backward(values: Array, rows: Array) -> Array:
    return matmul_rows(values.astype(rows.dtype), rows)


def _product(multiply: Callable[..., Array], left: Any, right: Any) -> Array | None:
    if isinstance(left, SymbolicZero) or isinstance(right, SymbolicZero):
        return None
    return multiply(left, right)


def _sum(first: Array | None, second: Array | None, like: Any) -> Array:
    if first is None or second is None:
        present = second if first is None else first
        return jnp.zeros(like.shape, like.dtype) if present is None else present
    return first + second
