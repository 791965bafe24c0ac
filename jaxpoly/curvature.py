"""The least-squares loss to second order on the tangent space of the rank-r matrices."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxpoly import kernels
from jaxpoly.lifting import (
    Debias,
    Lifting,
    centre,
    normalised_weight,
    quadratic_forms,
    weighted_norm,
)
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import matmul, matmul_rows
from jaxpoly.solvers.conjugate_gradient import conjugate_gradient
from jaxpoly.solvers.gauss_newton import tangent_gram
from jaxpoly.static import static

# A solution within this many roots of eps of a stationary point counts as one; solvers stop at
# the root, measured along the steepest direction only.
DRIFT = 10
# The inner iteration solves to this power of eps: 2.5e-9 in float64, 1.6e-4 in float32.
SOLVE_POWER = 0.55
# An eigenvalue below this power of eps of the largest counts as zero.
RANK_POWER = 0.75

Map = Callable[[Array], Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Objective:
    """What a solver minimises: `min over b, c of E[(A(L) + X b + c - y)^2] + ridge |L|_F^2`.

    Attributes:
        lifting: X, the weights, and the linear terms if there are any.
        targets: y, (m,).
        ridge: a scalar.
        debias: "centre" with the intercept c, "none" without.
    """

    lifting: Lifting
    targets: Array
    ridge: Array
    debias: Debias = static("centre")


def centred_residual(objective: Objective, estimate: LowRank, products: Array) -> Array:
    """Return `A(L) + X b + c - y`, (m,), given X F."""
    residual = quadratic_forms(products, estimate.diagonal) - objective.targets
    return centre(objective.lifting, residual, objective.debias)


def slope(objective: Objective, estimate: LowRank) -> Array:
    """Return the gradient of half the objective in D, `dL = V D^T + D V^T`, (p, r).

    `2 G V` with `G = E[residual x x^T] + ridge L`, V the orthonormal factor of L.  Zero at a
    stationary point.
    """
    inputs, basis = objective.lifting.inputs, estimate.factor
    products = kernels.project(inputs, basis)
    residual = centred_residual(objective, estimate, products)
    row_weight = 2 * normalised_weight(objective.lifting) * residual
    penalty = 2 * objective.ridge * basis * estimate.diagonal[None, :]
    return kernels.back_project(inputs, row_weight[:, None] * products) + penalty


def bent_gram(products: Array, projected: Array, sides: Array) -> Array:
    """Return `tangent_gram` plus `bend_ij (x_i . d_j)`, (n, r); see `kernels.sweep`.

    `sides` are the weight and, beside it, bend, (n, 1 + r).
    """
    return tangent_gram(products, projected, sides[:, 0]) + sides[:, 1:] * products


def hessian(objective: Objective, estimate: LowRank, alive: Array) -> tuple[Map, Map]:
    """Return the Hessian of half the objective on the tangent space, and its preconditioner.

    As quadratic forms in D, with `dL = V D^T + D V^T` and U the part of D orthogonal to V,

        E[A(dL)^2] + ridge |dL|_F^2 + 2 <U^T G U, S^-1>,    L = V S V^T,

    A(dL) rid of what intercept and linear terms fit.  The last term is the curvature of the
    rank-r matrices.  All are zero on the gauge, `D = V (skew)`, which leaves L as it is.

    Args:
        objective, estimate: L with orthonormal factor.
        alive: (r,), 1 for columns that take part and 0 for others.

    Returns:
        Two maps of (p, r); one application of the first is one sweep over X, with linear
        terms three.
    """
    lifting, debias = objective.lifting, objective.debias
    inputs, weight = lifting.inputs, normalised_weight(lifting)
    basis = estimate.factor * alive[None, :]
    products = kernels.project(inputs, estimate.factor)
    residual = centred_residual(objective, estimate, products)
    projected = products * alive[None, :]
    inverse = jnp.where(alive > 0, 1 / jnp.where(alive > 0, estimate.diagonal, 1), 0)
    bend = 2 * (weight * residual)[:, None] * inverse[None, :]
    bent = jnp.concatenate([weight[:, None], bend], axis=1)
    sides = jnp.stack([weight * residual, weight], axis=1)
    sides = 2 * (sides[:, :, None] * projected[:, None, :]).reshape(len(weight), -1)
    gradient, constant = jnp.split(kernels.back_project(inputs, sides), 2, axis=1)
    overlap = matmul_rows(basis, gradient)

    def fitted(direction: Array) -> Array:
        if lifting.linear_basis is None:
            image, _ = kernels.sweep(inputs, direction, bent_gram, projected, bent)
            if debias != "centre":
                return image
            return image - constant * jnp.sum(constant * direction)
        moved = kernels.project(inputs, direction)
        image = weight * centre(lifting, 2 * jnp.sum(projected * moved, axis=1), debias)
        return kernels.back_project(inputs, 2 * image[:, None] * projected + bend * moved)

    def operator(direction: Array) -> Array:
        inside = matmul_rows(basis, direction)
        penalty = 2 * (direction + matmul(basis, inside.T))
        # Takes the parts along V out of the curvature term, on both sides.
        turned = inside * inverse[None, :]
        across = matmul_rows(gradient, direction) * inverse[None, :] - matmul(overlap, turned)
        along = matmul(gradient, turned) + matmul(basis, across)
        return fitted(direction) - along + objective.ridge * penalty

    def precondition(direction: Array) -> Array:
        # Inverts the curvature of |V D^T + D V^T|_F^2, twice as large along V.
        return direction - matmul(basis, matmul_rows(basis, direction)) / 2

    return operator, precondition


def solve_on_tangents(operator: Map, precondition: Map, target: Array, num_steps: int) -> Array:
    """Return D with `operator(D) = target`; NaN where the iteration does not get there."""
    peak = jnp.max(jnp.abs(target))
    target = target / jnp.where(peak > 0, peak, 1)
    tolerance = jnp.asarray(jnp.finfo(target.dtype).eps ** SOLVE_POWER, target.dtype)
    zero = jnp.zeros((), target.dtype)
    found, size, _ = conjugate_gradient(operator, precondition, target, zero, tolerance, num_steps)
    # The recurrence may have lost touch with the true remainder.
    remainder = target - operator(found)
    left = jnp.sum(remainder * precondition(remainder))
    return peak * jnp.where(left <= (10 * tolerance) ** 2 * size, found, jnp.nan)


def living_columns(objective: Objective, estimate: LowRank, may_vanish: bool) -> Array:
    """Return 1 for eigenvalues that take part, (r,), all NaN where L has no derivative.

    An eigenvalue that is exactly zero stays so where `may_vanish`: a clipped negative one, or one
    beyond `active_rank`.  Elsewhere a vanishing eigenvalue is a corner of the rank-r matrices.
    """
    size = jnp.abs(estimate.diagonal)
    alive = (size > 0) if may_vanish else jnp.ones_like(size, bool)
    tiny = jnp.asarray(jnp.finfo(size.dtype).eps ** RANK_POWER, size.dtype)
    corner = jnp.any(alive & (size <= tiny * jnp.max(size)))
    if estimate.factor.shape[0] == estimate.factor.shape[1]:
        corner = jnp.max(size) == 0
    return jnp.where(corner, jnp.nan, alive.astype(size.dtype))


def is_stationary(objective: Objective, estimate: LowRank, alive: Array) -> Array:
    """Return whether a Newton step would move the predictions by a negligible part of y."""
    operator, precondition = hessian(objective, estimate, alive)
    gradient = slope(objective, estimate) * alive[None, :]
    centred = centre(objective.lifting, objective.targets, objective.debias)
    target_norm = weighted_norm(objective.lifting, centred)
    gradient = gradient / jnp.where(target_norm > 0, target_norm, 1)
    zero = jnp.zeros((), gradient.dtype)
    step, _, _ = conjugate_gradient(operator, precondition, gradient, zero, zero + 0.1, 50)
    tolerance = DRIFT * jnp.finfo(gradient.dtype).eps ** 0.5
    # Not finite or negative curvature: no minimum.
    moved = jnp.sum(gradient * step)
    return (moved >= 0) & (moved <= tolerance**2) & (target_norm > 0)
