"""A start close to the information limit: reweighted least squares for the rank."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxpoly import kernels, lowrank
from jaxpoly.lifting import Lifting, normalised_weight
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import matmul, matmul_rows
from jaxpoly.threshold import random_block

# Relative size of the identity added to the m x m system, in units of eps.
REGULARISATION = 100
# The smoothing has to fall by this factor in so many steps.
PATIENCE = 15
DECREASE = 0.9


def reweighted_start(
    lifting: Lifting,
    targets: Array,
    rank: int,
    key: Array | None = None,
    num_steps: int = 150,
) -> LowRank:
    """Return a rank-r estimate from as few samples as there are unknowns, nearly.

    Minimises the smoothed rank surrogate `sum_j log(max(|lambda_j(L)|, s))` over all
    symmetric L that fit the targets (with a free intercept, and linear terms
    where the lifting has such), while the smoothing s follows the eigenvalue r + 1 of the
    iterate down.  Each step is a weighted least-norm problem:

        L = M A*(v) M,   (K + tiny I) v = y,   K_ij = (x_i^T M x_j)^2,   M = max(|L|, s),

    that is, regression with a quadratic kernel whose metric M is the former `|L|`.

    Args:
        lifting: inputs (m, p) and weights; whitened inputs suit it best.
        targets: y, (m,).
        rank: r, below p.
        key: None for M = I at first; a JAX key for a random M, another start.
        num_steps: steps at most; a run ends earlier where s stagnates or is at
            rounding level.

    Returns:
        The leading r eigenpairs of the last L, to be polished by `gauss_newton`.

    Dense: O(m^2 p + m^3 + p^3) a step and m x m memory, for problems so small that
    samples are scarce.  C. Kuemmerle and C. Mayrink Verdun, "A scalable second order
    method for ill-conditioned matrix completion from few samples", ICML 2021
    (PMLR 139, arXiv:2106.02119), for their weights and smoothing; deviations:
    symmetric L and rank-one measurements, by which the weighted problem becomes a
    kernel regression; a free intercept.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=60, dim=20, rank=2)
    >>> start = reweighted_start(problem.lifting, problem.targets, rank=2)
    >>> bool(jp.relative_error(start, problem.truth) < 1e-4)
    True
    """
    inputs, dtype = lifting.inputs, targets.dtype
    num_samples, dim = inputs.shape
    eps = jnp.finfo(dtype).eps
    floor = jnp.sqrt(REGULARISATION * eps)
    root_weight = jnp.sqrt(normalised_weight(lifting) * num_samples)
    affine = _affine_basis(lifting, root_weight)

    def fitted(values: Array) -> Array:
        return values - matmul(affine, matmul_rows(affine, values))

    goal = fitted(root_weight * targets)

    def least_norm(metric: Array) -> Array:
        points = kernels.project(inputs, metric)
        kernel = root_weight[:, None] * matmul(points, points.T) ** 2 * root_weight[None, :]
        size = jnp.trace(kernel) / num_samples
        size = jnp.where(size > 0, size, 1)
        kernel = fitted(fitted(kernel).T) / size
        kernel = kernel + matmul(affine, affine.T)
        kernel = kernel + REGULARISATION * eps * jnp.eye(num_samples, dtype=dtype)
        dual = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(kernel, lower=True), goal)
        small = matmul_rows(points, (root_weight * fitted(dual) / size)[:, None] * points)
        return matmul(matmul(metric, small), metric.T)

    def unfinished(carry):
        _, _, smoothing, _, milestone_step, step = carry
        return (step < num_steps) & (smoothing > floor) & (step - milestone_step < PATIENCE)

    def body(carry):
        metric, _, smoothing, milestone, milestone_step, step = carry
        eigenvalues, vectors = lowrank.guarded_eigh(least_norm(metric))
        magnitude = jnp.abs(eigenvalues)
        largest = jnp.max(magnitude)
        magnitude = magnitude / jnp.where(largest > 0, largest, 1)
        order = jnp.argsort(-magnitude)
        # NaN, after a failed factorisation, ends the run by the patience.
        smoothing = jnp.fmin(smoothing, magnitude[order[rank]])
        sound = jnp.isfinite(largest)
        fresh = LowRank(vectors[:, order[:rank]], eigenvalues[order[:rank]])
        estimate = jax.tree.map(lambda new, old: jnp.where(sound, new, old), fresh, carry[1])
        metric = jnp.where(
            sound, vectors * jnp.sqrt(jnp.maximum(magnitude, smoothing))[None, :], metric
        )
        progress = smoothing < DECREASE * milestone
        milestone = jnp.where(progress, smoothing, milestone)
        milestone_step = jnp.where(progress, step, milestone_step)
        return metric, estimate, smoothing, milestone, milestone_step, step + 1

    if key is None:
        metric = jnp.eye(dim, dtype=dtype)
    else:
        metric = random_block(key, dim, dim, jnp.zeros((dim, 0), dtype)) / dim**0.5
    one = jnp.ones((), dtype)
    start = (metric, lowrank.zeros(dim, rank, dtype), one, one, 0, 0)
    return lax.while_loop(unfinished, body, start)[1]


def _affine_basis(lifting: Lifting, root_weight: Array) -> Array:
    """Return an orthonormal basis of the affine functions on the weighted samples, (m, 1 + k)."""
    columns = root_weight[:, None]
    if lifting.linear_basis is not None:
        linear = kernels.project(lifting.inputs, lifting.linear_basis)
        columns = jnp.concatenate([columns, root_weight[:, None] * linear], axis=1)
    return jnp.linalg.qr(columns)[0]
