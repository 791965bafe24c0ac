"""Running time: error after every step at p = 1000, its seconds, and how these grow with p.

Panel (c) of the paper's figure (AISTATS 2018): L* = U U^T with a Gaussian U, no noise,
m = 15 p r samples, 15 steps; beside it the published numbers, which are of another machine.
The published AP-ROM levels off at an error of 10^-1.45.  So does `OneSidedApRom`, and it
shows why: a head that projects one side of the gradient makes the iterates asymmetric, and
of the antisymmetric part x^T L x sees nothing that could mend it.  Where it levels off
depends on the depth of the Krylov space, which was not published.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxpoly as jp
from experiments import running_time_figures
from experiments.problems import SOLVERS
from experiments.session import Session
from jaxpoly.static import static
from jaxpoly.threshold import block_krylov, rayleigh_ritz

# Total seconds and log10 of the last relative error, as published, on another machine.
PUBLISHED = {
    "EP-ROM": {"seconds": 2445, "log10_error": -2.31},
    "AP-ROM": {"seconds": 1191, "log10_error": -1.45},
    "gFM": {"seconds": 4290, "log10_error": -2.19},
    "convex": {"seconds": 4246, "log10_error": None},
}
PUBLISHED_STEPS = 15
ONE_SIDED = "AP-ROM, paper, one-sided head"


@dataclass(frozen=True)
class Config:
    """Sizes, solvers and seed."""

    dims: tuple[int, ...] = (125, 250, 500, 1000)
    """Inputs p, ascending; the last is that of the panel."""
    rank: int = 5
    """Neurons r."""
    oversampling: float = 15.0
    """Samples m over p r."""
    num_steps: int = 15
    """Steps at most."""
    goal: float = 1e-2
    """Relative error that the seconds to are told of."""
    solvers: tuple[str, ...] = (
        "EP-ROM, paper",
        "AP-ROM, paper",
        "AP-ROM, paper, Krylov head",
        ONE_SIDED,
        "EP-ROM",
        "AP-ROM",
        "factored descent",
        "Gauss-Newton",
    )
    """Names of solvers, see experiments/problems.py, and the one of this file."""
    scaled: tuple[str, ...] = (
        "AP-ROM, paper, Krylov head",
        "EP-ROM",
        "AP-ROM",
        "factored descent",
        "Gauss-Newton",
    )
    """Those of the solvers that are timed at every p."""
    one_sided_depth: int = 5
    """Depth of the Krylov space of the one-sided head."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(
        dims=(24, 48),
        rank=2,
        oversampling=30.0,
        solvers=(ONE_SIDED, "EP-ROM"),
        scaled=("EP-ROM",),
        one_sided_depth=1,
    ),
    "paper": Config(),
    "full": Config(dims=(125, 177, 250, 354, 500, 707, 1000), num_steps=40, goal=1e-6),
}

