"""A run: what is known of a solve in progress, and when it ends."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxpoly import kernels, lowrank, units
from jaxpoly.lifting import Debias, Lifting, centre, fitted_affine, fitted_norm, weighted_norm
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import stationarity_tolerance
from jaxpoly.state import Solution, State, Status
from jaxpoly.units import Units

# STALLED: over so many steps the residual fell by less than this fraction and the
# stationarity, which goes on falling where noise keeps the residual up, by less than half.
STALL_STEPS = 100
STALL_DECREASE = 1e-3
STALL_STATIONARITY = 0.5
# DIVERGED: the relative residual has grown by this factor.
DIVERGENCE_FACTOR = 1e3


class Solver(Protocol):
    """What the driver needs of a solver: a registered pytree with these members.

    A solver that minimises more than the residual also has `loss(lifting, residual,
    estimate)`, a norm, and the best iterate is that of the smallest loss.  One that can save
    work on digits nobody asked for also has `aim(rtol)`, which returns the solver whose
    steps are taken.  For an example of its use see `solve`.
    """

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

    For an example see `init_run`.

    Attributes:
        units: those of the state, the offset and the norm; 1 for data of ordinary scale.
        state: the solver's state.
        best: the solution as it would be returned now; its status is MAX_STEPS
            while the run can go on.
        offset: the mean of the targets where an intercept is fitted, else 0; the
            solver is given the targets without it, so that a large offset costs no
            digits of their variation.
        rounding: what rounding the affine part to the dtype adds to a relative residual.
        target_norm: the norm that residuals are relative to.
        relative, loss: relative residual and relative loss of the state; the loss has the
            penalties of a ridge where there is one.
        lowest: the lowest loss so far.
        settled: whether the last step began where the gradient vanishes, at what is now the
            best iterate, and led nowhere.
        milestone: relative residual and stationarity, one of which has to be
            undercut visibly for the run not to stall, (2,).
        milestone_step: the step at which that happened last.
        ceiling: relative residual above which the run counts as diverged.
    """

    units: Units
    state: State
    best: Solution
    offset: Array
    rounding: Array
    target_norm: Array
    relative: Array
    loss: Array
    lowest: Array
    settled: Array
    milestone: Array
    milestone_step: Array
    ceiling: Array


def begin(
    solver: Solver,
    lifting: Lifting,
    targets: Array,
    key: Array,
    rtol: Array,
    start: LowRank | None,
) -> Run:
    """Return a run before its first step; unusable or degenerate data end it at once."""
    weight = lifting.sample_weight
    magnitude = kernels.magnitude(lifting.inputs, weight)
    usable = jnp.isfinite(magnitude) & _all_finite((weight, targets, start))
    if weight is not None:
        usable &= jnp.all(weight >= 0)
    scale = units.choose_units(lifting, targets, magnitude)
    lifting, targets = units.enter(scale, lifting, targets)
    start = None if start is None else units.enter_matrix(scale, start)
    offset = _offset(solver, lifting, targets)
    shifted = targets - offset
    state = solver.init(lifting, shifted, key, start)
    target_norm = weighted_norm(lifting, centre(lifting, shifted, solver.debias))
    # A constant target leaves only rounding after its mean is taken off.
    noise_floor = 10 * jnp.finfo(targets.dtype).eps * weighted_norm(lifting, targets)
    noise_floor = jnp.maximum(noise_floor, units.least_targets(scale))
    degenerate = (target_norm <= noise_floor) | (magnitude == 0)

    value, held = units.leave_matrix(scale, state.estimate)
    sound = usable & ~degenerate & held
    residual = jnp.where(sound, state.residual, -shifted)
    intercept, linear, also_held = _affine(solver, lifting, scale, offset, residual)
    mean = units.leave_targets(scale, offset)
    sound &= also_held
    empty = lowrank.zeros(lifting.inputs.shape[1], solver.rank, targets.dtype)
    shown = _select(sound, state.estimate, empty)
    residual = jnp.where(also_held, residual, -shifted)
    lost = jnp.abs(offset)
    if lifting.linear_basis is not None:
        lost += weighted_norm(lifting, shifted)
    rounding = jnp.finfo(targets.dtype).eps * lost / jnp.where(target_norm > 0, target_norm, 1)
    relative = relative_residual(lifting, residual, target_norm, solver.debias) + rounding

    status = jnp.int32(Status.MAX_STEPS)
    status = jnp.where(relative <= rtol, Status.CONVERGED, status)
    status = jnp.where(~(held & also_held), Status.DIVERGED, status)
    status = jnp.where(degenerate, Status.DEGENERATE, status)
    status = jnp.where(~usable, Status.NONFINITE_INPUT, status).astype(jnp.int32)
    best = Solution(
        value=_select(sound, value, empty),
        intercept=jnp.where(usable, jnp.where(also_held, intercept, mean), 0),
        linear=jnp.where(usable & also_held, linear, 0),
        status=status,
        num_steps=jnp.int32(0),
        relative_residual=jnp.where(usable, relative, jnp.inf),
        stationarity=state.stationarity,
        underdetermined=_num_samples(lifting) < _num_unknowns(lifting, solver),
    )
    ceiling = DIVERGENCE_FACTOR * jnp.maximum(relative, 1)
    shown_state = replace(state, estimate=shown, residual=residual)
    loss = relative_loss(solver, lifting, shown_state, target_norm) + rounding
    loss = jnp.where(usable, loss, jnp.inf)
    return Run(
        units=scale,
        state=state,
        best=best,
        offset=offset,
        rounding=rounding,
        target_norm=target_norm,
        relative=relative,
        loss=loss,
        lowest=loss,
        settled=jnp.zeros((), bool),
        milestone=jnp.stack([loss, state.stationarity]),
        milestone_step=jnp.int32(0),
        ceiling=ceiling,
    )


