"""The block Krylov space of the gradient, with everything that can be known of it for free."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxpoly import kernels
from jaxpoly.lifting import Debias, Lifting, gradient_parts, scale_rows
from jaxpoly.precision import matmul_rows


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
    images, products = [], []
    for _ in range(depth):
        image, product = kernels.sweep(lifting.inputs, latest, scale_rows, row_weight)
        images.append(image - shift * latest)
        products.append(product)
        have = basis.shape[1]
        room = min(width, dim - have)
        if room == 0:
            latest = basis[:, have:]
            break
        # Householder QR of the whole gives columns orthogonal to all the former ones
        # whatever the rank of the new block is.
        grown = jnp.linalg.qr(jnp.concatenate([basis, images[-1][:, :room]], axis=1))[0]
        latest = grown[:, have:]
        basis = jnp.concatenate([basis, latest], axis=1)
    products.append(kernels.project(lifting.inputs, latest))
    last = products[-1]
    corner = matmul_rows(last, scale_rows(last, row_weight))
    corner = corner - shift * jnp.eye(last.shape[1], dtype=corner.dtype)
    if not images:
        return KrylovSpace(basis, last, corner)
    known = matmul_rows(basis, jnp.concatenate(images, axis=1))
    others = jnp.concatenate([known[known.shape[1] :].T, corner])
    gradient = jnp.concatenate([known, others], axis=1)
    return KrylovSpace(basis, jnp.concatenate(products, axis=1), gradient)
