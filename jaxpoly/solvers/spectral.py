"""The spectral start: the leading eigenpairs of the descent direction at L = 0."""

import jax.numpy as jnp
from jax import Array

from jaxpoly import lowrank
from jaxpoly.lifting import Debias, Lifting
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import matmul
from jaxpoly.solvers.krylov import krylov_space
from jaxpoly.tangent import tangent_step
from jaxpoly.thin_products import LANES
from jaxpoly.threshold import krylov_depth, random_block

# A start need not be accurate; the steps do the rest.
ACCURACY = 4.0
OVERSAMPLE = 3  # columns at least


def spectral_start(
    lifting: Lifting, targets: Array, rank: int, positive: bool, debias: Debias, key: Array
) -> tuple[LowRank, Array, Array]:
    """Return the spectral estimate L of rank r, its step, and the products X V.

    `L = step V diag(lambda) V^T` with the r leading Ritz pairs of `-G(0)` on a block Krylov
    space, and the step that minimises the loss along them.  V (p, r) is orthonormal.
    """
    dim = lifting.inputs.shape[1]
    none = jnp.zeros((dim, 0), targets.dtype)
    width = rank + OVERSAMPLE
    width += -width % LANES  # Multiplied in the same time.
    block = random_block(key, dim, min(dim, width), none)
    depth = krylov_depth(dim, ACCURACY)
    space = krylov_space(lifting, -targets, debias, block, depth)
    leading = lowrank.truncate_matrix(-space.gradient, rank, positive)
    products = matmul(space.products, leading.factor)
    step, _ = tangent_step(
        lifting,
        targets,
        leading.factor,
        leading.factor * leading.diagonal[None, :],
        products,
        products * leading.diagonal[None, :],
        debias,
    )
    factor = matmul(space.basis, leading.factor)
    return LowRank(factor, step * leading.diagonal), step, products
