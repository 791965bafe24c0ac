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


def weighted_gram_product(inputs: Array, row_weight: Array, block: Array) -> Array:
    """Return `X^T diag(row_weight) X block`, (p, k).  Two reads of X, never X^T X."""
    return matmul_rows(inputs, row_weight[:, None] * matmul(inputs, block))


def weighted_gram(inputs: Array, row_weight: Array) -> Array:
    """Return `X^T diag(row_weight) X`, (p, p), for the dense methods only."""
    return matmul_rows(inputs, row_weight[:, None] * inputs)
