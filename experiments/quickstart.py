"""Quickstart: a planted network and the handwritten digits.

(a) A network of p inputs and r neurons of mixed signs, learned from its outputs by
all three algorithms.  (b) The digits that ship with scikit-learn: ten one-vs-rest
quadratic networks trained in one vmapped call, beside linear baselines.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxpoly as jp
from experiments.figures import save
from experiments.quickstart_figures import plot_convergence, plot_neurons
from experiments.session import Session


@dataclass(frozen=True)
class Config:
    """Sizes and seed of the quickstart."""

    dim: int = 100
    """Inputs p of the planted network."""
    rank: int = 5
    """Neurons r of the planted network."""
    samples_per_unknown: float = 6.0
    """Samples m over the number of unknowns p r - r (r - 1) / 2."""
    max_steps: int = 500
    """Steps at most."""
    digits_rank: int = 6
    """Neurons of each of the ten digit networks."""
    digits_components: int = 30
    """Principal components of the images that the networks see."""
    digits_steps: int = 200
    """Steps for the digit networks."""
    repeats: int = 5
    """Runs that a time is the median of."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def num_samples(self) -> int:
        """Samples m of the planted network."""
        unknowns = self.dim * self.rank - self.rank * (self.rank - 1) // 2
        return round(self.samples_per_unknown * unknowns)


PRESETS = {
    "smoke": Config(dim=12, rank=2, digits_rank=2, digits_components=8, digits_steps=20, repeats=1),
    "paper": Config(),
    "full": Config(
        dim=200, rank=10, digits_rank=12, digits_components=40, digits_steps=500, repeats=15
    ),
}


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return the results of both parts."""
    session = session or Session()
    methods = solvers(config.rank)
    rows = {}
    with session.progress("quickstart", len(methods) + 1, unit="part") as progress:
        for name, solver in methods.items():
            compute = partial(run_planted, config, solver)
            rows[name] = session.ledger.recall(f"planted/{name}", compute)
            progress.advance()
        digits = session.ledger.recall("digits", partial(run_digits, config))
        progress.advance()
    planted = {"num_samples": config.num_samples, "dim": config.dim, "rank": config.rank}
    return {"planted": planted | {"solvers": rows}, "digits": digits}


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw the convergence of the solvers, and the neurons of the digits."""
    save(plot_convergence(saved["planted"]), folder, "quickstart-convergence")
    save(plot_neurons(saved["digits"]), folder, "quickstart-neurons")


def solvers(rank: int) -> dict[str, jp.Solver]:
    """Return the three algorithms, none with an option set."""
    return {
        "EP-ROM": jp.ep_rom(rank),
        "AP-ROM": jp.ap_rom(rank),
        "factored descent": jp.factored_descent(rank),
    }


def run_planted(config: Config, solver: jp.Solver) -> dict[str, Any]:
    """Learn the planted network with one solver; record error, steps, seconds, status."""
    problem_key, solver_key = jax.random.split(jax.random.key(config.seed))
    problem = jp.sample_problem(
        problem_key, config.num_samples, config.dim, config.rank, signs="mixed"
    )
    data = problem.lifting, problem.targets, solver_key
    solution, seconds = timed(jp.solve, solver, *data, config.max_steps, repeats=config.repeats)
    _, record = jp.trajectory(solver, *data, num_steps=int(solution.num_steps))
    errors = jax.vmap(jp.relative_error, in_axes=(0, None))(record.estimate, problem.truth)
    return seconds | {
        "error": jp.relative_error(solution.value, problem.truth),
        "steps": solution.num_steps,
        "status": jp.Status(int(solution.status)).name,
        "errors": errors,
    }


