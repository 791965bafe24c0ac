"""The entry points: validate, then run a solver inside one jitted loop."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxpoly import kernels, units
from jaxpoly.lifting import Lifting, centre, weighted_norm
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import default_rtol
from jaxpoly.run import Run, Solver, begin, centred_targets, judge, relative_residual
from jaxpoly.state import Solution, State, Status
from jaxpoly.validation import (
    check_count,
    check_key,
    check_lifting,
    check_low_rank,
    check_number,
    check_rank_fits,
    check_solver,
    check_vector,
    check_weight_values,
)


def solve(
    solver: Solver,
    lifting: Lifting,
    targets: ArrayLike,
    key: Array,
    max_steps: ArrayLike = 500,
    rtol: ArrayLike | None = None,
    start: LowRank | None = None,
) -> Solution:
    """Fit a rank-r matrix L to quadratic measurements: `y_i = x_i^T L x_i (+ c)`.

    Steps until the residual is small (CONVERGED), a local least-squares optimum is
    reached (STATIONARY) or something else ends the run, see `Status`.  The best
    finite iterate is returned in every case.

    Args:
        solver: from `ep_rom`, `ap_rom`, `factored_descent`, `gauss_newton`.
        lifting: inputs (m, p) and weights (m,) or None.
        targets: y, (m,).
        key: a JAX random key.
        max_steps: steps at most, an integer, may be traced.
        rtol: relative residual that counts as converged, see `Solution`; None for
            `20 eps p^(1/4)` of the dtype of the inputs.
        start: the first iterate, of any rank (truncated or filled up to r); by
            default the solver's own.

    Returns:
        A `Solution`; everything is computed in the dtype of the inputs.

    Raises:
        ValueError, TypeError: shapes that do not fit, data that are not real
            numbers, options out of range.  NaN, divergence and degenerate data do
            not raise, they become a status; see `raise_if_failed`.

    Works under `jax.jit` and `jax.vmap`.  A vmapped solve runs until its slowest
    problem ends; on CPU, `jax.lax.map` over problems is the faster form.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> solution = jp.solve(jp.ap_rom(rank=2), problem.lifting, problem.targets, jax.random.key(1))
    >>> jp.Status(int(solution.status)).name
    'CONVERGED'
    """
    lifting, targets, key, start = _check(solver, lifting, targets, key, start)
    max_steps, rtol = _check_limits(max_steps, rtol, lifting.inputs)
    run = _on_host(lifting, _solve)
    return run(solver, lifting, targets, key, max_steps, rtol, start)


@jax.jit
def _solve(solver, lifting, targets, key, max_steps, rtol, start) -> Solution:
    run = begin(solver, lifting, targets, key, rtol, start)
    return finish(_advance(solver, lifting, targets, run, max_steps, rtol))


def init_run(
    solver: Solver,
    lifting: Lifting,
    targets: ArrayLike,
    key: Array,
    rtol: ArrayLike | None = None,
    start: LowRank | None = None,
) -> Run:
    """Return a run before its first step, with bad input already told in its status.

    `solve` is `finish(advance(..., init_run(...), max_steps))`; in pieces it can be
    watched, paused and resumed.  Arguments as in `solve`.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> data = problem.lifting, problem.targets
    >>> run = jp.init_run(jp.ap_rom(rank=2), *data, jax.random.key(1))
    >>> for _ in range(10):
    ...     run = jp.advance(jp.ap_rom(rank=2), *data, run, num_steps=20)
    >>> jp.Status(int(jp.finish(run).status)).name
    'CONVERGED'
    """
    lifting, targets, key, start = _check(solver, lifting, targets, key, start)
    _, rtol = _check_limits(0, rtol, lifting.inputs)
    return _on_host(lifting, _begin)(solver, lifting, targets, key, rtol, start)


def advance(
    solver: Solver,
    lifting: Lifting,
    targets: ArrayLike,
    run: Run,
    num_steps: ArrayLike,
    rtol: ArrayLike | None = None,
) -> Run:
    """Return the run after at most `num_steps` more steps; a run that has ended stays.

    Arguments and errors as in `solve`; `run` comes from `init_run` or a former
    `advance` on the same data.  For an example see `init_run`.
    """
    _check_run(run)
    lifting, targets, _, _ = _check(solver, lifting, targets, run.state.key, None)
    seen = run.state.residual.shape, run.state.estimate.factor.shape
    expected = jnp.shape(targets), (lifting.inputs.shape[1], solver.rank)
    if seen != expected:
        raise ValueError(
            f"run has residuals and a factor of shapes {seen}, data and solver {expected}; "
            "expected the run that init_run made of them"
        )
    num_steps, rtol = _check_limits(num_steps, rtol, lifting.inputs)
    return _on_host(lifting, _jit_advance)(solver, lifting, targets, run, num_steps, rtol)


def finish(run: Run) -> Solution:
    """Return the solution of a run as it stands, the best finite iterate so far.

    Its status is MAX_STEPS while the run can go on.  For an example see `init_run`.
    """
    _check_run(run)
    return run.best


def _check_run(run: Any) -> None:
    if not isinstance(run, Run):
        raise TypeError(f"run is a {type(run).__name__}; expected what init_run returns")


def _advance(solver, lifting, targets, run, num_steps, rtol) -> Run:
    room = jnp.iinfo(jnp.int32).max - run.best.num_steps
    last = run.best.num_steps + jnp.minimum(num_steps, room)
    lifting, targets = units.enter(run.units, lifting, targets)
    targets = centred_targets(solver, lifting, targets)
    aimed = solver.aim(rtol) if hasattr(solver, "aim") else solver

    def unfinished(run):
        return (run.best.status == Status.MAX_STEPS) & (run.best.num_steps < last)

    def body(run):
        state = aimed.step(lifting, targets, run.state)
        return _judge(solver, lifting, run, state, rtol)

    return kernels.while_loop(lifting.inputs, unfinished, body, run)


_begin = jax.jit(begin)
_judge = jax.jit(judge)
_jit_advance = jax.jit(_advance)


def _on_host(lifting: Lifting, jitted: Any) -> Any:
    """Return a jitted function as it is, but unjitted where X has to be read from disk in it."""
    return jitted.__wrapped__ if hasattr(lifting.inputs, "sweep") else jitted


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Record:
    """What `trajectory` keeps of every step; the leading axis is the step.

    For an example see `trajectory`.

    Attributes:
        loss: `E[(A(L) + c - y)^2] / 2`, weighted mean, c the fitted intercept.
        relative_residual: as in `Solution`.
        step_size: the step that led to the iterate.
        stationarity: as in `State`.
        estimate: the iterates, a LowRank with factor (num_steps, p, r).
    """

    loss: Array
    relative_residual: Array
    step_size: Array
    stationarity: Array
    estimate: LowRank


def trajectory(
    solver: Solver,
    lifting: Lifting,
    targets: ArrayLike,
    key: Array,
    num_steps: int = 100,
    start: LowRank | None = None,
) -> tuple[State, Record]:
    """Take `num_steps` steps without stopping and record every one.

    Arguments as in `solve`; `num_steps` is a static integer >= 0.  Nothing ends the
    run: after a divergence the record holds infinities and NaN.

    Returns:
        The last state and a `Record`.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> data = problem.lifting, problem.targets
    >>> state, record = jp.trajectory(jp.ap_rom(rank=2), *data, jax.random.key(1), num_steps=30)
    >>> record.loss.shape, bool(record.loss[-1] < record.loss[0])
    ((30,), True)
    """
    lifting, targets, key, start = _check(solver, lifting, targets, key, start)
    num_steps = check_count("num_steps", num_steps, 0)
    return _trajectory(solver, lifting, targets, key, num_steps, start)


@partial(jax.jit, static_argnames="num_steps")
def _trajectory(solver, lifting, targets, key, num_steps, start) -> tuple[State, Record]:
    magnitude = kernels.magnitude(lifting.inputs, lifting.sample_weight)
    scale = units.choose_units(lifting, targets, magnitude)
    lifting, given = units.enter(scale, lifting, targets)
    start = None if start is None else units.enter_matrix(scale, start)
    targets = centred_targets(solver, lifting, given)
    target_norm = weighted_norm(lifting, centre(lifting, targets, solver.debias))

    def body(state, _):
        state = solver.step(lifting, targets, state)
        centred = centre(lifting, state.residual, solver.debias)
        loss = units.leave_targets(scale, weighted_norm(lifting, centred)) ** 2 / 2
        relative = relative_residual(lifting, state.residual, target_norm, solver.debias)
        estimate, _ = units.leave_matrix(scale, state.estimate)
        record = Record(loss, relative, state.step_size, state.stationarity, estimate)
        return state, record

    state = solver.init(lifting, targets, key, start)
    state, record = lax.scan(body, state, length=num_steps)
    estimate, _ = units.leave_matrix(scale, state.estimate)
    residual = units.leave_targets(scale, state.residual + (targets - given))
    return replace(state, estimate=estimate, residual=residual), record


def _check(solver: Any, lifting: Any, targets: Any, key: Any, start: Any):
    """Return data and key in working form, or raise while tracing."""
    check_solver(solver)
    lifting = check_lifting(lifting)
    targets = check_vector("targets", targets, lifting.inputs)
    check_rank_fits(solver.rank, lifting.inputs.shape[1])
    check_weight_values(lifting.sample_weight)
    if lifting.linear_basis is not None and solver.debias != "centre":
        raise ValueError(
            f"the lifting has linear terms but the solver has debias={solver.debias!r}; "
            "expected debias='centre', which fits the intercept that belongs to them"
        )
    if start is not None:
        start = check_low_rank(start, lifting.inputs, "start")
    return lifting, targets, check_key(key), start


def _check_limits(max_steps: Any, rtol: Any, inputs: Array) -> tuple[Array, Array]:
    if not isinstance(max_steps, jax.Array):
        largest = int(jnp.iinfo(jnp.int32).max)
        max_steps = min(check_count("max_steps", max_steps, 0), largest)
    elif max_steps.shape != ():
        raise ValueError(f"max_steps has shape {max_steps.shape}; expected one integer: use vmap")
    elif not jnp.issubdtype(max_steps.dtype, jnp.integer):
        raise TypeError(f"max_steps has dtype {max_steps.dtype}; expected an integer")
    elif not isinstance(max_steps, jax.core.Tracer) and max_steps < 0:
        raise ValueError(f"max_steps is {max_steps}; expected at least 0")
    if rtol is None:
        rtol = default_rtol(inputs.dtype, inputs.shape[1])
    return _scalar(max_steps, jnp.int32), _scalar(check_number("rtol", rtol), inputs.dtype)


def _scalar(value: Any, dtype: Any) -> Any:
    # Numbers go into a compiled program as they are, arrays of numpy; a transfer costs more.
    return value.astype(dtype) if isinstance(value, jax.Array) else np.asarray(value, dtype)
