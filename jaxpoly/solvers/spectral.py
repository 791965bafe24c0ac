"""The spectral start: the leading eigenpairs of the descent direction at L = 0."""

import jax.numpy as jnp
from jax import Array

from jaxpoly import lowrank
from jaxpoly.lifting import Debias, Lifting, gradient_map
from jaxpoly.lowrank import LowRank
from jaxpoly.tangent import tangent_step
from jaxpoly.threshold import KrylovThreshold


def spectral_start(
    lifting: Lifting, targets: Array, rank: int, positive: bool, debias: Debias, key: Array
) -> tuple[LowRank, Array]:
    """Return the spectral estimate of rank r, and the step it was scaled by.

    The r leading eigenpairs of `-G(0)` by block Krylov iteration, times the step
    that minimises the loss along their tangent gradient.
    """
    dim = lifting.inputs.shape[1]
    descent = gradient_map(lifting, targets, debias)
    # A start need not be accurate; the steps do the rest.
    threshold = KrylovThreshold(rank, positive, accuracy=2.0)
    leading, _ = threshold(descent, dim, key, jnp.zeros((dim, 0), targets.dtype))
    basis = leading.factor
    step, _ = tangent_step(lifting, targets, basis, descent(basis), debias)
    return lowrank.scale(leading, step), step
