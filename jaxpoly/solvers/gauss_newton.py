"""Gauss-Newton on the tangent space of the rank-r matrices."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpoly import kernels, lowrank
from jaxpoly.lifting import (
    Debias,
    Lifting,
    centre,
    fitted_norm,
    normalised_weight,
    quadratic_forms,
    weighted_norm,
)
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import matmul, matmul_rows
from jaxpoly.solvers.conjugate_gradient import conjugate_gradient
from jaxpoly.solvers.options import check_options, fourth_power
from jaxpoly.solvers.spectral import spectral_start
from jaxpoly.state import State
from jaxpoly.static import static
from jaxpoly.validation import check_choice, check_count, check_number

# The inner iteration solves to this fraction of the gradient at least, and to the
# relative residual where that is smaller, which makes the end quadratic.
FORCING = 0.1
# It goes no further than to this fraction of the residual that the caller asked for.
AIM = 0.25
# Damping of a step that raised the loss, in units of the curvature along the gradient.
FIRST_DAMPING = 0.01
DAMPING_GROWTH = 4.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussNewton:
    """Gauss-Newton on the tangent space; `gauss_newton` builds and documents it.

    The memory of its state is the damping, a scalar, and X V, (m, r), V the factor of
    the estimate.  `rtol` is the relative residual aimed at, if one is known.
    """

    ridge: ArrayLike
    active_rank: ArrayLike | None
    rank: int = static()
    debias: Debias = static("centre")
    positive: bool = static(False)
    inner_steps: int = static(50)
    rtol: Array | None = None

    def aim(self, rtol: Array) -> "GaussNewton":
        """Return the solver for a caller who stops at a relative residual of `rtol`."""
        return replace(self, rtol=rtol)

    def init(
        self, lifting: Lifting, targets: Array, key: Array, start: LowRank | None = None
    ) -> State:
        """Return the state at `start`, by default the spectral estimate."""
        key, block_key = jax.random.split(key)
        if start is None:
            start, _, products = spectral_start(
                lifting, targets, self.rank, self.positive, self.debias, block_key
            )
        else:
            start = lowrank.eigen_form(start, self.rank, self.positive)
            products = kernels.project(lifting.inputs, start.factor)
        estimate = self._activate(start)
        residual = quadratic_forms(products, estimate.diagonal) - targets
        zero = jnp.zeros((), targets.dtype)
        return State(estimate, residual, zero, zero + jnp.inf, key, memory=(zero, products))

    def step(self, lifting: Lifting, targets: Array, state: State) -> State:
        """Return the state after one outer step; its step size is 0 where a step was refused."""
        inputs, estimate, (damping, products) = lifting.inputs, state.estimate, state.memory
        alive = self._alive(estimate.diagonal)[None, :]
        basis, projected = estimate.factor * alive, products * alive
        weight = normalised_weight(lifting)
        ridge = self._ridge(lifting, targets.dtype)
        residual = centre(lifting, state.residual, self.debias)
        # The adjoint of the residual and, beside it, of the constants that a fit is free of.
        sides = jnp.stack([weight * residual, weight], axis=1)
        sides = 2 * (sides[:, :, None] * projected[:, None, :]).reshape(len(weight), -1)
        slope_side, constant_side = jnp.split(kernels.back_project(inputs, sides), 2, axis=1)

        def fitted_curvature(direction: Array) -> Array:
            if lifting.linear_basis is None:
                image, _ = kernels.sweep(inputs, direction, tangent_gram, projected, weight)
                if self.debias != "centre":
                    return image
                return image - constant_side * jnp.sum(constant_side * direction)
            image = 2 * jnp.sum(projected * kernels.project(inputs, direction), axis=1)
            image = weight * centre(lifting, image, self.debias)
            return 2 * kernels.back_project(inputs, image[:, None] * projected)

        def penalty(direction: Array) -> Array:
            # Half of the gradient of |V D^T + D V^T|_F^2.
            return 2 * (direction + matmul(basis, matmul_rows(direction, basis)))

        def curvature(direction: Array) -> Array:
            return fitted_curvature(direction) + ridge * penalty(direction)

        def precondition(direction: Array) -> Array:
            # Inverts the curvature of |V D^T + D V^T|_F^2, twice as large along V.
            return direction - matmul(basis, matmul_rows(basis, direction)) / 2

        present = basis * estimate.diagonal[None, :] / 2
        descent = -slope_side - ridge * penalty(present)
        target_norm = weighted_norm(lifting, centre(lifting, targets, self.debias))
        relative = weighted_norm(lifting, residual) / jnp.where(target_norm > 0, target_norm, 1)
        forcing = jnp.minimum(FORCING, relative)
        if self.rtol is not None:
            enough = AIM * self.rtol / jnp.where(relative > 0, relative, 1)
            forcing = jnp.clip(enough, forcing, FORCING)
        loop = partial(kernels.while_loop, inputs)
        move, slope, bend = conjugate_gradient(
            curvature,
            precondition,
            descent,
            damping,
            forcing,
            self.inner_steps,
            loop,
        )
        moved = self._activate(retract(basis, present + move, self.rank, self.positive))
        moved_products = kernels.project(inputs, moved.factor)
        moved_residual = quadratic_forms(moved_products, moved.diagonal) - targets

        loss = self.loss(lifting, state.residual, estimate)
        moved_loss = self.loss(lifting, moved_residual, moved)
        # Cosine of the residual and its image on the tangent space, the ridge as residual too.
        cosine = jnp.sqrt(slope) / jnp.sqrt(bend) * (jnp.sqrt(slope) / loss)
        stationarity = jnp.where(bend > 0, cosine, jnp.inf)

        # At an optimum the last decrease is less than the rounding of the residual.
        rounding = 10 * jnp.finfo(targets.dtype).eps * weighted_norm(lifting, targets)
        accepted = ~(moved_loss > loss + rounding)
        unit = jnp.where(slope > 0, bend / slope, 0)
        grown = jnp.maximum(DAMPING_GROWTH * damping, FIRST_DAMPING * unit)
        return State(
            estimate=jax.tree.map(partial(jnp.where, accepted), moved, estimate),
            residual=jnp.where(accepted, moved_residual, state.residual),
            step_size=accepted.astype(targets.dtype),
            stationarity=stationarity,
            key=state.key,
            memory=(
                jnp.where(accepted, damping / DAMPING_GROWTH, grown),
                jnp.where(accepted, moved_products, products),
            ),
        )

    def loss(self, lifting: Lifting, residual: Array, estimate: LowRank) -> Array:
        """Return `sqrt(E[(A(L) + c - y)^2] + ridge |L|_F^2)` for an L in eigenvector form."""
        norm = fitted_norm(lifting, residual, self.debias)
        root = jnp.sqrt(self._ridge(lifting, norm.dtype))
        return jnp.hypot(norm, root * jnp.linalg.norm(estimate.diagonal))

    def _ridge(self, lifting: Lifting, dtype: Any) -> Array:
        # In units of the fourth power of the inputs.
        return fourth_power(jnp.asarray(self.ridge, dtype), 1 / kernels.unit(lifting.inputs))

    def _alive(self, diagonal: Array) -> Array:
        if self.active_rank is None:
            return jnp.ones_like(diagonal)
        return (jnp.arange(self.rank) < self.active_rank).astype(diagonal.dtype)

    def _activate(self, estimate: LowRank) -> LowRank:
        return LowRank(estimate.factor, estimate.diagonal * self._alive(estimate.diagonal))


def tangent_gram(products: Array, projected: Array, weight: Array) -> Array:
    """Return `4 w_i (x_i . V) sum_j (x_i . v_j)(x_i . d_j)`, (n, r), given X D and X V.

    X^T of it is `A_V^T W A_V D` with `A_V D = A(V D^T + D V^T)`; see `kernels.sweep`.
    """
    return (4 * weight * jnp.sum(projected * products, axis=1))[:, None] * projected


def retract(basis: Array, direction: Array, rank: int, positive: bool) -> LowRank:
    """Return the best rank-r approximation of `V D^T + D V^T`, which has rank 2r.

    One QR factorisation of (p, 2r) and an eigenproblem of size 2r.
    """
    width = basis.shape[1]
    orthonormal, triangle = jnp.linalg.qr(jnp.concatenate([basis, direction], axis=1))
    small = matmul(triangle[:, :width], triangle[:, width:].T)
    kept = lowrank.truncate_matrix(small + small.T, rank, positive)
    return LowRank(matmul(orthonormal, kept.factor), kept.diagonal)


def gauss_newton(
    rank: int,
    debias: Debias = "centre",
    positive: bool = False,
    ridge: ArrayLike = 0.0,
    active_rank: ArrayLike | None = None,
    inner_steps: int = 50,
) -> GaussNewton:
    """Build Gauss-Newton on the tangent space, locally quadratic and matrix-free.

    With V an orthonormal basis of the range of L, an outer step solves

        min over D (p x r)  E[(A(V D^T + D V^T) + c - y)^2] + ridge |V D^T + D V^T|_F^2

    by conjugate gradients, c the freely fitted intercept (and linear terms where
    the lifting has such), and truncates the sum, of rank 2r, to rank r.  The inner
    iteration stops at `min(0.1, relative residual)` of the gradient, or where the
    residual would be a quarter of what `solve` is asked for by `rtol`.  A step that
    raises the loss is refused and the next one damped (Levenberg-Marquardt).
    O(m p r) an inner step, one sweep over X, and O((m + p) r) memory.

    Args:
        rank: r, 1 <= r <= p.
        debias: "centre" or "none"; "trace" is no least-squares problem.
        positive: keep L positive semidefinite.
        ridge: penalty on `|L|_F^2` beside the mean squared residual, >= 0, may be
            traced; in units of the fourth power of the inputs.
        active_rank: the number of eigenvalues that may differ from zero, 1 to r, may
            be traced, so that one compiled program serves every rank up to r;
            None for r.
        inner_steps: conjugate gradient steps at most.

    Returns:
        A solver for `solve` and `trajectory`.

    Raises:
        ValueError, TypeError: options out of range.

    Needs few steps (6 at three times as many samples as unknowns) but a good start;
    without one it uses the spectral estimate.  The idea of solving on the tangent
    space: Zilber & Nadler, "GNMR: a provable one-line algorithm for low rank matrix
    recovery", arXiv:2106.12933.
    Deviations: symmetric L, conjugate gradients from the present iterate, damping, a
    free intercept.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> solver = jp.gauss_newton(rank=2)
    >>> solution = jp.solve(solver, problem.lifting, problem.targets, jax.random.key(1))
    >>> bool(jp.relative_error(solution.value, problem.truth) < 1e-4)
    True
    """
    check_choice("debias", debias, ("centre", "none"))
    options = check_options(rank, None, debias, positive)
    del options["step_size"]
    if active_rank is not None and not isinstance(active_rank, jax.Array):
        active_rank = check_count("active_rank", active_rank, 1)
        if active_rank > options["rank"]:
            raise ValueError(f"active_rank is {active_rank}, above the rank {rank}")
    return GaussNewton(
        **options,
        ridge=check_number("ridge", ridge),
        active_rank=active_rank,
        inner_steps=check_count("inner_steps", inner_steps, 1),
    )
