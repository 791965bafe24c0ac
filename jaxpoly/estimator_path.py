"""Fits of every rank in one program, for the estimators."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxpoly import kernels, lowrank
from jaxpoly.lifting import (
    Lifting,
    centre,
    dense_gradient,
    fitted_affine,
    gradient_map,
    measure,
    normalised_weight,
    weighted_norm,
)
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import stationarity_tolerance
from jaxpoly.solvers.gauss_newton import gauss_newton
from jaxpoly.threshold import KrylovThreshold

NUM_FOLDS = 5
# Linear terms are shrunk less than interactions.  Measured on the tables of
# experiments/real_data_sets.py: an equal penalty loses up to 0.02 of the score.
LINEAR_SHARE = 0.03
INNER_STEPS = 8
# Exact eigendecompositions up to this dimension.
LARGEST_DENSE = 500


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RankPath:
    """Fits of rank 0 to R of k targets: (k, R + 1) leads the shape of every attribute.

    Attributes:
        error: mean squared error on the held-out rows.
        value: L; of R columns, those above the rank are zero.
        linear: b, (k, R + 1, p).
        intercept: c.
        residual: root mean squared residual.
        stationarity: as in `State`.
        num_steps: Gauss-Newton steps.
    """

    error: Array
    value: LowRank
    linear: Array
    intercept: Array
    residual: Array
    stationarity: Array
    num_steps: Array


@partial(jax.jit, static_argnames=("affine", "positive"))
def rank_paths(
    lifting: Lifting,
    held_out: Array,
    targets: Array,
    ridge: Array,
    steps: Array,
    key: Array,
    affine: bool,
    positive: bool,
) -> RankPath:
    """Minimise `E[(x^T L x + b . x + c - y)^2] + ridge (|L|_F^2 + 0.03 |b|^2)`, rank by rank.

    All targets in one vmapped call, on shared inputs.  Rank r starts from the
    fit of rank r - 1 and the leading eigenvector of the gradient there, as in greedy
    (Frank-Wolfe) methods for low rank.

    Args:
        lifting: inputs (m, p) with the weights of the training rows.
        held_out: (m,), weights of the rows the error is measured on.
        targets: y, one row a target, (k, m).
        ridge: >= 0, a scalar.
        steps: Gauss-Newton steps at most for rank 1 to R, (R,).
        key: a JAX random key.
        affine: fit the linear terms b.
        positive: keep L positive semidefinite.
    """
    if affine:
        lifting = replace(lifting, linear_basis=ridge_basis(lifting, LINEAR_SHARE * ridge))
    total = jnp.sum(held_out)
    shares = held_out / jnp.where(total > 0, total, 1)
    return jax.vmap(lambda y: _rank_path(lifting, shares, y, ridge, steps, key, positive))(targets)


def _rank_path(
    lifting: Lifting,
    shares: Array,
    targets: Array,
    ridge: Array,
    steps: Array,
    key: Array,
    positive: bool,
) -> RankPath:
    largest, dim = steps.shape[0], lifting.inputs.shape[1]
    weight = normalised_weight(lifting)

    def record(estimate: LowRank, residual: Array, stationarity: Array, count: Array) -> RankPath:
        intercept, linear = fitted_affine(lifting, residual, "centre")
        centred = centre(lifting, residual, "centre")
        error = jnp.sum(shares * centred**2)
        root = weighted_norm(lifting, centred)
        return RankPath(error, estimate, linear, intercept, root, stationarity, count)

    def grow(estimate: LowRank, rank_and_steps: tuple[Array, Array]):
        rank, limit = rank_and_steps
        residual = centre(lifting, measure(lifting, estimate) - targets, "centre")
        vector = _leading_direction(lifting, residual, key, positive)
        image = kernels.project(lifting.inputs, vector) ** 2
        image = centre(lifting, image, "centre")
        bend = jnp.sum(weight * image**2) + ridge
        size = -jnp.sum(weight * image * residual) / jnp.where(bend > 0, bend, 1)
        start = LowRank(
            estimate.factor.at[:, rank - 1].set(vector), estimate.diagonal.at[rank - 1].set(size)
        )
        solver = gauss_newton(
            largest, positive=positive, ridge=ridge, active_rank=rank, inner_steps=INNER_STEPS
        )
        tolerance = stationarity_tolerance(targets.dtype)

        def unfinished(carry):
            state, count = carry
            return (count < limit) & (state.stationarity > tolerance)

        def body(carry):
            state, count = carry
            return solver.step(lifting, targets, state), count + 1

        first = solver.init(lifting, targets, key, start)
        state, count = lax.while_loop(unfinished, body, (first, jnp.int32(0)))
        return state.estimate, record(state.estimate, state.residual, state.stationarity, count)

    nothing = lowrank.zeros(dim, largest, targets.dtype)
    zero = jnp.zeros((), targets.dtype)
    affine_only = record(nothing, -targets, zero, jnp.int32(0))
    _, path = lax.scan(grow, nothing, (jnp.arange(1, largest + 1), steps))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), affine_only, path)


def ridge_basis(lifting: Lifting, ridge: Array) -> Array:
    """Return B, (p, p), with `B B^T = (covariance + ridge I)^-1` where the inputs vary.

    Unlike `with_linear_terms` the penalty is on b itself, in the units of the inputs.
    """
    weight = normalised_weight(lifting)
    mean = kernels.back_project(lifting.inputs, weight)
    covariance = kernels.weighted_gram(lifting.inputs, weight) - mean[:, None] * mean[None, :]
    eigenvalues, vectors = lowrank.guarded_eigh(covariance)
    floor = 4 * mean.shape[0] * jnp.finfo(mean.dtype).eps * eigenvalues[-1]
    kept = eigenvalues > floor
    root = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, eigenvalues, 1) + ridge), 0)
    return vectors * root[None, :]


def _leading_direction(lifting: Lifting, residual: Array, key: Array, positive: bool) -> Array:
    """Return the unit vector, (p,), along which a neuron lowers the loss fastest."""
    dim = lifting.inputs.shape[1]
    if dim <= LARGEST_DENSE:
        descent = dense_gradient(lifting, -residual)
        return lowrank.truncate_matrix(descent, 1, positive).factor[:, 0]
    threshold = KrylovThreshold(1, positive, accuracy=2.0)
    block_map = gradient_map(lifting, -residual)
    return threshold(block_map, dim, key, jnp.zeros((dim, 0), residual.dtype))[0].factor[:, 0]


def cross_validate(
    lifting: Lifting,
    fold: Array,
    targets: Array,
    ridge: Array,
    steps: Array,
    key: Array,
    affine: bool,
    positive: bool,
) -> np.ndarray:
    """Return held-out mean squared errors, (number of targets, folds, R + 1).

    Args:
        lifting: inputs (m, p) and weights.
        fold: the number of the fold that a row is held out in, (m,).
        targets: one row a target, (k, m).
        ridge: as in `rank_paths`.
        steps: as in `rank_paths`, (R,).
        key: a JAX random key.
        affine: as in `rank_paths`.
        positive: as in `rank_paths`.
    """
    weight = normalised_weight(lifting)
    errors = []
    # One fold after the other: the program is then that of the last fit, compiled once.
    for number in range(NUM_FOLDS):
        held_out = jnp.where(fold == number, weight, 0)
        trained = replace(lifting, sample_weight=weight - held_out)
        paths = rank_paths(trained, held_out, targets, ridge, steps, key, affine, positive)
        errors.append(np.asarray(paths.error, float))
    return np.stack(errors, axis=1)
