"""The loop around a solver: it decides when to stop, and says how it went."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxpoly import lowrank
from jaxpoly.lifting import Debias, Lifting, centre, fitted_intercept, weighted_norm
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import default_rtol, stationarity_tolerance
from jaxpoly.state import Solution, State, Status
from jaxpoly.validation import (
    check_count,
    check_key,
    check_lifting,
    check_low_rank,
    check_rank_fits,
    check_tolerance,
    check_vector,
    check_weight_values,
)

# STALLED: over so many steps the residual fell by less than this fraction and the
# stationarity, which goes on falling where noise keeps the residual up, by less than half.
STALL_STEPS = 100
STALL_DECREASE = 1e-3
STALL_STATIONARITY = 0.5
# DIVERGED: the relative residual has grown by this factor.
DIVERGENCE_FACTOR = 1e3


class Solver(Protocol):
    """What the driver needs of a solver: a registered pytree with these members."""

    @property
    def rank(self) -> int: ...
    @property
    def debias(self) -> Debias: ...
    def init(
        self, lifting: Lifting, targets: Array, key: Array, start: LowRank | None = None
    ) -> State: ...
    def step(self, lifting: Lifting, targets: Array, state: State) -> State: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Run:
    """A solve in progress: the solver's state and what the driver knows of it.

    Attributes:
        state: the solver's state.
        best: the solution as it would be returned now; its status is MAX_STEPS
            while the run can go on.
        target_norm: the norm that residuals are relative to.
        milestone: relative residual and stationarity, one of which has to be
            undercut visibly for the run not to stall, (2,).
        milestone_step: the step at which that happened last.
        ceiling: relative residual above which the run counts as diverged.
    """

    state: State
    best: Solution
    target_norm: Array
    milestone: Array
    milestone_step: Array
    ceiling: Array


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
        solver: from `ep_rom`, `ap_rom`, `factored_descent`.
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
    return _solve(solver, lifting, targets, key, max_steps, rtol, start)


@jax.jit
def _solve(solver, lifting, targets, key, max_steps, rtol, start) -> Solution:
    run = _init_run(solver, lifting, targets, key, rtol, start)
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
    return _jit_init_run(solver, lifting, targets, key, rtol, start)


def advance(
    solver: Solver,
    lifting: Lifting,
    targets: ArrayLike,
    run: Run,
    num_steps: ArrayLike,
    rtol: ArrayLike | None = None,
) -> Run:
    """Return the run after at most `num_steps` more steps; a run that has ended stays.

    Arguments as in `solve`; `run` comes from `init_run` or a former `advance`.
    """
    lifting, targets, _, _ = _check(solver, lifting, targets, run.state.key, None)
    num_steps, rtol = _check_limits(num_steps, rtol, lifting.inputs)
    return _jit_advance(solver, lifting, targets, run, num_steps, rtol)


def finish(run: Run) -> Solution:
    """Return the solution of a run as it stands, the best finite iterate so far."""
    return run.best


def _init_run(solver, lifting, targets, key, rtol, start) -> Run:
    state = solver.init(lifting, targets, key, start)
    # One reduction of X tells both; tests by entry would write m x p masks down.
    largest_input = jnp.max(jnp.abs(lifting.inputs))
    weight = lifting.sample_weight
    usable = jnp.isfinite(largest_input) & _all_finite((weight, targets, start))
    if weight is not None:
        usable &= jnp.all(weight >= 0)
    target_norm = weighted_norm(lifting, centre(lifting, targets, solver.debias))
    # A constant target leaves only rounding after its mean is taken off.
    noise_floor = 10 * jnp.finfo(targets.dtype).eps * weighted_norm(lifting, targets)
    degenerate = (target_norm <= noise_floor) | (largest_input == 0)

    sound = usable & ~degenerate & _all_finite(state.estimate)
    empty = lowrank.zeros(lifting.inputs.shape[1], solver.rank, targets.dtype)
    shown = _select(sound, state.estimate, empty)
    residual = jnp.where(sound, state.residual, -targets)
    relative = _relative_residual(lifting, residual, target_norm, solver.debias)
    intercept = fitted_intercept(lifting, residual, solver.debias)

    status = jnp.int32(Status.MAX_STEPS)
    status = jnp.where(relative <= rtol, Status.CONVERGED, status)
    status = jnp.where(~_all_finite(state.estimate), Status.DIVERGED, status)
    status = jnp.where(degenerate, Status.DEGENERATE, status)
    status = jnp.where(~usable, Status.NONFINITE_INPUT, status).astype(jnp.int32)
    best = Solution(
        value=shown,
        intercept=jnp.where(usable, intercept, 0),
        status=status,
        num_steps=jnp.int32(0),
        relative_residual=jnp.where(usable, relative, jnp.inf),
        stationarity=state.stationarity,
        underdetermined=_num_samples(lifting) < _num_unknowns(lifting, solver),
    )
    ceiling = DIVERGENCE_FACTOR * jnp.maximum(relative, 1)
    milestone = jnp.stack([best.relative_residual, state.stationarity])
    return Run(state, best, target_norm, milestone, jnp.int32(0), ceiling)


def _advance(solver, lifting, targets, run, num_steps, rtol) -> Run:
    last = run.best.num_steps + num_steps

    def unfinished(run):
        return (run.best.status == Status.MAX_STEPS) & (run.best.num_steps < last)

    def body(run):
        state = solver.step(lifting, targets, run.state)
        return _judge(solver, lifting, run, state, rtol)

    return lax.while_loop(unfinished, body, run)


def _judge(solver, lifting, run: Run, state: State, rtol) -> Run:
    """Return the run after a step to `state`: best iterate, milestone and status."""
    former, num_steps = run.best, run.best.num_steps + 1
    relative = _relative_residual(lifting, state.residual, run.target_norm, solver.debias)
    better = relative < former.relative_residual
    lowest = jnp.where(better, relative, former.relative_residual)
    reached = jnp.stack([lowest, state.stationarity])
    factors = jnp.array([1 - STALL_DECREASE, STALL_STATIONARITY], lowest.dtype)
    progress = reached < factors * run.milestone
    visible = jnp.any(progress)
    milestone = jnp.where(progress, reached, run.milestone)
    milestone_step = jnp.where(visible, num_steps, run.milestone_step)

    stationary = state.stationarity <= stationarity_tolerance(state.residual.dtype)
    diverged = ~_all_finite(state.estimate) | ~(relative <= run.ceiling)
    stalled = num_steps - milestone_step >= STALL_STEPS
    status = jnp.where(stalled, Status.STALLED, Status.MAX_STEPS)
    status = jnp.where(stationary, Status.STATIONARY, status)
    status = jnp.where(diverged, Status.DIVERGED, status)
    status = jnp.where(better & (relative <= rtol), Status.CONVERGED, status)
    intercept = fitted_intercept(lifting, state.residual, solver.debias)
    best = Solution(
        value=_select(better, state.estimate, former.value),
        intercept=jnp.where(better, intercept, former.intercept),
        status=status.astype(jnp.int32),
        num_steps=num_steps,
        relative_residual=lowest,
        stationarity=state.stationarity,
        underdetermined=former.underdetermined,
    )
    return Run(state, best, run.target_norm, milestone, milestone_step, run.ceiling)


_jit_init_run = jax.jit(_init_run)
_jit_advance = jax.jit(_advance)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Record:
    """What `trajectory` keeps of every step; the leading axis is the step.

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
    target_norm = weighted_norm(lifting, centre(lifting, targets, solver.debias))

    def body(state, _):
        state = solver.step(lifting, targets, state)
        centred = centre(lifting, state.residual, solver.debias)
        loss = weighted_norm(lifting, centred) ** 2 / 2
        relative = _relative_residual(lifting, state.residual, target_norm, solver.debias)
        record = Record(loss, relative, state.step_size, state.stationarity, state.estimate)
        return state, record

    state = solver.init(lifting, targets, key, start)
    return lax.scan(body, state, length=num_steps)


