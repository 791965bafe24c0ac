"""What else one would fit a quadratic network with, each through its package's own interface.

All return L after an effort that is an integer: a limit of steps, or the exponent of a
tolerance.  Losses have a free intercept, as those of the kit, which helps the peers; the
gradient methods begin at the kit's spectral estimate, computed anew in every run.
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array

import jaxpoly as jp
from experiments.limits_peers import spectral_factor, unexplained

Estimate = jp.LowRank | np.ndarray
MOST_STEPS = 1000
MOST_MEMORY = 2e9


class Task(NamedTuple):
    """A problem as a method is given it; numpy methods read the same memory."""

    problem: jp.Problem
    rank: int
    positive: bool
    key: Array

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """X and y as numpy arrays."""
        return np.asarray(self.problem.lifting.inputs), np.asarray(self.problem.targets)


Run = Callable[[int], Estimate]


def tolerance(effort: int) -> float:
    """Return the tolerance of an effort, four to a decade.

    >>> [tolerance(effort) for effort in (4, 8)]
    [0.1, 0.01]
    """
    return 10.0 ** (-effort / 4)


Parameters = tuple[Array, Array]
Loss = Callable[[Parameters], Array]


def optimistix_lbfgs(free: bool, task: Task) -> Run:
    """Prepare optimistix's L-BFGS on the factor, with signs fixed or output weights free."""
    return lambda effort: _from_spectral(_optimistix, free, task, tolerance(effort))


def optax_lbfgs(free: bool, task: Task) -> Run:
    """Prepare optax's L-BFGS on the factor, with signs fixed or output weights free."""
    return lambda effort: _from_spectral(_optax, free, task, effort)


def _from_spectral(
    minimise: Callable[..., Parameters], free: bool, task: Task, effort: float
) -> jp.LowRank:
    data = task.problem.lifting, task.problem.targets, task.key
    return _minimised(minimise, task.rank, task.positive, free, data, effort)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _minimised(
    minimise: Callable[..., Parameters],
    rank: int,
    positive: bool,
    free: bool,
    data: tuple[jp.Lifting, Array, Array],
    effort: Array,
) -> jp.LowRank:
    """Return L after `minimise(loss, start, effort)` from the spectral estimate."""
    lifting, targets, key = data
    factor, signs = spectral_factor(rank, lifting, targets, key, positive)

    def loss(parameters: Parameters) -> Array:
        return unexplained(_low_rank(parameters, signs, free), lifting, targets)

    return _low_rank(minimise(loss, (factor, signs), effort), signs, free)


def _optimistix(loss: Loss, start: Parameters, tolerance: Any) -> Parameters:
    import optimistix  # of the extra bench, which the other experiments do without

    # Its annotations say float; a traced tolerance saves the compilation of every other.
    solver: Any = optimistix.LBFGS(rtol=tolerance, atol=tolerance)
    found: Any = optimistix.minimise(
        lambda parameters, _: loss(parameters), solver, start, max_steps=MOST_STEPS, throw=False
    )
    return found.value


def _optax(loss: Loss, start: Parameters, num_steps: Array) -> Parameters:
    optimizer = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(loss)

    def body(_: int, carry: tuple) -> tuple:
        parameters, state = carry
        value, gradient = value_and_gradient(parameters, state=state)
        updates, state = optimizer.update(
            gradient, state, parameters, value=value, grad=gradient, value_fn=loss
        )
        return optax.apply_updates(parameters, updates), state

    return jax.lax.fori_loop(0, num_steps, body, (start, optimizer.init(start)))[0]


def _low_rank(parameters: tuple[Array, Array], signs: Array, free: bool) -> jp.LowRank:
    # Weights that are not free have no gradient, and stay what they were.
    return jp.LowRank(parameters[0], parameters[1] if free else signs)


