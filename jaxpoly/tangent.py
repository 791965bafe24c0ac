"""The tangent space of the rank-r matrices: the natural step and the stationarity test."""

import jax.numpy as jnp
from jax import Array

from jaxpoly.lifting import Debias, Lifting, centre, weighted_mean, weighted_norm
from jaxpoly.precision import matmul, matmul_rows


def tangent_step(
    lifting: Lifting,
    residual: Array,
    basis: Array,
    image: Array,
    basis_products: Array,
    image_products: Array,
    debias: Debias,
) -> tuple[Array, Array]:
    """Return the steepest-descent step on the tangent space, and the stationarity.

    With V an orthonormal basis (p, r) of the range of L, the projection of the
    gradient G is `G_T = V W^T + W V^T`, `W = G V - V (V^T G V) / 2`, and along it

        step = |G_T|_F^2 / (E[A(G_T)^2] / 2)      minimises the loss exactly,
        stationarity = |E[res A(G_T)]| / (|res| |A(G_T)|)    is a cosine,

    A and res centred for `debias="centre"` (and rid of linear terms where those are
    fitted), E the weighted mean.  Both are free of scale.  For x ~ N(0, I) and many
    samples the step tends to 1.  With the trace correction G is no gradient of the
    loss: its fixed point on noisy data is not stationary in this sense.

    Args:
        lifting: the inputs and weights; X itself is not read.
        residual: `A(L) - y`, (m,).
        basis: V, (p, r), orthonormal; or its coordinates in any orthonormal basis.
        image: G V, (p, r), in the same coordinates.
        basis_products, image_products: X V and X G V, (m, r).
        debias: as in `gradient_map`.

    Returns:
        The step and the stationarity, scalars.  Where G_T is exactly zero (underflow,
        or a saddle) they are 0 and infinity: that says nothing of an optimum.
    """
    # Everything below is at unit scale, so that squares neither overflow nor underflow.
    peak = jnp.max(jnp.abs(image))
    peak = jnp.where(peak > 0, peak, 1)
    image, image_products = image / peak, image_products / peak
    overlap = matmul_rows(basis, image)
    size = jnp.sqrt(jnp.maximum(2 * jnp.sum(image**2) - jnp.sum(overlap**2), 0))
    direction = image_products - matmul(basis_products, overlap) / 2
    direction = direction / jnp.where(size > 0, size, 1)
    image = centre(lifting, 2 * jnp.sum(basis_products * direction, axis=1), debias)
    residual = centre(lifting, residual, debias)
    measured, residual_norm = weighted_norm(lifting, image), weighted_norm(lifting, residual)
    vanishes = (size == 0) | (measured == 0)
    measured = jnp.where(vanishes, 1, measured)
    fits = residual_norm == 0
    cosines = (image / measured) * (residual / jnp.where(fits, 1, residual_norm))
    stationarity = jnp.abs(weighted_mean(lifting, cosines))
    return jnp.where(vanishes, 0, 2 / measured**2), jnp.where(vanishes, jnp.inf, stationarity)