def _check(solver: Any, lifting: Any, targets: Any, key: Any, start: Any):
    """Return data and key in working form, or raise while tracing."""
    if not (hasattr(solver, "init") and hasattr(solver, "step")):
        raise TypeError(f"solver is {solver!r}; expected a solver such as jaxpoly.ep_rom(rank=5)")
    lifting = check_lifting(lifting)
    targets = check_vector("targets", targets, lifting.inputs)
    check_rank_fits(solver.rank, lifting.inputs.shape[1])
    check_weight_values(lifting.sample_weight)
    if start is not None:
        start = check_low_rank(start, lifting.inputs, "start")
    return lifting, targets, check_key(key), start


def _check_limits(max_steps: Any, rtol: Any, inputs: Array) -> tuple[Array, Array]:
    if not isinstance(max_steps, jax.Array):
        max_steps = check_count("max_steps", max_steps, 0)
    if rtol is None:
        rtol = default_rtol(inputs.dtype, inputs.shape[1])
    return jnp.asarray(max_steps, jnp.int32), jnp.asarray(check_tolerance(rtol), inputs.dtype)


def _all_finite(tree: Any) -> Array:
    leaves = jax.tree.leaves(tree)
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]).all()


def _select(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), new, old)


def _relative_residual(lifting, residual, target_norm, debias) -> Array:
    size = weighted_norm(lifting, centre(lifting, residual, debias))
    return size / jnp.where(target_norm > 0, target_norm, 1)


def _num_samples(lifting: Lifting) -> Array:
    if lifting.sample_weight is None:
        return jnp.int32(lifting.inputs.shape[0])
    return jnp.sum(lifting.sample_weight != 0, dtype=jnp.int32)


def _num_unknowns(lifting: Lifting, solver: Solver) -> int:
    dim, rank = lifting.inputs.shape[1], solver.rank
    return dim * rank - math.comb(rank, 2) + (solver.debias == "centre")