def pymanopt_descent(beta_rule: str, task: Task) -> Run:
    """Prepare pymanopt's conjugate gradients on the matrices of rank r, or the positive ones."""
    import pymanopt
    from pymanopt.manifolds import FixedRankEmbedded, PSDFixedRank
    from pymanopt.optimizers import ConjugateGradient

    inputs, targets = task.arrays
    lifting, rank, dim = task.problem.lifting, task.rank, inputs.shape[1]
    scale = 2 / (len(targets) * np.var(targets))
    manifold = PSDFixedRank(dim, rank) if task.positive else FixedRankEmbedded(dim, dim, rank)

    # A point is Y with L = Y Y^T on the one manifold, and u, s, v^T on the other.
    def products_of(*point: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        left = inputs @ point[0]
        if task.positive:
            return left, left, np.ones(rank)
        return left, inputs @ point[2].T, point[1]

    def pull_back(
        row_weight: np.ndarray, left: np.ndarray, right: np.ndarray, s: np.ndarray
    ) -> Any:
        weighted = row_weight[:, None] * left
        outer = inputs.T @ weighted * s
        if task.positive:
            return 2 * outer
        inner = inputs.T @ (row_weight[:, None] * right) * s
        return inner, np.sum(weighted * right, axis=0), outer.T

    def centred(left: np.ndarray, right: np.ndarray, s: np.ndarray) -> np.ndarray:
        residual = np.sum(left * right * s, axis=1) - targets
        return residual - residual.mean()

    @pymanopt.function.numpy(manifold)
    def cost(*point: np.ndarray) -> float:
        return scale / 2 * np.sum(centred(*products_of(*point)) ** 2)

    @pymanopt.function.numpy(manifold)
    def gradient(*point: np.ndarray) -> Any:
        products = products_of(*point)
        return pull_back(scale * centred(*products), *products)

    problem = pymanopt.Problem(manifold, cost, euclidean_gradient=gradient)

    def run(effort: int) -> np.ndarray:
        data = lifting, task.problem.targets, task.key, task.positive
        factor, signs = map(np.asarray, _spectral_factor(rank, *data))
        size = np.linalg.norm(factor, axis=0)
        start = factor if task.positive else (factor / size, size**2, (factor / size * signs).T)
        optimizer = ConjugateGradient(
            beta_rule,
            max_iterations=effort + 1,  # It counts the start.
            min_gradient_norm=0,
            min_step_size=0,
            verbosity=0,
        )
        point = optimizer.run(problem, initial_point=start).point
        if task.positive:
            return point @ point.T
        dense = (point[0] * point[1]) @ point[2]
        return (dense + dense.T) / 2

    return run


_spectral_factor = jax.jit(spectral_factor, static_argnums=(0, 4))


def numpy_ep_rom(step_size: float, task: Task) -> Run:
    """Prepare EP-ROM as one writes it from the formula: centred gradient, `eigh`, fixed step."""
    inputs, targets = task.arrays
    num_samples, dim = inputs.shape

    def run(effort: int) -> np.ndarray:
        estimate, residual = np.zeros((dim, dim)), -targets
        for _ in range(effort):
            centred = residual - residual.mean()
            gradient = inputs.T @ (centred[:, None] * inputs) / (2 * num_samples)
            values, vectors = np.linalg.eigh(estimate - step_size * gradient)
            kept = np.argsort(-values if task.positive else -np.abs(values))[: task.rank]
            values, vectors = values[kept], vectors[:, kept]
            if task.positive:
                values = np.maximum(values, 0)
            estimate = (vectors * values) @ vectors.T
            residual = (inputs @ vectors) ** 2 @ values - targets
            if np.linalg.norm(residual) > 1e3 * np.linalg.norm(targets):
                break  # It diverges, and would overflow.
        return estimate

    return run


def degree_two(model: str, task: Task) -> Run:
    """Prepare scikit-learn's least squares on all products of two inputs."""
    from sklearn.linear_model import LinearRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures

    inputs, targets = task.arrays
    dim = inputs.shape[1]
    rows, columns = np.array(list(combinations_with_replacement(range(dim), 2))).T

    def run(effort: int) -> np.ndarray:
        features = PolynomialFeatures((2, 2), include_bias=False)
        last = LinearRegression() if model == "least squares" else Ridge(1e-6, solver="cholesky")
        fitted = make_pipeline(features, last).fit(inputs, targets)
        upper = np.zeros((dim, dim))
        upper[rows, columns] = fitted[-1].coef_
        return (upper + upper.T) / 2

    return run


def degree_two_refusal(num_samples: int, dim: int) -> str | None:
    """Return why least squares on all products of two inputs cannot be run, if so."""
    num_bytes = 8.0 * num_samples * dim * (dim + 1) / 2
    return f"would take {num_bytes / 1e9:.0f} GB" if num_bytes > MOST_MEMORY else None