draw_error = running_time_figures.draw_error
draw_cost = running_time_figures.draw_cost


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return errors and seconds by step of every solver at every p, and the fitted exponents."""
    session = session or Session()
    chosen = {dim: config.scaled for dim in config.dims} | {config.dims[-1]: config.solvers}
    sizes = []
    with session.progress("running time", sum(map(len, chosen.values())), unit="run") as progress:
        for dim, names in chosen.items():
            # Drawn only if some solver has to run; given back before the next size.
            problem = cache(partial(draw_problem, config, dim))
            rows = {}
            for name in names:
                compute = partial(race, config, name, problem)
                rows[name] = session.ledger.recall(f"running-time/{dim}/{name}", compute)
                progress.advance()
            sizes.append({"dim": dim, "num_samples": samples(config, dim), "solvers": rows})
    return {
        "rank": config.rank,
        "goal": config.goal,
        "published": PUBLISHED,
        "published_steps": PUBLISHED_STEPS,
        "sizes": sizes,
        "exponents": {name: exponent(sizes, name) for name in config.scaled},
    }


def samples(config: Config, dim: int) -> int:
    """Return the number of samples at p."""
    return round(config.oversampling * dim * config.rank)


def draw_problem(config: Config, dim: int) -> jp.Problem:
    """Return the problem of the panel: L* = U U^T with a Gaussian U, no noise."""
    sizes = samples(config, dim), dim, config.rank
    return jp.sample_problem(jax.random.key(config.seed), *sizes, signs="positive")


def race(config: Config, name: str, problem: Callable[[], jp.Problem]) -> dict[str, Any]:
    """Take step after step; return the error after each, from the start on, and its seconds.

    Everything is compiled and has run once before the clock starts, and the error is
    computed while it stands.  A run that ends, at rounding, takes no more steps.
    """
    lifting, targets, truth = problem()
    one_sided = OneSidedApRom(config.rank, config.one_sided_depth)
    solver = one_sided if name == ONE_SIDED else SOLVERS[name](config.rank)
    key = jax.random.key(config.seed + 1)
    errors_now = jax.jit(errors_of)
    began = time.perf_counter()
    init = jax.jit(jp.init_run).lower(solver, lifting, targets, key).compile()
    run = jax.block_until_ready(init(solver, lifting, targets, key))
    advance = jax.jit(jp.advance).lower(solver, lifting, targets, run, 1).compile()
    jax.block_until_ready(advance(solver, lifting, targets, run, 1))
    first_seconds = time.perf_counter() - began

    began = time.perf_counter()
    run = jax.block_until_ready(init(solver, lifting, targets, key))
    seconds = [time.perf_counter() - began]
    errors = [errors_now(run.state, truth)]
    while len(seconds) <= config.num_steps and run.best.status == jp.Status.MAX_STEPS:
        began = time.perf_counter()
        run = jax.block_until_ready(advance(solver, lifting, targets, run, 1))
        seconds.append(time.perf_counter() - began)
        errors.append(errors_now(run.state, truth))
    whole, symmetric = np.asarray(errors).T
    reached = whole <= config.goal
    elapsed = np.cumsum(seconds)
    return {
        "errors": whole,
        "symmetric_errors": symmetric,
        "elapsed": elapsed,
        "first_seconds": first_seconds,
        "start_seconds": seconds[0],
        "step_seconds": float(np.median(seconds[1:])),
        "total_seconds": elapsed[-1],
        "goal_seconds": elapsed[np.argmax(reached)] if reached.any() else None,
    }


def errors_of(state: jp.State, truth: jp.LowRank) -> tuple[Array, Array]:
    """Return the relative error of L and that of its symmetric part, all that the data see."""
    symmetric = jp.relative_error(state.estimate, truth)
    if not isinstance(state.memory, Asymmetric):
        return symmetric, symmetric
    left, right = state.memory
    skew = jnp.linalg.norm(left @ right.T - right @ left.T) / 2
    return jnp.hypot(symmetric, skew / jp.lowrank.norm(truth)), symmetric


def exponent(sizes: list[dict[str, Any]], name: str) -> float:
    """Return the slope of log(seconds a step) against log(p), with m proportional to p."""
    dims = np.log([size["dim"] for size in sizes])
    seconds = np.log([size["solvers"][name]["step_seconds"] for size in sizes])
    return float(np.polyfit(dims, seconds, 1)[0])


class Asymmetric(NamedTuple):
    """A matrix `left right^T`."""

    left: Array
    right: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneSidedApRom:
    """AP-ROM with the paper's head: `L <- T(L - Z Z^T G(L))` does not keep L symmetric.

    Unit step and trace correction; Z are the 2 r leading Ritz vectors of a block Krylov
    space of G, max(2 r, r + 5) random columns to start with; the tail T is exact.  The
    estimate is the symmetric part of L, of rank 2 r, and the memory is L itself.
    """

    neurons: int = static()
    depth: int = static()
    debias: Any = static("trace")

    @property
    def rank(self) -> int:
        """Columns of the estimate."""
        return 2 * self.neurons

    def init(
        self, lifting: jp.Lifting, targets: Array, key: Array, start: jp.LowRank | None = None
    ) -> jp.State:
        """Return the state at L = 0."""
        zero = jnp.zeros((lifting.inputs.shape[1], self.neurons), targets.dtype)
        return self._state(lifting, targets, key, zero, zero)

    def step(self, lifting: jp.Lifting, targets: Array, state: jp.State) -> jp.State:
        """Return the state after one step."""
        left, right = state.memory
        dim, rank = left.shape
        key, block_key = jax.random.split(state.key)
        width = max(2 * rank, rank + 5)
        block = jax.random.normal(block_key, (dim, width), left.dtype)
        gradient = jp.gradient_map(lifting, state.residual, self.debias)
        basis, image = block_krylov(gradient, block, self.depth)
        head = rayleigh_ritz(basis, image, 2 * rank).factor
        moved = jnp.concatenate([left, -head], axis=1)
        against = jnp.concatenate([right, image @ (basis.T @ head)], axis=1)
        (left_basis, left_core), (right_basis, right_core) = map(jnp.linalg.qr, (moved, against))
        outer, values, inner = jnp.linalg.svd(left_core @ right_core.T)
        left = left_basis @ (outer[:, :rank] * values[None, :rank])
        return self._state(lifting, targets, key, left, right_basis @ inner[:rank].T)

    def _state(
        self, lifting: jp.Lifting, targets: Array, key: Array, left: Array, right: Array
    ) -> jp.State:
        factor = jnp.concatenate([left + right, left - right], axis=1) / 2
        signs = jnp.repeat(jnp.array([1.0, -1.0], left.dtype), self.neurons)
        estimate = jp.LowRank(factor, signs)
        one = jnp.ones((), targets.dtype)
        residual = jp.measure(lifting, estimate) - targets
        return jp.State(estimate, residual, one, one, key, memory=Asymmetric(left, right))


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw the figures."""
    running_time_figures.draw(saved, folder)


