"""The rows of the limits table: planted problems that `recover` meets unprepared."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxpoly as jp
from jaxpoly.metrics import relative_error

SUCCESS = 1e-4


class Outcome(NamedTuple):
    """One trial: whether it succeeded, at what cost, and its error over the oracle's."""

    success: bool
    num_starts: int
    num_steps: int
    seconds: float
    ratio: float = np.nan


class Case(NamedTuple):
    """A row: its name, the success rate aimed at, and the function that runs a trial."""

    name: str
    target: str
    trial: Callable[[Array], Outcome]


def cases() -> list[Case]:
    """Return all rows."""
    rows = []
    for ratio, target in ((1.5, ">= 0.99"), (1.2, ">= 0.85")):
        name = f"p=40 r=3, orthonormal factor, mixed, {ratio} dof"
        rows.append(Case(name, target, planted(40, 3, ratio, condition=1.0)))
    for signs, goal in (("positive", 1.10), ("mixed", 1.07)):
        for ratio in (1.03, 1.05, 1.07, 1.10):
            target = f">= 0.50 at {goal}"
            name = f"p=40 r=5, Gaussian factor, {signs}, {ratio} dof"
            rows.append(Case(name, target, planted(40, 5, ratio, signs=signs)))
    for signs, target in (("mixed", ">= 0.95"), ("positive", ">= 0.90")):
        name = f"p=100 r=5, Gaussian factor, {signs}, 1.2 dof"
        rows.append(Case(name, target, planted(100, 5, 1.2, signs=signs)))
    for condition in (1.0, 20.0):
        name = f"p=100 r=5, condition {condition:.0f}, mixed, 2 dof"
        rows.append(Case(name, ">= 0.95", planted(100, 5, 2, condition=condition)))
    rows.append(Case("p=100 r=5, noise 0.1 sd(y), 4 dof, error <= 1.03 oracle", "1.03", noisy))
    laws: dict[str, Any] = {name: name for name in ("uniform", "laplace", "student")}
    laws |= {
        "correlated (condition 100)": correlated,
        "shifted by 1": partial(shifted, 1.0),
        "shifted by 100": partial(shifted, 100.0),
    }
    for name, law in laws.items():
        trial = planted(40, 3, 2, inputs=law)
        rows.append(Case(f"p=40 r=3, inputs {name}, mixed, 2 dof", ">= 0.95", trial))
    for share, size in ((0.1, 10.0), (0.1, 1e4), (0.2, 10.0)):
        name = f"p=40 r=3, {share:.0%} outliers of {size:g} sd(y), robust, 4 dof"
        rows.append(Case(name, ">= 0.95", partial(spoilt, share, size)))
    rows.extend(
        Case(f"p=40 r={rank}, rank unknown, noise 20 dB, 4 dof", ">= 0.95", partial(unknown, rank))
        for rank in range(1, 7)
    )
    return rows


def unknowns(dim: int, rank: int) -> int:
    """Return the number of unknowns of a symmetric matrix of rank r."""
    return dim * rank - rank * (rank - 1) // 2


def planted(dim: int, rank: int, ratio: float, **options: Any) -> Callable[[Array], Outcome]:
    """Return a trial on a noiseless problem of `ratio` samples for each unknown."""
    num_samples = round(ratio * unknowns(dim, rank))

    def trial(key: Array) -> Outcome:
        problem_key, solver_key = jax.random.split(key)
        problem = jp.sample_problem(problem_key, num_samples, dim, rank, **options)
        return timed(problem, problem.targets, rank, solver_key)

    return trial


def timed(problem: jp.Problem, targets: Array, rank: Any, key: Array, **options: Any) -> Outcome:
    """Run `recover` and compare with the truth."""
    began = time.perf_counter()
    solution = jp.recover(problem.lifting.inputs, targets, rank, key=key, **options)
    error = float(relative_error(solution.value, problem.truth))
    seconds = time.perf_counter() - began
    return Outcome(
        error <= SUCCESS, int(solution.num_starts), int(solution.num_steps), seconds, np.nan
    )


