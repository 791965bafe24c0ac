"""Convergence: how fast loss and error fall, by steps and by seconds, to which floor.

Two planted problems.  With noise, panel (b) of the paper's figure (AISTATS 2018): the
loss of a positive semidefinite L* falls to the noise.  The paper's setting of EP-ROM and
AP-ROM (unit step, trace correction, Krylov head) is beside the solvers as they are, whose
loss has a freely fitted intercept.
Without noise, mixed signs, fewer samples: the error falls on a straight line to rounding,
with Gauss-Newton quadratically; the paper's unit step diverges there.
"""

import math
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

import jaxpoly as jp
from experiments import convergence_figures
from experiments.problems import SOLVERS, unknowns
from experiments.session import Session

# A fit of the rate takes the errors between these two: after the first steps, before rounding.
FIT_RANGE = (1e-1, 1e-12)
# The floor is reached where the loss is within so much of its last value.
NEAR_FLOOR = 1.05


@dataclass(frozen=True)
class Config:
    """Sizes and seed of both problems."""

    dim: int = 100
    """Inputs p."""
    rank: int = 5
    """Neurons r."""
    num_samples: int = 8500
    """Samples m of the noisy problem."""
    noise: float = 0.1
    """Standard deviation of its noise, in units of y."""
    num_steps: int = 60
    """Steps on the noisy problem."""
    samples_per_unknown: float = 6.0
    """Samples of a noiseless problem over its unknowns p r - r (r - 1) / 2."""
    exact_steps: int = 200
    """Steps on a noiseless problem."""
    solvers: tuple[str, ...] = (
        "EP-ROM, paper",
        "AP-ROM, paper, Krylov head",
        "EP-ROM",
        "AP-ROM",
        "factored descent",
        "Gauss-Newton",
    )
    """Names of solvers, see experiments/problems.py; without noise those of plain name."""
    newton_steps: int = 6
    """Steps of Gauss-Newton on both; its last ones, at rounding, take longest."""
    problems: int = 5
    """Noiseless problems; the first is timed."""
    repeats: int = 5
    """Runs that a time is the median of."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def exact_samples(self) -> int:
        """Samples m of a noiseless problem."""
        return round(self.samples_per_unknown * unknowns(self.dim, self.rank))


PRESETS = {
    "smoke": Config(
        dim=20,
        rank=2,
        num_samples=1200,
        num_steps=40,
        exact_steps=250,
        solvers=("EP-ROM, paper", "EP-ROM", "Gauss-Newton"),
        problems=2,
        repeats=1,
    ),
    "paper": Config(),
    "full": Config(dim=200, num_samples=17000, exact_steps=300, problems=50, repeats=15),
}

draw_loss = convergence_figures.draw_loss
draw_error = convergence_figures.draw_error


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return losses, errors and seconds of every solver on both kinds of problems."""
    session = session or Session()
    noisy, exact = {}, {}
    plain = [name for name in config.solvers if "," not in name]
    total = len(config.solvers) + len(plain)
    with session.progress("convergence", total, unit="curve") as progress:
        for name in config.solvers:
            compute = partial(run_noisy, config, name)
            noisy[name] = session.ledger.recall(f"convergence/noisy/{name}", compute)
            progress.advance()
        for name in plain:
            compute = partial(run_exact, config, name)
            exact[name] = session.ledger.recall(f"convergence/exact/{name}", compute)
            progress.advance()
    dof, variance = unknowns(config.dim, config.rank), config.noise**2
    return {
        "dim": config.dim,
        "rank": config.rank,
        "noisy": {
            "num_samples": config.num_samples,
            "noise": config.noise,
            "noise_loss": variance / 2,
            "expected_loss": variance / 2 * (1 - dof / config.num_samples),
            "expected_error": config.noise * (dof / (2 * (config.num_samples - dof))) ** 0.5,
            "solvers": noisy,
        },
        "exact": {"num_samples": config.exact_samples, "solvers": exact},
    }


def run_noisy(config: Config, name: str) -> dict[str, Any]:
    """Return the loss and the absolute error by step, from the start on, with their floors."""
    sizes = config.num_samples, config.dim, config.rank
    problem_key, key = keys(config, 0)
    problem = jp.sample_problem(problem_key, *sizes, signs="positive", noise=config.noise)
    number = config.newton_steps if name == "Gauss-Newton" else config.num_steps
    tracker = compile_tracker(SOLVERS[name](config.rank), number, problem, key)
    losses, errors = tracker.follow(problem, key)
    errors = errors * float(jp.lowrank.norm(problem.truth))
    return tracker.seconds(problem, key, config.repeats) | {
        "losses": losses,
        "errors": errors,
        "floor": losses[-1],
        "floor_step": int(np.argmax(losses <= NEAR_FLOOR * losses[-1])),
        "error_floor": errors[-1],
    }


def run_exact(config: Config, name: str) -> dict[str, Any]:
    """Return the relative error by step on every noiseless problem, with the fitted rates."""
    quadratic = name == "Gauss-Newton"
    sizes = config.exact_samples, config.dim, config.rank
    draws = [keys(config, number) for number in range(config.problems)]
    first, key = jp.sample_problem(draws[0][0], *sizes), draws[0][1]
    number = config.newton_steps if quadratic else config.exact_steps
    tracker = compile_tracker(SOLVERS[name](config.rank), number, first, key)
    curves = [
        tracker.follow(jp.sample_problem(problem_key, *sizes), solver_key)[1]
        for problem_key, solver_key in draws
    ]
    return tracker.seconds(first, key, config.repeats) | {
        "errors": curves,
        "order": "quadratic" if quadratic else "linear",
        "fits": [] if quadratic else [linear_fit(errors) for errors in curves],
    }


