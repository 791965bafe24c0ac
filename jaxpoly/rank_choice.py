"""Choosing the rank by cross-validation."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxpoly import kernels
from jaxpoly.driver import solve
from jaxpoly.inputs import with_linear_terms
from jaxpoly.lifting import Lifting, measure, normalised_weight, weighted_norm
from jaxpoly.lowrank import LowRank
from jaxpoly.solvers.gauss_newton import GaussNewton
from jaxpoly.solvers.hard_thresholding import ap_rom
from jaxpoly.state import Solution

NUM_FOLDS = 5
LARGEST_RANK = 12
STEPS_PER_RANK = 30


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RankCurve:
    """The held-out error that a rank was chosen from, the `rank_curve` of a `Recovery`.

    For an example see `recover`.

    Attributes:
        ranks: 0, 1, ..., R; rank 0 is the affine part alone.
        error: mean over the folds of `E[(prediction - y)^2]` on held-out samples,
            relative to the variance of the targets, (R + 1,).
        standard_error: of that mean, over the folds, (R + 1,).
    """

    ranks: Array
    error: Array
    standard_error: Array


def largest_rank(num_samples: int, dim: int) -> int:
    """Return the largest rank worth a try: unknowns at most two thirds of the training samples."""
    budget = 2 / 3 * (NUM_FOLDS - 1) / NUM_FOLDS * num_samples
    fitting = [
        r for r in range(1, min(dim, LARGEST_RANK) + 1) if dim * r - r * (r - 1) // 2 <= budget
    ]
    return max(fitting, default=1)


def choose_rank(curve: RankCurve, tolerance: float) -> int:
    """Return the smallest rank within one standard error of the least held-out error.

    Errors below the square of `tolerance`, a relative residual, count as zero.
    """
    best = int(jnp.argmin(curve.error))
    limit = max(float(curve.error[best] + curve.standard_error[best]), tolerance**2)
    return max(1, int(jnp.argmax(curve.error <= limit)))


@partial(jax.jit, static_argnames=("largest", "affine"))
def rank_curve(
    solver: GaussNewton, lifting: Lifting, targets: Array, key: Array, largest: int, affine: bool
) -> RankCurve:
    """Fit every rank up to `largest` on the complement of each of five folds, score it there.

    Each rank is fitted from the fit of the rank below, moved by one step of AP-ROM,
    and then from the fit of the rank above, truncated; the smaller loss counts.
    """
    fold_key, solver_key = jax.random.split(key)
    num_samples = lifting.inputs.shape[0]
    weight = normalised_weight(lifting)
    fold = jax.random.permutation(fold_key, num_samples) % NUM_FOLDS
    variance = weighted_norm(lifting, targets - jnp.sum(weight * targets)) ** 2
    grow = ap_rom(largest, positive=solver.positive)
    ranks = jnp.arange(1, largest + 1)

    def score(held: Array) -> Array:
        train = replace(lifting, sample_weight=jnp.where(fold == held, 0, weight))
        if affine:
            train = with_linear_terms(train, solver.ridge)
        test = replace(train, sample_weight=jnp.where(fold == held, weight, 0))

        def fit(rank: Array, start: LowRank) -> Solution:
            ranked = replace(solver, rank=largest, active_rank=rank)
            return solve(ranked, train, targets, solver_key, STEPS_PER_RANK, start=start)

        def loss(value: LowRank) -> Array:
            return solver.loss(train, measure(train, value) - targets, value)

        def upwards(estimate, rank):
            state = grow.init(train, targets, solver_key, estimate)
            solution = fit(rank, grow.step(train, targets, state).estimate)
            return solution.value, solution

        def downwards(above, rank_and_former):
            rank, former = rank_and_former
            other = fit(rank, above)
            better = loss(other.value) < loss(former.value)
            solution = jax.tree.map(lambda a, b: jnp.where(better, a, b), other, former)
            return solution.value, error(solution)

        def error(solution: Solution) -> Array:
            linear = kernels.project(test.inputs, solution.linear)
            outputs = measure(test, solution.value) + linear + solution.intercept
            return weighted_norm(test, outputs - targets) ** 2

        nothing = grow.init(train, targets, solver_key).estimate
        _, fits = lax.scan(upwards, nothing, ranks)
        last = jax.tree.map(lambda leaf: leaf[-1], fits)
        _, errors = lax.scan(downwards, last.value, (ranks, fits), reverse=True)
        affine_only = solve(
            replace(solver, rank=largest), train, targets, solver_key, 0, start=nothing
        )
        return jnp.concatenate([error(affine_only)[None], errors])

    errors = lax.map(score, jnp.arange(NUM_FOLDS)) / jnp.where(variance > 0, variance, 1)
    spread = jnp.std(errors, axis=0, ddof=1) / NUM_FOLDS**0.5
    return RankCurve(jnp.arange(largest + 1), jnp.mean(errors, axis=0), spread)
