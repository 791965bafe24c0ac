"""The whitened coordinates that `recover` works in, what is seen there, and the way back."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpoly import kernels, units
from jaxpoly.inputs import Whitening, restore, whiten, with_linear_terms
from jaxpoly.lifting import (
    Lifting,
    centre,
    measure,
    normalised_weight,
    quadratic_forms,
    weighted_mean,
    weighted_norm,
)
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import default_rtol
from jaxpoly.state import Solution, Status
from jaxpoly.static import static
from jaxpoly.units import Units


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Coordinates:
    """Whitened coordinates, and what is seen in them.

    Attributes:
        whitening: the map to them.
        plain, fitted: the lifting without linear terms, and as it is fitted.
        shift: squared norm of the mean: 0 if centred, 1 if far away.
        resolution: the default rtol, raised where the targets are large beside what
            L is to explain.
        constant_squares: (p,), columns whose square does not vary.
        affine: whether `fitted` has linear terms.
    """

    whitening: Whitening
    plain: Lifting
    fitted: Lifting
    shift: Array
    resolution: Array
    constant_squares: Array
    affine: bool = static()


@partial(jax.jit, static_argnames="affine")
def prepare(lifting: Lifting, targets: Array, ridge: ArrayLike, affine: bool) -> Coordinates:
    """Return the whitened coordinates of the data, with linear terms if `affine`."""
    whitening, plain = whiten(lifting, centred=affine)
    fitted = with_linear_terms(plain, ridge) if affine else plain
    weight = normalised_weight(lifting)
    shift = jnp.sum(kernels.back_project(plain.inputs, weight) ** 2)

    size = weighted_norm(fitted, targets)
    left = weighted_norm(fitted, centre(fitted, targets, "centre"))
    exact = default_rtol(targets.dtype, lifting.inputs.shape[1])
    resolution = exact * size / jnp.where(left > 0, left, size)
    # Beyond half of the digits a fit goes on until its gradient vanishes.
    resolution = jnp.minimum(resolution, jnp.finfo(targets.dtype).eps ** 0.5)

    peak = jnp.max(jnp.abs(lifting.inputs), axis=0)
    squares = (lifting.inputs / jnp.where(peak > 0, peak, 1)[None, :]) ** 2
    spread = squares - kernels.back_project(squares, weight)[None, :]
    variance = kernels.back_project(spread**2, weight)
    constant = variance <= (10 * jnp.finfo(weight.dtype).eps) ** 2
    return Coordinates(whitening, plain, fitted, shift, resolution, constant, affine)


@jax.jit
def cancellation(plain: Lifting, targets: Array, value: LowRank) -> Array:
    """Return what far shifted inputs lose: the terms of A(L) over their sum, times sqrt(p).

    All entries of such a row have one sign, so the rounding of its products adds up.
    """
    terms = weighted_norm(plain, measure(plain, LowRank(value.factor, jnp.abs(value.diagonal))))
    return jnp.maximum(terms / weighted_norm(plain, targets), 1) * plain.inputs.shape[1] ** 0.5


@jax.jit
def come_back(whitening: Whitening, solution: Solution) -> Solution:
    """Return a solution in whitened coordinates as one in those of the inputs."""
    parts = restore(whitening, solution.value, solution.linear, solution.intercept)
    # The coordinates of unusable inputs are not finite; the zeros of `solve` stay.
    usable = solution.status != Status.NONFINITE_INPUT
    known = solution.value, solution.linear, solution.intercept
    value, linear, intercept = jax.tree.map(partial(jnp.where, usable), parts, known)
    return replace(solution, value=value, linear=linear, intercept=intercept)


@partial(jax.jit, static_argnames="by_default")
def return_home(
    own: Coordinates,
    scale: Units,
    lifting: Lifting,
    weight: Array,
    targets: Array,
    solution: Solution,
    rtol: Array,
    by_default: bool,
) -> Solution:
    """Return a solution in whitened coordinates as one of the data, looked at again there."""
    solution = come_back(own.whitening, solution)
    counted = replace(lifting, sample_weight=weight)
    fitted = replace(own.fitted, sample_weight=weight)
    solution = look_again(counted, fitted, targets, solution, rtol, by_default)
    return leave(scale, own.fitted, targets, solution)


def look_again(
    lifting: Lifting,
    fitted: Lifting,
    targets: Array,
    solution: Solution,
    rtol: Array,
    by_default: bool,
) -> Solution:
    """Return the solution with the residual that it has in the coordinates of the inputs.

    Where the way back from whitened coordinates costs more than a multiple of the rounding of
    a prediction (of the asked rtol, if one was), a success becomes STALLED.
    """
    value, linear = solution.value, kernels.project(lifting.inputs, solution.linear)
    products = kernels.project(lifting.inputs, value.factor)
    found = quadratic_forms(products, value.diagonal) + linear + solution.intercept
    left = weighted_norm(fitted, centre(fitted, targets, "centre"))
    left = jnp.where(left > 0, left, 1)
    relative = weighted_norm(lifting, found - targets) / left
    sizes = quadratic_forms(products, jnp.abs(value.diagonal)) + jnp.abs(linear)
    sizes += jnp.abs(solution.intercept) + jnp.abs(targets)
    half = jnp.finfo(targets.dtype).eps ** 0.5
    dim = lifting.inputs.shape[1]
    rounding = default_rtol(targets.dtype, dim) * dim**0.5 * weighted_norm(lifting, sizes) / left
    if by_default:
        rtol = jnp.maximum(rtol, jnp.minimum(rounding, half))
    told = solution.relative_residual
    lost = (solution.status == Status.CONVERGED) & ~(relative <= rtol)
    lost |= (solution.status == Status.STATIONARY) & ~(relative <= 1.01 * told + half)
    usable = (solution.status != Status.NONFINITE_INPUT) & (solution.status != Status.DEGENERATE)
    return replace(
        solution,
        status=jnp.where(lost, Status.STALLED, solution.status).astype(jnp.int32),
        relative_residual=jnp.where(usable, relative, told),
    )


def leave(scale: Units, fitted: Lifting, targets: Array, solution: Solution) -> Solution:
    """Return the solution in the units of the data; the mean alone where these cannot hold it."""
    value, held = units.leave_matrix(scale, solution.value)
    linear, also_held = units.leave_linear(scale, solution.linear)
    intercept = units.leave_targets(scale, solution.intercept)
    held &= also_held & jnp.isfinite(intercept)
    mean = weighted_mean(fitted, targets)
    left = weighted_norm(fitted, centre(fitted, targets, "centre"))
    alone = weighted_norm(fitted, targets - mean) / jnp.where(left > 0, left, 1)
    given_up = (solution.status == Status.NONFINITE_INPUT) | (solution.status == Status.DEGENERATE)
    flushed = ~given_up & (left <= units.least_targets(scale))
    status = jnp.where(held, solution.status, Status.DIVERGED)
    status = jnp.where(flushed, Status.DEGENERATE, status)
    held &= ~flushed
    return replace(
        solution,
        value=jax.tree.map(lambda leaf: jnp.where(held, leaf, 0), value),
        linear=jnp.where(held, linear, 0),
        intercept=jnp.where(held, intercept, units.leave_targets(scale, mean)),
        status=status.astype(jnp.int32),
        relative_residual=jnp.where(held, solution.relative_residual, alone),
    )