def keys(config: Config, number: int) -> tuple[Array, Array]:
    """Return the keys of a problem and of the solver on it."""
    problem_key, solver_key = jax.random.split(jax.random.key(config.seed + number))
    return problem_key, solver_key


@dataclass(frozen=True)
class Tracker:
    """A solver compiled for problems of one shape: its start, and the start and all steps.

    The start is more work for some solvers than for others; it is timed apart.
    """

    solver: jp.Solver
    start: Any
    steps: Any
    num_steps: int
    compile_seconds: float

    def follow(self, problem: jp.Problem, key: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return loss and relative error by step, from the start on."""
        arguments = self.solver, problem.lifting, problem.targets, key
        (first, _), (_, record) = self.start(*arguments), self.steps(*arguments)
        residual = first.residual
        if self.solver.debias == "centre":
            residual = residual - jnp.mean(residual)
        errors = jax.vmap(jp.relative_error, in_axes=(0, None))(record.estimate, problem.truth)
        return (
            np.append(jnp.mean(residual**2) / 2, record.loss),
            np.append(jp.relative_error(first.estimate, problem.truth), errors),
        )

    def seconds(self, problem: jp.Problem, key: Array, repeats: int) -> dict[str, float]:
        """Return seconds of the start and of a step, a mean over all steps; medians of runs."""
        arguments = self.solver, problem.lifting, problem.targets, key
        start = median_seconds(partial(self.start, *arguments), repeats)
        whole = median_seconds(partial(self.steps, *arguments), repeats)
        return {
            "compile_seconds": self.compile_seconds,
            "start_seconds": start,
            "step_seconds": (whole - start) / self.num_steps,
        }


def compile_tracker(solver: jp.Solver, num_steps: int, problem: jp.Problem, key: Array) -> Tracker:
    """Compile for problems of the shape of this one."""
    began = time.perf_counter()
    start, steps = (
        jax.jit(partial(jp.trajectory, num_steps=number))
        .lower(solver, problem.lifting, problem.targets, key)
        .compile()
        for number in (0, num_steps)
    )
    return Tracker(solver, start, steps, num_steps, time.perf_counter() - began)


def median_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Return the median wall time of a call, after one that warms up."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def linear_fit(errors: np.ndarray) -> dict[str, float] | None:
    """Fit a line to log10(error) by step over `FIT_RANGE`; None where that is not covered.

    >>> fit = linear_fit(10.0 ** -np.arange(20))
    >>> round(fit["slope"], 6), round(fit["r_squared"], 6)
    (-1.0, 1.0)
    """
    high, low = FIT_RANGE
    if not np.any(errors < low):
        return None
    steps = np.arange(np.argmax(errors < high), np.argmax(errors < low))
    if len(steps) < 3:
        return None
    logs = np.log10(errors[steps])
    slope, offset = np.polyfit(steps, logs, 1)
    remainder = logs - (slope * steps + offset)
    r_squared = 1 - np.sum(remainder**2) / np.sum((logs - logs.mean()) ** 2)
    return {"slope": float(slope), "r_squared": float(r_squared)}


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw both figures."""
    convergence_figures.draw(saved, folder)


def table(saved: dict[str, Any]) -> str:
    """Return floors, rates and seconds as text."""
    noisy, exact = saved["noisy"], saved["exact"]
    times = f"{'start ms':>10}{'ms a step':>11}{'compile s':>11}"
    lines = [
        f"Noise of sd {noisy['noise']:g}: p = {saved['dim']}, r = {saved['rank']}, L* = U U^T, "
        f"m = {noisy['num_samples']}",
        f"Loss of the noise alone, sigma^2 / 2: {noisy['noise_loss']:.5f}.  Expected of a least-"
        f"squares fit: loss {noisy['expected_loss']:.5f}, error |L - L*|_F "
        f"{noisy['expected_error']:.4f}.  Reached: within 5 %",
        f"{'solver':<28}{'loss floor':>11}{'reached, step':>15}{'error floor':>13}{times}",
    ]
    for name, row in noisy["solvers"].items():
        floor, error = (math.nan if row[k] is None else row[k] for k in ("floor", "error_floor"))
        lines.append(f"{name:<28}{floor:>11.5f}{row['floor_step']:>15}{error:>13.4f}{_times(row)}")
    lines += [
        "",
        f"No noise: p = {saved['dim']}, r = {saved['rank']}, mixed signs, "
        f"m = {exact['num_samples']}; slope of log10(error) a step",
        f"{'solver':<28}{'slope':>18}{'worst R^2':>11}{'worst end':>11}{times}",
    ]
    for name, row in exact["solvers"].items():
        fits = [fit for fit in row["fits"] if fit]
        slopes = [fit["slope"] for fit in fits]
        slope = f"{max(slopes):.3f} to {min(slopes):.3f}" if fits else row["order"]
        worst = f"{min(fit['r_squared'] for fit in fits):.4f}" if fits else ""
        end = max(math.nan if curve[-1] is None else curve[-1] for curve in row["errors"])
        lines.append(f"{name:<28}{slope:>18}{worst:>11}{end:>11.1e}{_times(row)}")
    return "\n".join(lines)


def _times(row: dict[str, Any]) -> str:
    return (
        f"{1e3 * row['start_seconds']:>10.2f}{1e3 * row['step_seconds']:>11.2f}"
        f"{row['compile_seconds']:>11.1f}"
    )