def judge(solver: Solver, lifting: Lifting, run: Run, state: State, rtol: Array) -> Run:
    """Return the run after a step to `state`: best iterate, milestone and status."""
    former, num_steps = run.best, run.best.num_steps + 1
    relative = relative_residual(lifting, state.residual, run.target_norm, solver.debias)
    relative = relative + run.rounding
    loss = relative_loss(solver, lifting, state, run.target_norm) + run.rounding
    converged = (loss < run.lowest) & (relative <= rtol)

    # A stationarity is that of the iterate the step began at.  Where it vanishes, and one step
    # more leads nowhere either, the iterate with the smaller one of the two is the answer: the
    # loss, known to rounding, tells gradients from each other only down to the root of that.
    # The gradient is small in a flat valley too, but there a step lowers the loss visibly.
    eps = jnp.finfo(loss.dtype).eps
    led_nowhere = (run.lowest - loss <= 10 * eps) & ~converged
    # The optimum is at most that fraction of the residual away, or the rounding of y.
    settled = state.stationarity <= stationarity_tolerance(loss.dtype) + eps / run.relative
    settled &= (run.loss * (1 - STALL_DECREASE) <= run.lowest) & led_nowhere
    stationary = run.settled & led_nowhere
    begun = settled & (~stationary | (state.stationarity <= former.stationarity))
    candidate, relative_there = _select(begun, (run.state, run.relative), (state, relative))

    value, held = units.leave_matrix(run.units, candidate.estimate)
    affine = _affine(solver, lifting, run.units, run.offset, candidate.residual)
    intercept, linear, also_held = affine
    held &= also_held
    lower = held & ~begun & (loss < run.lowest)
    better = begun | (lower & ~stationary)
    lowest = jnp.where(lower, loss, run.lowest)
    reached = jnp.stack([lowest, state.stationarity])
    factors = jnp.array([1 - STALL_DECREASE, STALL_STATIONARITY], lowest.dtype)
    progress = reached < factors * run.milestone
    visible = jnp.any(progress)
    milestone = jnp.where(progress, reached, run.milestone)
    milestone_step = jnp.where(visible, num_steps, run.milestone_step)

    diverged = ~held | ~(relative <= run.ceiling)
    stalled = num_steps - milestone_step >= STALL_STEPS
    status = jnp.where(stalled, Status.STALLED, Status.MAX_STEPS)
    status = jnp.where(diverged, Status.DIVERGED, status)
    status = jnp.where(stationary, Status.STATIONARY, status)
    status = jnp.where(better & converged, Status.CONVERGED, status)
    best = Solution(
        value=_select(better, value, former.value),
        intercept=jnp.where(better, intercept, former.intercept),
        linear=jnp.where(better, linear, former.linear),
        status=status.astype(jnp.int32),
        num_steps=num_steps,
        relative_residual=jnp.where(better, relative_there, former.relative_residual),
        stationarity=jnp.where(stationary & ~better, former.stationarity, state.stationarity),
        underdetermined=former.underdetermined,
    )
    return replace(
        run,
        state=state,
        best=best,
        relative=relative,
        loss=loss,
        lowest=lowest,
        settled=settled,
        milestone=milestone,
        milestone_step=milestone_step,
    )


def _affine(
    solver: Solver, lifting: Lifting, scale: Units, offset: Array, residual: Array
) -> tuple[Array, Array, Array]:
    """Return c and b in the units of the data, and whether the dtype can hold them there."""
    intercept, linear = fitted_affine(lifting, residual, solver.debias)
    intercept = units.leave_targets(scale, intercept + offset)
    held = jnp.isfinite(intercept)
    if lifting.linear_basis is not None:
        linear, also_held = units.leave_linear(scale, linear)
        held &= also_held
    return intercept, linear, held


def _offset(solver: Solver, lifting: Lifting, targets: Array) -> Array:
    # Of the linear terms nothing is taken off: with a ridge they would be shrunk twice.
    return -fitted_affine(replace(lifting, linear_basis=None), targets, solver.debias)[0]


def centred_targets(solver: Solver, lifting: Lifting, targets: Array) -> Array:
    """Return the targets as the solver is given them: without their mean if it fits one."""
    return targets - _offset(solver, lifting, targets)


def _all_finite(tree: Any) -> Array:
    leaves = jax.tree.leaves(tree)
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]).all()


def _select(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), new, old)


def relative_residual(
    lifting: Lifting, residual: Array, target_norm: Array, debias: Debias
) -> Array:
    """Return the norm of the residual, intercept included, over that of the targets."""
    size = weighted_norm(lifting, centre(lifting, residual, debias))
    return size / jnp.where(target_norm > 0, target_norm, 1)


def relative_loss(solver: Solver, lifting: Lifting, state: State, target_norm: Array) -> Array:
    """Return what the solver minimises, relative to the targets: the residual and any ridge."""
    if hasattr(solver, "loss"):
        size = solver.loss(lifting, state.residual, state.estimate)
    else:
        size = fitted_norm(lifting, state.residual, solver.debias)
    return size / jnp.where(target_norm > 0, target_norm, 1)


def _num_samples(lifting: Lifting) -> Array:
    if lifting.sample_weight is None:
        return jnp.int32(lifting.inputs.shape[0])
    return jnp.sum(lifting.sample_weight != 0, dtype=jnp.int32)


def _num_unknowns(lifting: Lifting, solver: Solver) -> int:
    dim, rank = lifting.inputs.shape[1], solver.rank
    linear = 0 if lifting.linear_basis is None else lifting.linear_basis.shape[1]
    return dim * rank - math.comb(rank, 2) + (solver.debias == "centre") + linear
