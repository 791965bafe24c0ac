"""From cheap to thorough: starts for Gauss-Newton until one is believed."""

from collections.abc import Iterator
from functools import partial
from itertools import count

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxpoly import kernels, lowrank
from jaxpoly.driver import solve
from jaxpoly.lifting import Lifting, dense_gradient, measure
from jaxpoly.lowrank import LowRank
from jaxpoly.reweighted import reweighted_start
from jaxpoly.solvers.gauss_newton import GaussNewton
from jaxpoly.solvers.hard_thresholding import ap_rom, ep_rom
from jaxpoly.state import Solution, Status
from jaxpoly.tangent import tangent_step

# A reweighted start takes m x m memory and m^3 operations a step: there is none with more
# samples than this, up to the second number it is tried where samples are plentiful too, and
# the random ones together may take so many operations a step.
LARGEST_SYSTEM = 2500
CHEAP_SYSTEM = 600
RANDOM_OPERATIONS = 4e9
# Exact eigendecompositions up to this dimension.
LARGEST_DENSE = 500
THRESHOLDING_STEPS = 200
NUM_RANDOM = 60
# Samples are plentiful with this many for each unknown; two or three starts that agree are
# then believed, otherwise eight.
PLENTY = 2.5
AGREEMENT = 1e-3


def search(
    solver: GaussNewton,
    lifting: Lifting,
    targets: Array,
    key: Array,
    max_steps: int,
    rtol: float,
    num_unknowns: int,
    start: LowRank | None = None,
) -> tuple[Solution, int]:
    """Return the solution of the smallest loss, and how many starts were tried.

    A `start` that is given comes first.  The others are spectral, reweighted and by
    hard thresholding, the reweighted one only where samples are scarce or few; where
    they are scarce random reweighted ones follow in batches, as far as affordable.  The search
    ends at the first that CONVERGED, at data that no start can mend, or when several
    starts have reached the smallest loss to 0.1 %.

    The loss decides on noisy data too: with noise of 20 dB at 1.5, 2 and 2.5 samples
    for each unknown (p = 40, r = 3) the start of the smallest loss was the nearest to
    the truth in 120 of 120 problems, so held-out samples would choose no better.
    """
    num_samples = lifting.inputs.shape[0]
    if lifting.sample_weight is not None:
        num_samples = int(jnp.count_nonzero(lifting.sample_weight))
    plentiful = num_samples >= PLENTY * num_unknowns
    cheap = num_samples <= CHEAP_SYSTEM
    believed = 8 if not plentiful else 3 if cheap else 2
    data = lifting, targets
    limits = max_steps, rtol
    attempts: list[Solution] = []
    if start is not None:
        attempts.append(solve(solver, *data, key, *limits, start))
        if _settled(solver, data, attempts, believed):
            return attempts[0], 1
    for batch in _attempts(solver, data, key, limits, plentiful, num_samples > num_unknowns):
        attempts.extend(batch)
        if _settled(solver, data, attempts, believed):
            break
    if len(attempts) == 1:
        return attempts[0], 1
    losses = [float(_loss(solver, *data, attempt.value)) for attempt in attempts]
    return attempts[losses.index(min(losses))], len(attempts)


@jax.jit
def _loss(solver: GaussNewton, lifting: Lifting, targets: Array, value: LowRank) -> Array:
    return solver.loss(lifting, measure(lifting, value) - targets, value)


def _settled(
    solver: GaussNewton, data: tuple[Lifting, Array], attempts: list[Solution], believed: int
) -> bool:
    ends = {int(attempt.status) for attempt in attempts}
    if ends & {Status.CONVERGED, Status.NONFINITE_INPUT, Status.DEGENERATE}:
        return True
    if len(attempts) < believed:
        return False
    losses = [float(_loss(solver, *data, attempt.value)) for attempt in attempts]
    lowest = min(losses)
    return sum(loss <= lowest * (1 + AGREEMENT) for loss in losses) >= believed


def _attempts(
    solver: GaussNewton,
    data: tuple[Lifting, Array],
    key: Array,
    limits: tuple[int, float],
    plentiful: bool,
    determined: bool,
) -> Iterator[list[Solution]]:
    """Yield the solutions of one start after the other, or of a batch of them."""
    # One by one: a split into many would be compiled for the easiest problem too.
    keys = (jax.random.fold_in(key, index) for index in count())
    num_samples, dim = data[0].inputs.shape
    largest = CHEAP_SYSTEM if plentiful else LARGEST_SYSTEM
    reweighting = num_samples <= largest and solver.rank < dim
    yield [_from_spectral(solver, *data, next(keys), *limits)]
    if reweighting:
        yield [_from_reweighted(solver, *data, next(keys), *limits)]
    yield [_from_thresholding(solver, *data, next(keys), *limits)]
    if plentiful or not (reweighting and determined):
        return
    # A vmapped batch waits for its slowest member, which only accelerators make up for.
    size = 4 if jax.default_backend() == "cpu" else NUM_RANDOM // 2
    affordable = min(NUM_RANDOM, int(RANDOM_OPERATIONS / num_samples**3))
    for _ in range(0, affordable, size):
        batch = jnp.stack([next(keys) for _ in range(size)])
        solutions = _from_random(solver, *data, batch, *limits)
        yield [jax.tree.map(lambda leaf, i=i: leaf[i], solutions) for i in range(size)]


@jax.jit
def _from_spectral(solver, lifting, targets, key, max_steps, rtol) -> Solution:
    start = None
    if lifting.inputs.shape[1] <= LARGEST_DENSE:
        # Exact, and compiled in half the time of a block Krylov iteration.
        descent = dense_gradient(lifting, targets)
        leading = lowrank.truncate_matrix(descent, solver.rank, solver.positive)
        products = kernels.project(lifting.inputs, leading.factor)
        values = leading.diagonal[None, :]
        step, _ = tangent_step(
            lifting,
            targets,
            leading.factor,
            leading.factor * values,
            products,
            products * values,
            solver.debias,
        )
        start = lowrank.scale(leading, step)
    return solve(solver, lifting, targets, key, max_steps, rtol, start)


@jax.jit
def _from_thresholding(solver, lifting, targets, key, max_steps, rtol) -> Solution:
    dense = lifting.inputs.shape[1] <= LARGEST_DENSE
    gentle = (ep_rom if dense else ap_rom)(solver.rank, positive=solver.positive)
    start = solve(gentle, lifting, targets, key, THRESHOLDING_STEPS, rtol).value
    return solve(solver, lifting, targets, key, max_steps, rtol, start)


@partial(jax.jit, static_argnames="random")
def _from_reweighted(
    solver, lifting, targets, key, max_steps, rtol, random: bool = False
) -> Solution:
    start = reweighted_start(lifting, targets, solver.rank, key if random else None)
    return solve(solver, lifting, targets, key, max_steps, rtol, start)


@jax.jit
def _from_random(solver, lifting, targets, keys, max_steps, rtol) -> Solution:
    def attempt(key: Array) -> Solution:
        return _from_reweighted(solver, lifting, targets, key, max_steps, rtol, random=True)

    if jax.default_backend() == "cpu":
        return lax.map(attempt, keys)
    return jax.vmap(attempt)(keys)
