"""From a table to networks: rank and ridge chosen, then the fit of all rows."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxpoly.estimator_path import (
    NUM_FOLDS,
    RankPath,
    cross_validate,
    rank_paths,
)
from jaxpoly.estimator_table import Table
from jaxpoly.lifting import Lifting
from jaxpoly.precision import default_rtol, stationarity_tolerance
from jaxpoly.recover import recover
from jaxpoly.state import Solution, Status

RIDGES = tuple(10.0**exponent for exponent in range(-6, 1))
FIRST_RIDGE = 0.1
# A few rough steps a rank: the next rank starts from there, and held-out errors
# are as good as after many.
STEPS_PER_RANK = 4
LARGEST_RANK = 8
# Held out, relative to the variance of the targets: less is no noise.
NOISELESS = 1e-6
# A cosine of residual and model above which a fit is visibly short of an optimum,
# and a relative residual that is none.
VISIBLE = 0.03
EXACT = 1e-6


@dataclass(frozen=True)
class Network:
    """`sum_j a_j (w_j . d)^2 + b . d + c` with `d = x - center`, and how its fit ended.

    `unfinished`: more steps would visibly change it.
    """

    neurons: np.ndarray
    output_weights: np.ndarray
    coef: np.ndarray
    intercept: float
    status: Status
    num_steps: int
    unfinished: bool


@dataclass(frozen=True)
class Choice:
    """A rank and a ridge, with the held-out errors they were chosen by.

    Attributes:
        rank: the chosen or given rank.
        ridge: the chosen or given ridge.
        ridges: the ridges tried, ascending, (k,).
        error: mean squared error on held-out rows over the variance of the targets,
            mean over folds and targets, (k, R + 1); None where nothing was chosen.
        standard_error: of the error, over the folds, (k, R + 1).
    """

    rank: int
    ridge: float
    ridges: np.ndarray | None = None
    error: np.ndarray | None = None
    standard_error: np.ndarray | None = None


def fit_networks(
    table: Table,
    rank: int | None,
    ridge: float | None,
    *,
    affine: bool,
    positive: bool,
    exact: bool,
    max_steps: int,
    seed: int,
) -> tuple[list[Network], Choice]:
    """Fit one network a target, all of one rank and ridge; None has these chosen.

    Args:
        table: from `prepare`.
        rank: given rank, or None.
        ridge: given ridge, or None.
        affine: fit linear terms.
        positive: keep L positive semidefinite.
        exact: fit by `recover` where the ridge is zero, and set a ridge to be chosen to
            zero where the held-out error is.
        max_steps: Gauss-Newton steps at most.
        seed: of folds and starts.
    """
    dim, dtype = len(table.scale), table.inputs.dtype
    # The same for many ranks, to compile once.
    largest = max(rank or 0, min(LARGEST_RANK, table.inputs.shape[1]))
    with jax.enable_x64(dtype == np.float64):
        key = jax.random.key(seed)
        lifting = Lifting(jnp.asarray(table.inputs), jnp.asarray(table.weight))
        targets = jnp.asarray(table.targets)
        if table.num_rows == 1 or not table.spread.any():
            rank, ridge = 0, ridge or 0.0
        if rank is None or ridge is None:
            fold = jnp.asarray(_folds(table, np.random.default_rng(seed)))
            tried = min(dim, LARGEST_RANK) if rank is None else rank
            limits = STEPS_PER_RANK * (np.arange(1, largest + 1) <= tried)
            steps = jnp.asarray(limits, jnp.int32)

            def errors_of(penalty: float) -> np.ndarray:
                ridge_now = jnp.asarray(penalty, dtype)
                errors = cross_validate(
                    lifting, fold, targets, ridge_now, steps, key, affine, positive
                )
                return errors.mean(axis=0)[:, : tried + 1]

            choice = choose(errors_of, rank, ridge, exact)
        else:
            choice = Choice(rank, ridge)
        if exact and choice.rank > 0 and choice.ridge == 0:
            solution = recover(
                lifting.inputs[:, :dim],
                targets[0],
                choice.rank,
                key=key,
                positive=positive,
                sample_weight=lifting.sample_weight,
                affine=affine,
                max_steps=max_steps,
                # Standardising has rounded the inputs.
                rtol=10 * default_rtol(dtype, dim),
            )
            end = Status(int(solution.status))
            return [_network(table, 0, choice.rank, solution, end)], choice
        limits = np.arange(1, largest + 1)
        limits = np.where(limits < choice.rank, STEPS_PER_RANK, max_steps * (limits == choice.rank))
        steps = jnp.asarray(limits, jnp.int32)
        penalty = jnp.asarray(choice.ridge, dtype)
        paths = rank_paths(
            lifting, lifting.sample_weight, targets, penalty, steps, key, affine, positive
        )
        networks = []
        for index in range(len(targets)):
            fit = jax.tree.map(lambda leaf, index=index: leaf[index, choice.rank], paths)
            networks.append(_network(table, index, choice.rank, fit, _status(fit, dim, dtype)))
        return networks, choice


def _folds(table: Table, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of every row; all folds are alike in their targets."""
    shuffled = rng.permutation(table.num_rows)
    order = shuffled[np.lexsort(table.targets[:, shuffled])]
    num_blocks = -(-len(order) // NUM_FOLDS)
    blocks = rng.permuted(np.tile(np.arange(NUM_FOLDS), (num_blocks, 1)), axis=1)
    fold = np.zeros(len(table.weight), int)
    fold[order] = blocks.ravel()[: len(order)]
    return fold


def choose(
    errors_of: Callable[[float], np.ndarray], rank: int | None, ridge: float | None, exact: bool
) -> Choice:
    """Return the `Choice` of least held-out error; None is chosen, the other is given.

    Ridges are tried downhill from 0.1, a decade at a time.  Errors that are no noise
    are equal, and the smallest rank is taken.

    Args:
        errors_of: a ridge to errors, (folds, R + 1).
        rank: a given rank, or None.
        ridge: a given ridge, or None.
        exact: choose a ridge of zero for data without noise.
    """
    tried: dict[float, np.ndarray] = {}

    def least(penalty: float) -> float:
        if penalty not in tried:
            tried[penalty] = errors_of(penalty)
        mean = tried[penalty].mean(axis=0)
        return float(mean.min() if rank is None else mean[rank])

    chosen = ridge
    if chosen is None:
        first = RIDGES.index(FIRST_RIDGE)
        upwards, downwards = RIDGES[first + 1 :], RIDGES[first - 1 :: -1]
        chosen = FIRST_RIDGE
        for direction in (upwards, downwards):
            if chosen != FIRST_RIDGE:
                break
            for penalty in direction:
                if least(penalty) > least(chosen):
                    break
                chosen = penalty
    noiseless = least(chosen) <= NOISELESS
    if rank is None:
        error = np.maximum(tried[chosen].mean(axis=0), NOISELESS)
        rank = int(error.argmin())
    ridges = np.array(sorted(tried))
    table = np.stack([tried[penalty] for penalty in ridges])
    return Choice(
        rank=rank,
        ridge=0.0 if exact and ridge is None and noiseless else chosen,
        ridges=ridges,
        error=table.mean(axis=1),
        standard_error=table.std(axis=1, ddof=1) / table.shape[1] ** 0.5,
    )


def _status(fit: RankPath, dim: int, dtype: np.dtype) -> Status:
    if not np.isfinite(fit.residual):
        return Status.DIVERGED
    if fit.residual <= default_rtol(dtype, dim):
        return Status.CONVERGED
    stationary = fit.stationarity <= stationarity_tolerance(dtype)
    return Status.STATIONARY if stationary else Status.MAX_STEPS


def _unfinished(fit: RankPath | Solution, status: Status) -> bool:
    """Say whether more steps would visibly change the fit."""
    residual = fit.residual if isinstance(fit, RankPath) else fit.relative_residual
    optimal = status <= Status.STATIONARY or float(fit.stationarity) <= VISIBLE
    return not (optimal or float(residual) <= EXACT)


def _network(
    table: Table, index: int, rank: int, fit: RankPath | Solution, status: Status
) -> Network:
    """Return the network of the fit of target `index`, in the coordinates of the table."""
    spread, dim = table.spread[index], len(table.scale)
    factor = np.asarray(fit.value.factor, np.float64)[:dim, :rank] / table.scale[:, None]
    diagonal = np.asarray(fit.value.diagonal, np.float64)[:rank] * spread
    basis, triangle = np.linalg.qr(factor)
    eigenvalues, vectors = np.linalg.eigh((triangle * diagonal) @ triangle.T)
    order = np.argsort(-np.abs(eigenvalues), kind="stable")
    neurons = (basis @ vectors[:, order]).T
    peak = np.take_along_axis(neurons, np.abs(neurons).argmax(axis=1)[:, None], axis=1)
    dtype = table.inputs.dtype
    return Network(
        neurons=(neurons * np.where(peak < 0, -1, 1)).astype(dtype),
        output_weights=eigenvalues[order].astype(dtype),
        coef=(np.asarray(fit.linear, np.float64)[:dim] / table.scale * spread).astype(dtype),
        intercept=dtype.type(float(fit.intercept) * spread + table.mean[index]),
        status=status,
        num_steps=int(fit.num_steps),
        unfinished=_unfinished(fit, status),
    )


def without_outliers(
    inputs: np.ndarray,
    targets: np.ndarray,
    weight: np.ndarray,
    rank: int | None,
    ridge: float | None,
    *,
    affine: bool,
    positive: bool,
    seed: int,
) -> np.ndarray:
    """Return the weights of a robust fit by `recover`, zero for gross errors in y, (m,)."""
    kept = weight > 0
    with jax.enable_x64(inputs.dtype == np.float64):
        recovery = recover(
            inputs[kept],
            targets[kept],
            "auto" if rank is None else max(rank, 1),
            key=jax.random.key(seed),
            positive=positive,
            sample_weight=weight[kept].astype(inputs.dtype),
            affine=affine,
            ridge=ridge or 0.0,
            robust=True,
        )
    robust = np.zeros_like(weight)
    robust[kept] = recovery.sample_weight
    return robust
