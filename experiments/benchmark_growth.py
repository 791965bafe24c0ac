"""Growth: seconds and temporary memory of one step with the samples m, inputs p and rank r.

A step is timed near the solution, where what it does depends on the sizes alone; that of
Gauss-Newton has ten inner steps and is given for each of them.  The memory is the
compiler's own account of what a step takes besides X and its state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxpoly as jp
from experiments.benchmark_clock import Candidate, interleaved
from experiments.session import Session

INNER_STEPS = 10
SOLVERS: dict[str, Callable[[int], jp.Solver]] = {
    "EP-ROM": jp.ep_rom,
    "AP-ROM": partial(jp.ap_rom, depth=1),
    "factored descent": jp.factored_descent,
    "Gauss-Newton": partial(jp.gauss_newton, inner_steps=INNER_STEPS),
}
AXES = {"samples m": "num_samples", "inputs p": "dim", "rank r": "rank"}


@dataclass(frozen=True)
class Config:
    """Sizes; in the sweep of one, the others are those of the base."""

    num_samples: int = 10_000
    """m of the base."""
    dim: int = 1000
    """p of the base."""
    rank: int = 5
    """r of the base."""
    samples: tuple[int, ...] = (5000, 10_000, 20_000, 40_000, 80_000)
    """Sweep of m."""
    dims: tuple[int, ...] = (500, 1000, 2000, 4000, 8000)
    """Sweep of p."""
    ranks: tuple[int, ...] = (2, 4, 8, 16, 32)
    """Sweep of r."""
    solvers: tuple[str, ...] = tuple(SOLVERS)
    """Solvers of the kit."""
    dense_dim: int = 1000
    """Largest p for EP-ROM."""
    repeats: int = 5
    """Rounds that a time is the median of."""


def run(config: Config, session: Session, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return a row for every size of every sweep: seconds and bytes of each solver."""
    sweeps = dict(zip(AXES, (config.samples, config.dims, config.ranks), strict=True))
    base = {"num_samples": config.num_samples, "dim": config.dim, "rank": config.rank}
    rows: dict[str, list[dict[str, Any]]] = {}
    with session.progress("growth", sum(map(len, sweeps.values())), unit="size") as progress:
        for axis, values in sweeps.items():
            rows[axis] = []
            for value in values:
                size = base | {AXES[axis]: value}
                names = [name for name in config.solvers if allowed(config, name, size["dim"])]
                measure = partial(steps, names, config.repeats, seed, **size)
                # A size that two sweeps share is measured once.
                key = "growth/" + "/".join(f"{name}={number}" for name, number in size.items())
                rows[axis].append(session.ledger.recall(key, measure))
                progress.advance()
    return rows


def allowed(config: Config, name: str, dim: int) -> bool:
    """Tell whether a solver is run at p."""
    return name != "EP-ROM" or dim <= config.dense_dim


def steps(
    names: list[str], repeats: int, seed: int, *, num_samples: int, dim: int, rank: int
) -> dict[str, Any]:
    """Return seconds and temporary bytes of one step of every solver at a size."""
    lifting, targets, start = draw_problem(num_samples, dim, rank, seed)
    candidates, num_bytes = {"one read": Candidate(partial(jax.jit(jnp.sum), lifting.inputs))}, {}
    for name in names:
        solver, key = SOLVERS[name](rank), jax.random.key(seed)
        state = first_state(solver, lifting, targets, key, start)
        compiled = next_state.lower(solver, lifting, targets, state).compile()
        candidates[name] = Candidate(partial(compiled, solver, lifting, targets, state))
        memory: Any = compiled.memory_analysis()
        num_bytes[name] = memory.temp_size_in_bytes
    seconds = {name: median(found) for name, found in interleaved(candidates, repeats).items()}
    if "Gauss-Newton" in seconds:
        seconds["Gauss-Newton"] /= INNER_STEPS
    sizes = {"num_samples": num_samples, "dim": dim, "rank": rank}
    return sizes | {"seconds": seconds, "temporary_bytes": num_bytes}


@jax.jit
def first_state(
    solver: jp.Solver, lifting: jp.Lifting, targets: Array, key: Array, start: jp.LowRank
) -> jp.State:
    """Return the state of a solver at a start."""
    return solver.init(lifting, targets, key, start)


@jax.jit
def next_state(solver: jp.Solver, lifting: jp.Lifting, targets: Array, state: jp.State) -> jp.State:
    """Return the state after one step."""
    return solver.step(lifting, targets, state)


def draw_problem(
    num_samples: int, dim: int, rank: int, seed: int
) -> tuple[jp.Lifting, Array, jp.LowRank]:
    """Return a problem and an L at a relative distance of about 1e-8 of its solution.

    Gauss-Newton solves the more exactly the nearer it is, and so takes all its inner steps.
    """
    generator = np.random.default_rng(seed)
    dtype = np.dtype(jnp.result_type(float)).type
    # By numpy, which fills X in place; jax.random takes several times its memory.
    lifting = jp.Lifting(jnp.asarray(generator.standard_normal((num_samples, dim), dtype)))
    truth = jp.sample_truth(jax.random.key(seed), dim, rank)
    error = generator.standard_normal((dim, rank), dtype)
    start = jp.LowRank(truth.factor + 1e-8 * jnp.asarray(error), truth.diagonal)
    return lifting, jp.measure(lifting, truth), start


def exponent(sizes: list[float], values: list[float]) -> float | None:
    """Return the slope of log(value) against log(size), None for fewer than two sizes.

    >>> round(exponent([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]), 6)
    2.0
    """
    if len(sizes) < 2:
        return None
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def curve(rows: list[dict[str, Any]], axis: str, name: str, what: str) -> tuple[list, list]:
    """Return sizes along the axis and seconds or bytes of a solver, where it was run."""
    pairs = [(row[AXES[axis]], row[what][name]) for row in rows if name in row[what]]
    return [size for size, _ in pairs], [value for _, value in pairs]


QUANTITIES = {
    "seconds": ("Milliseconds a step (Gauss-Newton: an inner step)", 1e3),
    "temporary_bytes": ("Temporary memory of a step in MB", 1e-6),
}


def table(saved: dict[str, list[dict[str, Any]]]) -> str:
    """Return seconds, memory and their exponents as text."""
    lines = []
    for axis, rows in saved.items():
        fixed = ", ".join(
            f"{other.split()[1]} = {rows[0][field]}"
            for other, field in AXES.items()
            if other != axis
        )
        for what, (title, unit) in QUANTITIES.items():
            heads = "".join(f"{row[AXES[axis]]:>10}" for row in rows)
            lines += [f"{title}, {fixed}", f"{axis:<20}{heads}{'exponent':>10}"]
            for name in ("one read", *SOLVERS):
                sizes, values = curve(rows, axis, name, what)
                if not sizes:
                    continue
                slope = exponent(sizes, values)
                cells = "".join(
                    f"{unit * row[what][name]:>10.3g}" if name in row[what] else f"{'-':>10}"
                    for row in rows
                )
                lines.append(f"{name:<20}{cells}" + ("" if slope is None else f"{slope:>10.2f}"))
            lines.append("")
    return "\n".join(lines[:-1])