def correlated(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """Draw inputs whose covariance has condition 100, in random directions."""
    rotation_key, normal_key = jax.random.split(key)
    dim = shape[1]
    rotation = jnp.linalg.qr(jax.random.normal(rotation_key, (dim, dim), dtype))[0]
    deviations = 10.0 ** -jnp.linspace(0, 1, dim, dtype=dtype)
    return jax.random.normal(normal_key, shape, dtype) @ (rotation * deviations[None, :]).T


def shifted(shift: float, key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """Draw Gaussian inputs of mean `shift` and variance 1."""
    return shift + jax.random.normal(key, shape, dtype)


def noisy(key: Array) -> Outcome:
    """Run with noise; success is an error of at most 1.03 times that of the oracle."""
    problem_key, solver_key, noise_key = jax.random.split(key, 3)
    problem = jp.sample_problem(problem_key, 4 * unknowns(100, 5), 100, 5)
    deviation = 0.1 * jnp.std(problem.targets)
    targets = problem.targets + deviation * jax.random.normal(noise_key, problem.targets.shape)
    began = time.perf_counter()
    solution = jp.recover(problem.lifting.inputs, targets, 5, key=solver_key)
    seconds = time.perf_counter() - began
    error = float(relative_error(solution.value, problem.truth))
    ratio = error / float(oracle_error(problem, targets))
    return Outcome(ratio <= 1.03, int(solution.num_starts), int(solution.num_steps), seconds, ratio)


@jax.jit
def oracle_error(problem: jp.Problem, targets: Array) -> Array:
    """Return the relative error of least squares on the true tangent space, intercept free."""
    inputs, truth = problem.lifting.inputs, jp.to_dense(problem.truth)
    dim = inputs.shape[1]
    basis = jnp.linalg.qr(problem.truth.factor)[0]
    rank = basis.shape[1]
    features = 2 * (inputs[:, :, None] * (inputs @ basis)[:, None, :]).reshape(-1, dim * rank)
    features = features - jnp.mean(features, axis=0)[None, :]
    # The directions V A, A antisymmetric, are not seen: least norm leaves them at zero.
    gram = features.T @ features
    eigenvalues, vectors = jnp.linalg.eigh(gram)
    kept = eigenvalues > 1e-10 * eigenvalues[-1]
    inverse = jnp.where(kept, 1 / jnp.where(kept, eigenvalues, 1), 0)
    product = vectors.T @ (features.T @ (targets - jnp.mean(targets)))
    direction = (vectors @ (inverse * product)).reshape(dim, rank)
    fitted = basis @ direction.T + direction @ basis.T
    return jnp.linalg.norm(fitted - truth) / jnp.linalg.norm(truth)


def spoilt(share: float, size: float, key: Array) -> Outcome:
    """Run the robust option on targets of which a share is off by `size` deviations."""
    problem_key, solver_key, place_key, error_key = jax.random.split(key, 4)
    problem = jp.sample_problem(problem_key, 4 * unknowns(40, 3), 40, 3)
    shape, deviation = problem.targets.shape, jnp.std(problem.targets)
    hit = jax.random.permutation(place_key, shape[0]) < share * shape[0]
    errors = size * deviation * jax.random.normal(error_key, shape)
    targets = problem.targets + jnp.where(hit, errors, 0)
    return timed(problem, targets, 3, solver_key, robust=True)


def unknown(rank: int, key: Array) -> Outcome:
    """Run with rank "auto" and noise of 20 dB; success is the right rank."""
    problem_key, solver_key, noise_key = jax.random.split(key, 3)
    problem = jp.sample_problem(problem_key, 4 * unknowns(40, rank), 40, rank)
    deviation = 0.1 * jnp.std(problem.targets)
    targets = problem.targets + deviation * jax.random.normal(noise_key, problem.targets.shape)
    began = time.perf_counter()
    solution = jp.recover(problem.lifting.inputs, targets, "auto", key=solver_key)
    found = solution.value.diagonal.shape[0]
    seconds = time.perf_counter() - began
    return Outcome(found == rank, int(solution.num_starts), int(solution.num_steps), seconds)
