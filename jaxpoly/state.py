"""The state of a solver, the status of a run and its solution."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxpoly.lowrank import LowRank


class Status(IntEnum):
    """How a run ended; 0 is success.  `describe` says what to try.

    For an example see `solve`.
    """

    CONVERGED = 0
    """The relative residual, fitted intercept included, is at most rtol."""
    STATIONARY = 1
    """The residual is orthogonal to the tangent space, that is, first-order stationary."""
    MAX_STEPS = 2
    """The steps ran out while the loss was still falling."""
    STALLED = 3
    """The loss stopped falling although the gradient is not small."""
    DIVERGED = 4
    """The iterates grew without bound, stopped being finite or left the range of the dtype."""
    NONFINITE_INPUT = 5
    """NaN or infinity in the inputs, targets, weights or start, or a negative weight."""
    DEGENERATE = 6
    """Nothing to fit, with all-zero inputs or weights, or targets without variation."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What a solver carries from step to step; arrays only.

    For an example see `trajectory`.

    Attributes:
        estimate: the current L, factor (p, r) and diagonal (r,).
        residual: `A(L) - y` of that estimate, (m,), before any intercept.
        step_size: the step that led here, a scalar.
        stationarity: cosine of the angle between the residual and its image on
            the tangent space, at the estimate the last step started from; 0 is
            first-order stationary (an optimum or a saddle), infinity is not known.
        key: a random key for the next step.
        memory: the solver's own arrays.
    """

    estimate: LowRank
    residual: Array
    step_size: Array
    stationarity: Array
    key: Array
    memory: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solution:
    """The best finite iterate of a run, and what is known of it.

    For an example see `solve`.

    Attributes:
        value: L as a LowRank, factor (p, r) and diagonal (r,).
        intercept: the fitted constant; predictions are `x^T L x + linear . x + intercept`.
            Zero for `debias="trace"` and `"none"`.
        linear: the fitted linear coefficients, (p,); zero unless the lifting has
            linear terms, see `with_linear_terms`.
        status: a `Status` as an int32 scalar.
        num_steps: steps taken, int32.
        relative_residual: weighted norm of `A(L) + X linear + intercept - y` over that
            of y (of what the affine terms leave of y where such are fitted, plus a
            bound on what rounding them to the dtype adds).
        stationarity: see `State`; where the status is STATIONARY, that of `value` itself.
        underdetermined: whether fewer samples carry weight than there are
            unknowns, `p r - r (r - 1) / 2` plus the affine ones; a perfect
            fit is then no evidence of recovery.
    """

    value: LowRank
    intercept: Array
    linear: Array
    status: Array
    num_steps: Array
    relative_residual: Array
    stationarity: Array
    underdetermined: Array


_ADVICE = {
    Status.CONVERGED: "Converged: the relative residual is at most rtol.",
    Status.STATIONARY: (
        "Stationary: the residual is orthogonal to the tangent space, as expected at the "
        "least-squares optimum of noisy data. If the data are noiseless this is a local optimum "
        "or a saddle: try a higher rank, another start or more samples."
    ),
    Status.MAX_STEPS: (
        "Ran out of steps while the loss was still falling: raise max_steps, or continue from "
        "start=solution.value."
    ),
    Status.STALLED: (
        "Stalled: the loss stopped falling although its gradient is not small. Try "
        "step_size=None, debias='centre', another start, a looser rtol or float64."
    ),
    Status.DIVERGED: (
        "Diverged: the iterates grew without bound, or L is too large or too small for the dtype. "
        "Use step_size=None or a smaller step, debias='centre', more samples, or inputs and "
        "targets scaled to unit variance."
    ),
    Status.NONFINITE_INPUT: (
        "Unusable input: NaN or infinity in inputs, targets, weights or start, or a negative "
        "weight. Remove such rows, or fill them and give them zero sample_weight."
    ),
    Status.DEGENERATE: (
        "Nothing to fit: inputs or weights are all zero, or the targets do not vary "
        "beyond the linear terms. The zero matrix with the affine fit is returned."
    ),
}


def describe(status: ArrayLike) -> str:
    """Return a sentence on how a run ended and what to try.

    Args:
        status: a `Status`, an int or a scalar array of one.

    Raises:
        ValueError: a number that is no `Status`; TypeError: a batch of them, or no integer.

    >>> describe(Status.CONVERGED)
    'Converged: the relative residual is at most rtol.'
    """
    given = np.asarray(status)
    if given.ndim or not np.issubdtype(given.dtype, np.integer):
        raise TypeError(f"status is {status!r}; expected one jaxpoly.Status or integer")
    return _ADVICE[Status(int(given))]


def check_solution(solution: Any) -> None:
    """Refuse what is no `Solution`, nor anything like one."""
    if not (hasattr(solution, "status") and hasattr(solution, "value")):
        raise TypeError(f"solution is a {type(solution).__name__}; expected what solve returns")


class SolveError(RuntimeError):
    """A solve, or some of a batch of them, did not succeed; see `raise_if_failed`."""


def raise_if_failed(solution: Solution) -> None:
    """Raise `SolveError` unless every status is CONVERGED or STATIONARY.

    Args:
        solution: one solution or a batch of any shape; called outside `jax.jit`.

    Raises:
        SolveError: with the counts, the first failing index and the advice of `describe`.
        TypeError: what is no solution.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> data = problem.lifting, problem.targets
    >>> jp.raise_if_failed(jp.solve(jp.ap_rom(rank=2), *data, jax.random.key(1)))
    """
    check_solution(solution)
    status = np.asarray(solution.status)
    failed = np.argwhere(status > Status.STATIONARY)
    if len(failed) == 0:
        return
    first = tuple(int(i) for i in failed[0])
    residual = float(np.asarray(solution.relative_residual)[first])
    steps = int(np.asarray(solution.num_steps)[first])
    where = f"{len(failed)} of {status.size} solves failed, first at index {first}: "
    raise SolveError(
        f"{where if status.ndim else ''}{Status(int(status[first])).name} after {steps} steps "
        f"with relative residual {residual:.2e}. {describe(status[first])}"
    )