def run_digits(config: Config) -> dict[str, Any]:
    """Train ten one-vs-rest networks in one vmapped call and score them on held-out images."""
    digits = load_digits()
    train, test, train_label, test_label = train_test_split(
        digits.data, digits.target, test_size=0.25, stratify=digits.target, random_state=config.seed
    )
    mean, whiten, unwhiten = principal_components(train, config.digits_components)
    inputs, held_out = (with_constant((part - mean) @ whiten) for part in (train, test))
    one_vs_rest = jnp.asarray(train_label == np.arange(10)[:, None], inputs.dtype)
    key = jax.random.key(config.seed)
    solver = jp.ap_rom(config.digits_rank)

    def fit(targets: Array) -> jp.Solution:
        return jp.solve(solver, jp.Lifting(inputs), targets, key, config.digits_steps)

    solution, seconds = timed(jax.vmap(fit), one_vs_rest, repeats=config.repeats)
    to_network = jp.QuadraticNetwork.from_low_rank
    networks = jax.vmap(lambda value, c: to_network(value, intercept=c))(
        solution.value, solution.intercept
    )

    def accuracy(inputs: Array, label: np.ndarray) -> float:
        outputs = jax.vmap(lambda network: network(inputs))(networks)
        return float(np.mean(np.argmax(outputs, axis=0) == label))

    linear = {
        "ridge classifier": RidgeClassifier(),
        "logistic regression": LogisticRegression(max_iter=5000),
    }
    scores = {
        name: make_pipeline(StandardScaler(), model).fit(train, train_label).score(test, test_label)
        for name, model in linear.items()
    }
    # The pattern that drives a neuron most: its filter times the covariance of the images.
    patterns = np.asarray(networks.neurons[:, :, :-1]) @ unwhiten
    return seconds | {
        "num_train": len(train),
        "num_test": len(test),
        "rank": config.digits_rank,
        "components": config.digits_components,
        "accuracy": {"quadratic networks": accuracy(held_out, test_label)} | scores,
        "train_accuracy": accuracy(inputs, train_label),
        "steps": solution.num_steps,
        "status": [jp.Status(int(status)).name for status in solution.status],
        "relative_residual": solution.relative_residual,
        "patterns": patterns.reshape(10, config.digits_rank, 8, 8),
        "output_weights": networks.output_weights,
    }


def principal_components(
    images: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean (n,), the whitening (n, count) and its inverse on the components (count, n).

    Components without variance are left out, so that fewer than `count` may come back.
    """
    mean = images.mean(axis=0)
    _, singular, directions = np.linalg.svd(images - mean, full_matrices=False)
    kept = singular[:count] > 1e-10 * singular[0]
    scale = singular[:count][kept] / np.sqrt(len(images))
    directions = directions[:count][kept]
    return mean, directions.T / scale, scale[:, None] * directions


def with_constant(features: np.ndarray) -> Array:
    """Append a constant feature: the quadratic form then holds linear terms too."""
    return jnp.asarray(np.column_stack([features, np.ones(len(features))]))


def timed(function: Callable, *args: Any, repeats: int) -> tuple[Any, dict[str, float]]:
    """Return the value of a jitted call, its seconds to compile, and the median to run."""
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    compile_seconds = time.perf_counter() - began
    value = jax.block_until_ready(compiled(*args))
    runs = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        runs.append(time.perf_counter() - began)
    return value, {"compile_seconds": compile_seconds, "run_seconds": float(np.median(runs))}


def table(saved: dict[str, Any]) -> str:
    """Return the numbers of both parts as text."""
    planted, digits = saved["planted"], saved["digits"]
    lines = [
        f"Planted network: p = {planted['dim']}, r = {planted['rank']}, mixed signs, "
        f"m = {planted['num_samples']} samples",
        f"{'algorithm':<18}{'error':>10}{'steps':>7}{'run s':>9}{'compile s':>11}  status",
    ]
    for name, row in planted["solvers"].items():
        lines.append(
            f"{name:<18}{np.float64(row['error']):>10.1e}{row['steps']:>7}{row['run_seconds']:>9.3f}"
            f"{row['compile_seconds']:>11.2f}  {row['status']}"
        )
    statuses = ", ".join(
        f"{digits['status'].count(name)} {name}" for name in sorted(set(digits["status"]))
    )
    lines += [
        "",
        f"Handwritten digits: {digits['num_train']} training and {digits['num_test']} held-out "
        f"images, {digits['components']} principal components",
        f"Ten quadratic networks of {digits['rank']} neurons in one vmapped call: "
        f"{digits['run_seconds']:.2f} s (compile {digits['compile_seconds']:.2f} s); {statuses}",
        f"{'classifier':<24}{'held-out accuracy':>18}",
    ]
    lines += [f"{name:<24}{score:>18.3f}" for name, score in digits["accuracy"].items()]
    return "\n".join(lines)
