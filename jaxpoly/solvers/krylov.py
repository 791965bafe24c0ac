"""The block Krylov space of the gradient, with everything that can be known of it for free."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxpoly import kernels
from jaxpoly.lifting import Debias, Lifting, gradient_parts, scale_rows
from jaxpoly.precision import matmul_rows
from jaxpoly.threshold import orthonormal_complement


class KrylovSpace(NamedTuple):
    """An orthonormal basis Q of `span[S, G S, ..., G^depth S]`.

    Attributes:
        basis: Q, (p, n); its leading columns span S.
        products: X Q, (m, n), so that every matrix in this space is measured without X.
        gradient: Q^T G Q, (n, n).
    """

    basis: Array
    products: Array
    gradient: Array


def krylov_space(
    lifting: Lifting, residual: Array, debias: Debias, start: Array, depth: int
) -> KrylovSpace:
    """Return the block Krylov space of the gradient G of `gradient_map` from a start S (p, b).

    Applies G `depth` times to b columns, by one sweep over X each, and X once more to the
    last b: what G does to these within the space follows from X Q, without a further read.
    Where the space is exhausted Q goes on with arbitrary orthonormal columns.
    """
    row_weight, shift = gradient_parts(lifting, residual, debias)
    dim, width = start.shape
    latest = basis = jnp.linalg.qr(start)[0]
    products, overlaps = [], []
    for _ in range(depth):
        image, product = kernels.sweep(lifting.inputs, latest, scale_rows, row_weight)
        image = image - shift * latest
        products.append(product)
        have = basis.shape[1]
        room = min(width, dim - have)
        latest = orthonormal_complement(basis, image[:, :room])
        basis = jnp.concatenate([basis, latest], axis=1)
        # The image lies in the space as it is now: later blocks are orthogonal to it.
        overlaps.append(matmul_rows(basis, image))
        if room == 0:
            break
    last = kernels.project(lifting.inputs, latest)
    corner = matmul_rows(last, scale_rows(last, row_weight))
    corner = corner - shift * jnp.eye(last.shape[1], dtype=corner.dtype)
    size = basis.shape[1]
    known = [jnp.pad(part, ((0, size - part.shape[0]), (0, 0))) for part in overlaps]
    left = jnp.concatenate([*known, jnp.zeros((size, 0), corner.dtype)], axis=1)
    right = jnp.concatenate([left[left.shape[1] :].T, corner])
    gradient = jnp.concatenate([left, right], axis=1)
    return KrylovSpace(basis, jnp.concatenate([*products, last], axis=1), gradient)
