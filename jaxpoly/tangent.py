"""The tangent space of the rank-r matrices: the natural step and the stationarity test."""

import jax.numpy as jnp
from jax import Array

from jaxpoly.lifting import (
    Debias,
    Lifting,
    centre,
    measure_tangent,
    weighted_mean,
    weighted_norm,
)
from jaxpoly.precision import matmul, matmul_rows


def tangent_step(
    lifting: Lifting, residual: Array, basis: Array, image: Array, debias: Debias
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
        lifting: the inputs and weights.
        residual: `A(L) - y`, (m,).
        basis: V, (p, r), orthonormal.
        image: G V, (p, r).
        debias: as in `gradient_map`.

    Returns:
        The step and the stationarity, scalars.  One read of X.  Where G_T is
        exactly zero (underflow, or a saddle) they are 0 and infinity: that says
        nothing of an optimum.
    """
    # Everything below is at unit scale, so that squares neither overflow nor underflow.
    peak = jnp.max(jnp.abs(image))
    image = image / jnp.where(peak > 0, peak, 1)
    overlap = matmul_rows(basis, image)
    direction = image - matmul(basis, overlap) / 2
    size = jnp.sqrt(jnp.maximum(2 * jnp.sum(image**2) - jnp.sum(overlap**2), 0))
    unit = direction / jnp.where(size > 0, size, 1)
    image = centre(lifting, measure_tangent(lifting, basis, unit), debias)
    residual = centre(lifting, residual, debias)
    measured, residual_norm = weighted_norm(lifting, image), weighted_norm(lifting, residual)
    vanishes = (size == 0) | (measured == 0)
    measured = jnp.where(vanishes, 1, measured)
    fits = residual_norm == 0
    cosines = (image / measured) * (residual / jnp.where(fits, 1, residual_norm))
    stationarity = jnp.abs(weighted_mean(lifting, cosines))
    return jnp.where(vanishes, 0, 2 / measured**2), jnp.where(vanishes, jnp.inf, stationarity)
