"""Implicit differentiation: the derivative of a finished fit, whatever found it."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxpoly import kernels, lowrank, units
from jaxpoly.curvature import (
    Objective,
    hessian,
    is_stationary,
    living_columns,
    slope,
    solve_on_tangents,
)
from jaxpoly.lifting import Lifting, centre, fitted_affine, normalised_weight, quadratic_forms
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import default_rtol, matmul, matmul_rows
from jaxpoly.run import Solver
from jaxpoly.solvers.options import fourth_power
from jaxpoly.state import Solution, check_solution
from jaxpoly.validation import (
    check_count,
    check_lifting,
    check_low_rank,
    check_solver,
    check_vector,
)


def implicit(
    solver: Solver,
    lifting: Lifting,
    targets: ArrayLike,
    solution: Solution,
    inner_steps: int = 500,
) -> Solution:
    """Return a finished solution that is differentiable in the data it was fitted to.

    The derivative is that of the stationary point itself, by the implicit function theorem on
    the manifold of rank-r matrices: with the optimality condition `G V = 0`,

        dL = V D^T + D V^T,    Hess D = -2 (dG) V,

    Hess the exact Riemannian Hessian of the least-squares loss, intercept and linear terms
    eliminated.  Nothing is unrolled and no step of the solver is differentiated.

    Args:
        solver: as it was given to `solve`; for `recover`, `gauss_newton` of the same rank
            and no ridge (that of `recover` is in whitened coordinates, and gives NaN here).
            Its `debias`, `ridge`, `positive` and `active_rank` say what was minimised.
            The weights that `robust=True` found count as given, not as functions of the data.
        lifting, targets: as they were given to `solve`.
        solution: from `solve`, `finish` or `recover`.
        inner_steps: conjugate gradient steps at most.

    Returns:
        The same solution, its value in eigenvector form.  Value, intercept, linear part and
        relative residual have derivatives, in forward and in reverse mode and of any
        order, with respect to the inputs, targets, sample weights and linear basis of
        `lifting` and `targets`, and the solver's ridge; the other fields have none.

    Raises:
        ValueError, TypeError: `debias="trace"`, whose fixed point minimises nothing;
            `StreamedRows`; shapes that do not fit.

    Keep the solver itself out of what is differentiated, by `stop_gradient` as below: without it
    forward mode would run through all of its steps for nothing.

    Derivatives are NaN, never silently wrong, where they do not exist or cannot be had: the
    point is not stationary for this data (stopped early, diverged, other data or solver;
    a Newton step would move the predictions by more than `10 sqrt(eps)` of the targets), an
    eigenvalue vanishes (rank above that of noiseless data), or the stationary point is not
    isolated (fewer samples than unknowns) or no minimum, so that the inner iteration fails.
    The status itself is not looked at: a run that ended at MAX_STEPS may have arrived.

    Eigenvectors and eigenvalues of the value have their own derivatives where they are distinct.
    Where two coincide within `sqrt(eps)` only functions of L as a whole have one; the factor then
    moves in a way that is right for these.

    A derivative costs a stationarity test (some 5 sweeps over X) and conjugate gradients to
    full precision (some 15 to 45), which is two to five outer steps of `gauss_newton`, for one
    gradient in reverse mode or one direction in forward mode.

    For bilevel problems in general: Blondel et al., "Efficient and modular implicit
    differentiation", arXiv:2105.15183; the Riemannian Hessian of a fixed rank:
    Vandereycken, doi 10.1137/110845768.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), 300, dim=20, rank=2, noise=0.1)
    >>> solver = jp.gauss_newton(rank=2)
    >>> def prediction(targets):
    ...     fixed = jax.lax.stop_gradient((problem.lifting, targets))
    ...     solution = jp.solve(solver, *fixed, jax.random.key(1))
    ...     solution = jp.implicit(solver, problem.lifting, targets, solution)
    ...     return jp.measure(problem.lifting, solution.value)[0] + solution.intercept
    >>> leverage = jax.grad(prediction)(problem.targets)[0]
    >>> bool(0 < leverage < 1)
    True
    """
    lifting, targets = check_differentiable(solver, lifting, targets)
    inner_steps = check_count("inner_steps", inner_steps, 1)
    check_solution(solution)
    check_low_rank(solution.value, lifting.inputs, "solution.value")
    return _implicit(solver, lifting, targets, solution, inner_steps)


def check_differentiable(solver: Any, lifting: Any, targets: Any) -> tuple[Lifting, Array]:
    """Return lifting and targets in working form; refuse what is no least-squares problem."""
    check_solver(solver)
    lifting = check_lifting(lifting)
    if hasattr(lifting.inputs, "sweep"):
        raise TypeError(
            f"lifting.inputs is a {type(lifting.inputs).__name__}, read from disk on the host; "
            "expected an array, or HalfPrecision"
        )
    if solver.debias == "trace":
        raise ValueError(
            "the solver has debias='trace', whose fixed point minimises no loss; expected "
            "'centre' or 'none'"
        )
    if lifting.linear_basis is not None and solver.debias != "centre":
        raise ValueError(
            f"the lifting has linear terms but the solver has debias={solver.debias!r}; "
            "expected debias='centre', which fits the intercept that belongs to them"
        )
    return lifting, check_vector("targets", targets, lifting.inputs)


def objective_of(
    solver: Any, lifting: Lifting, targets: Array
) -> tuple[units.Units, Objective, bool]:
    """Return units for the data, what the solver minimises in them, and whether L may lose rank."""
    fixed, level = lax.stop_gradient((lifting, targets))
    magnitude = kernels.magnitude(fixed.inputs, fixed.sample_weight)
    scale = units.choose_units(fixed, level, magnitude)
    lifting, targets = units.enter(scale, lifting, targets)
    ridge = jnp.asarray(getattr(solver, "ridge", 0.0), targets.dtype)
    ridge = fourth_power(ridge, 1 / kernels.unit(lifting.inputs))
    may_vanish = solver.positive or getattr(solver, "active_rank", None) is not None
    return scale, Objective(lifting, targets, ridge, solver.debias), may_vanish


@partial(jax.jit, static_argnames="inner_steps")
def _implicit(solver, lifting, targets, solution, inner_steps) -> Solution:
    scale, objective, may_vanish = objective_of(solver, lifting, targets)
    solution = lax.stop_gradient(solution)
    fit = (
        lowrank.eigen_form(units.enter_matrix(scale, solution.value)),
        units.enter_values(scale, solution.intercept),
        units.enter_linear(scale, solution.linear),
        solution.relative_residual,
    )
    value, intercept, linear, relative = _attach((may_vanish, inner_steps), objective, fit)
    return replace(
        solution,
        value=units.leave_matrix(scale, value)[0],
        intercept=units.leave_targets(scale, intercept),
        linear=units.leave_linear(scale, linear)[0],
        relative_residual=relative,
    )


Fit = tuple[LowRank, Array, Array, Array]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attach(options: tuple[bool, int], objective: Objective, fit: Fit) -> Fit:
    """Return the fit as it is; its derivative is that of the optimum of the objective."""
    return fit


@partial(_attach.defjvp, symbolic_zeros=True)
def _(options: tuple[bool, int], primals: Any, tangents: Any) -> tuple[Fit, Fit]:
    may_vanish, inner_steps = options
    objective, fit = primals
    # Through the same rule again, so that derivatives have derivatives.
    fit = _attach(options, objective, fit)
    estimate, _, _, relative = fit
    at, here, there = _moving_parts(objective, tangents[0])
    change = jax.jvp(lambda parts: slope(at(parts), estimate), (here,), (there,))[1]

    fixed = lax.stop_gradient((objective, estimate))
    alive = living_columns(*fixed, may_vanish)
    arrived = is_stationary(*fixed, alive)
    operator, precondition = hessian(objective, estimate, alive)
    direction = lax.custom_linear_solve(
        operator,
        -change * alive[None, :],
        lambda operator, target: solve_on_tangents(operator, precondition, target, inner_steps),
        symmetric=True,
    )
    direction = direction * jnp.where(arrived, 1, jnp.nan).astype(direction.dtype)
    move = eigen_move(estimate, direction, alive)
    (intercept, linear, square) = jax.jvp(
        lambda parts, estimate: _dependent(at(parts), estimate), (here, estimate), (there, move)
    )[1]
    # A fit that is exact to rounding is at the kink of the norm, where 0 is a subgradient.
    exact = relative <= default_rtol(relative.dtype, len(estimate.factor))
    relative_move = square / (2 * jnp.where(exact, jnp.inf, relative))
    return fit, (move, intercept, linear, relative_move)


def _moving_parts(objective: Objective, tangents: Any) -> tuple[Any, list[Array], list[Array]]:
    """Return the objective as a function of its arrays that move, these, and their tangents."""
    leaves, treedef = jax.tree.flatten(objective)
    given = jax.tree.leaves(tangents, is_leaf=lambda leaf: isinstance(leaf, SymbolicZero))
    moving = [k for k, tangent in enumerate(given) if not isinstance(tangent, SymbolicZero)]

    def at(parts: list[Array]) -> Objective:
        moved = dict(zip(moving, parts, strict=True))
        return jax.tree.unflatten(treedef, [moved.get(k, leaf) for k, leaf in enumerate(leaves)])

    return at, [leaves[k] for k in moving], [given[k] for k in moving]


def _dependent(objective: Objective, estimate: LowRank) -> tuple[Array, Array, Array]:
    """Return what follows from data and L: intercept, linear part, squared relative residual."""
    lifting, targets, debias = objective.lifting, objective.targets, objective.debias
    products = kernels.project(lifting.inputs, estimate.factor)
    residual = quadratic_forms(products, estimate.diagonal) - targets
    weight, variation = normalised_weight(lifting), centre(lifting, targets, debias)
    peak = lax.stop_gradient(jnp.max(jnp.abs(jnp.where(weight > 0, variation, 0))))
    unit = jnp.where(peak > 0, peak, 1)
    left = jnp.sum(weight * (centre(lifting, residual, debias) / unit) ** 2)
    total = jnp.sum(weight * (variation / unit) ** 2)
    return *fitted_affine(lifting, residual, debias), left / jnp.where(total > 0, total, 1)


def eigen_move(estimate: LowRank, direction: Array, alive: Array) -> LowRank:
    """Return how eigenvectors and eigenvalues move when L moves by `V D^T + D V^T`.

    Eigenvectors turn by `v_i^T dL v_j / (d_j - d_i)`.  Where eigenvalues coincide they have no
    derivative: there the factor moves symmetrically instead, so that `F diag(d) F^T` moves by
    dL in any case.
    """
    basis, diagonal = estimate.factor * alive[None, :], estimate.diagonal
    inside = matmul_rows(basis, direction)
    outside = direction - matmul(basis, inside)
    inside = inside + inside.T
    gap, total = (diagonal[None, :] - diagonal[:, None]), diagonal[None, :] + diagonal[:, None]
    size = jnp.max(jnp.abs(diagonal))
    tied = jnp.abs(gap) <= jnp.finfo(diagonal.dtype).eps ** 0.5 * size
    off = alive[None, :] * alive[:, None] * (1 - jnp.eye(len(diagonal), dtype=diagonal.dtype))
    counts = (off != 0) & jnp.where(tied, total != 0, True)
    divisor = jnp.where(counts, jnp.where(tied, total, gap), 1)
    turn = jnp.where(off != 0, inside / divisor, 0)
    inverse = jnp.where(alive != 0, 1 / jnp.where(alive != 0, diagonal, 1), 0)
    return LowRank(outside * inverse[None, :] + matmul(basis, turn), jnp.diagonal(inside))