def table(saved: dict[str, Any]) -> str:
    """Return seconds, errors, published numbers and exponents as text."""
    panel, goal = saved["sizes"][-1], saved["goal"]
    lines = [
        f"p = {panel['dim']}, r = {saved['rank']}, L* = U U^T, m = {panel['num_samples']}",
        f"{'solver':<32}{'steps':>6}{'log10 error':>13}{'seconds':>9}{'start s':>9}{'s a step':>10}"
        f"{f's to {goal:g}':>11}",
    ]
    for name, row in panel["solvers"].items():
        reached = "-" if row["goal_seconds"] is None else f"{row['goal_seconds']:.3g}"
        last = math.nan if row["errors"][-1] is None else row["errors"][-1]
        lines.append(
            f"{name:<32}{len(row['errors']) - 1:>6}{math.log10(last):>13.2f}"
            f"{row['total_seconds']:>9.3g}{row['start_seconds']:>9.3g}"
            f"{row['step_seconds']:>10.3g}{reached:>11}"
        )
        if running_time_figures.is_asymmetric(row):
            symmetric = math.log10(row["symmetric_errors"][-1])
            lines.append(f"{'  its symmetric part':<38}{symmetric:>13.2f}")
    for name, row in saved["published"].items():
        error = "" if row["log10_error"] is None else f"{row['log10_error']:.2f}"
        lines.append(f"{name + ', published 2018':<38}{error:>13}{row['seconds']:>9}")
    heads = "".join(f"{'p = ' + str(size['dim']):>11}" for size in saved["sizes"])
    lines += ["", "Seconds a step, m proportional to p", f"{'solver':<28}{heads}{'exponent':>10}"]
    for name, slope in saved["exponents"].items():
        times = (size["solvers"][name]["step_seconds"] for size in saved["sizes"])
        cells = "".join(f"{value:>11.2g}" for value in times)
        lines.append(f"{name:<28}{cells}{slope:>10.2f}")
    return "\n".join(lines)
