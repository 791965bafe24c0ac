"""The only place where the inputs X (m x p) are touched.

Every function reads X once or twice and writes nothing larger than m x k or
p x k, except `weighted_gram`, which is dense by definition.  A faster form for a
platform or a shape belongs here and nowhere else.
"""

import jax.numpy as jnp
from jax import Array

from jaxpoly.precision import matmul, matmul_rows


def quadratic_forms(inputs: Array, factor: Array, diagonal: Array) -> Array:
    """Return `x_i^T F diag(d) F^T x_i` for every row, (m,).  One read of X."""
    return matmul(matmul(inputs, factor) ** 2, diagonal)


def bilinear_forms(inputs: Array, left: Array, right: Array) -> Array:
    """Return `sum_j (x_i . left_j)(x_i . right_j)` for every row, (m,).  One read of X."""
    width = left.shape[1]
    products = matmul(inputs, jnp.concatenate([left, right], axis=1))
    return jnp.sum(products[:, :width] * products[:, width:], axis=1)


def linear_forms(inputs: Array, coefficients: Array) -> Array:
    """Return `x_i . b` for every row, (m,).  One read of X."""
    return matmul(inputs, coefficients)


def weighted_sum(inputs: Array, row_weight: Array) -> Array:
    """Return `sum_i v_i x_i`, (p,).  One read of X."""
    return matmul(row_weight, inputs)


def weighted_gram_product(inputs: Array, row_weight: Array, block: Array) -> Array:
    """Return `X^T diag(row_weight) X block`, (p, k).  Two reads of X, never X^T X."""
    return matmul_rows(inputs, row_weight[:, None] * matmul(inputs, block))


def weighted_gram(inputs: Array, row_weight: Array) -> Array:
    """Return `X^T diag(row_weight) X`, (p, p), for the dense methods only."""
    return matmul_rows(inputs, row_weight[:, None] * inputs)


def tangent_forms(projected: Array, inputs: Array, direction: Array) -> Array:
    """Return `2 sum_j (x_i . v_j)(x_i . d_j)` for every row, (m,), given X V.  One read of X."""
    return 2 * jnp.sum(projected * matmul(inputs, direction), axis=1)


def tangent_sum(projected: Array, inputs: Array, row_weight: Array) -> Array:
    """Return `2 sum_i u_i x_i (x_i . V)`, (p, r), given X V: the adjoint of `tangent_forms`."""
    return 2 * matmul_rows(inputs, row_weight[:, None] * projected)


def project(inputs: Array, block: Array) -> Array:
    """Return `X block`, (m, k).  One read of X."""
    return matmul(inputs, block)
