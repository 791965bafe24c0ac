"""Limits: from how few samples, and from which inputs, a planted network is found.

(a) The share of problems solved against m / dof for every solver of the kit, for
`recover` and for a spectrally started L-BFGS, p = 40, r = 3.  (b) `recover`, with no
setting changed, on ill-conditioned, noisy, spoilt and unruly data and on unknown rank.
Success is a relative Frobenius error of at most 1e-4.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxpoly as jp
from experiments.figures import save, wilson_interval
from experiments.limits_cases import SUCCESS, Case, cases, unknowns
from experiments.limits_figures import plot_curves
from experiments.limits_peers import spectral_lbfgs
from experiments.session import Session

Signs = Literal["mixed", "positive"]
SIGNS: tuple[Signs, ...] = ("mixed", "positive")


@dataclass(frozen=True)
class Config:
    """Trials, grid and seed."""

    trials: int = 50
    """Planted networks for each point and row."""
    dim: int = 40
    """Inputs p of the curves."""
    rank: int = 3
    """Neurons r of the curves."""
    ratios: tuple[float, ...] = (1.05, 1.1, 1.2, 1.35, 1.5, 2.0, 2.5, 3.0, 4.0)
    """Samples over unknowns, m / dof, of the curves; none for rows only."""
    only: str = ""
    """Run only the rows of part (b) whose name contains this."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(trials=4, ratios=(2.0,), only="uniform"),
    "paper": Config(),
    "full": Config(
        trials=500, ratios=(1.02, 1.05, 1.1, 1.15, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
    ),
}


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return the curves of part (a) by signs and method, and the rows of part (b)."""
    session = session or Session()
    chosen = [case for case in cases() if config.only in case.name]
    curves: dict[str, Any] = {}
    rows = []
    total = len(SIGNS) * len(config.ratios) + len(chosen)
    with session.progress("limits", total, unit="part") as progress:
        for signs, ratio in product(SIGNS, config.ratios):
            compute = partial(run_point, config, signs, ratio)
            rates = session.ledger.recall(f"curves/{signs}/{ratio:g}", compute)
            for name, rate in rates.items():
                points = curves.setdefault(signs, {}).setdefault(name, [])
                points.append({"ratio": ratio, "rate": rate})
            progress.advance()
        for case in chosen:
            row = session.ledger.recall(f"rows/{case.name}", partial(run_case, config, case))
            rows.append(row)
            progress.advance()
    sizes = {"dim": config.dim, "rank": config.rank, "trials": config.trials}
    return sizes | {"curves": curves, "rows": rows}


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw the curves of part (a)."""
    if saved["curves"]:
        save(plot_curves(saved), folder, "limits")


def table(saved: dict[str, Any]) -> str:
    """Return the numbers of both parts as text."""
    lines = []
    for signs, methods in saved["curves"].items():
        ratios = [f"{point['ratio']:g} dof" for point in methods["recover"]]
        lines.append(f"{signs + ' signs':<23}" + "".join(f"{ratio:>9}" for ratio in ratios))
        for name, points in methods.items():
            lines.append(f"{name:<23}" + "".join(f"{point['rate']:>9.2f}" for point in points))
        lines.append("")
    for row in saved["rows"]:
        low, high = row["interval"]
        worst = row["worst_over_oracle"]
        oracle = "" if worst is None else f"  worst over oracle {worst:.3f}"
        lines.append(
            f"{row['name']:<58}{row['successes'] / row['trials']:>6.2f} ({low:.2f} to {high:.2f}), "
            f"target {row['target']}; starts {row['starts']:.1f}, steps {row['steps']:.0f}, "
            f"{row['seconds']:.3f} s{oracle}"
        )
    return "\n".join(lines)


def solvers(rank: int) -> dict[str, jp.Solver]:
    """Return the solvers of the kit, none with an option set."""
    return {
        "EP-ROM": jp.ep_rom(rank),
        "AP-ROM": jp.ap_rom(rank),
        "factored descent": jp.factored_descent(rank),
        "Gauss-Newton": jp.gauss_newton(rank),
    }


def run_point(config: Config, signs: Signs, ratio: float) -> dict[str, float]:
    """Return the success rate of every method on the problems of one size."""
    rank = config.rank
    sample = partial(
        jp.sample_problem,
        num_samples=round(ratio * unknowns(config.dim, rank)),
        dim=config.dim,
        rank=rank,
        signs=signs,
        condition=1.0,
    )
    keys = jax.random.split(jax.random.key(config.seed), config.trials)
    problem_keys, solver_keys = jax.vmap(partial(jax.random.split, num=2), out_axes=1)(keys)
    problems = jax.jit(jax.vmap(sample))(problem_keys)

    def rate(values: jp.LowRank) -> float:
        errors = jax.vmap(jp.relative_error)(values, problems.truth)
        return float(jnp.mean(errors <= SUCCESS))

    data = problems.lifting, problems.targets, solver_keys
    rates = {name: rate(solve_all(solver, *data)) for name, solver in solvers(rank).items()}
    rates["L-BFGS, spectral start"] = rate(lbfgs_all(rank, *data))
    values = [
        jp.recover(inputs, targets, rank, key=key).value
        for inputs, targets, key in zip(problems.lifting.inputs, *data[1:], strict=True)
    ]
    return rates | {"recover": rate(jax.tree.map(lambda *leaves: jnp.stack(leaves), *values))}


@jax.jit
def solve_all(solver: jp.Solver, liftings: jp.Lifting, targets: Array, keys: Array) -> jp.LowRank:
    """Return the solutions of a batch of problems, one after the other."""
    return jax.lax.map(
        lambda data: jp.solve(solver, data[0], data[1], data[2], 500).value,
        (liftings, targets, keys),
    )


@partial(jax.jit, static_argnames="rank")
def lbfgs_all(rank: int, liftings: jp.Lifting, targets: Array, keys: Array) -> jp.LowRank:
    """Return what L-BFGS finds on a batch of problems."""
    return jax.lax.map(lambda data: spectral_lbfgs(rank, *data), (liftings, targets, keys))


def run_case(config: Config, case: Case) -> dict[str, Any]:
    """Return one row of part (b)."""
    keys = jax.random.split(jax.random.key(config.seed), config.trials)
    outcomes = [case.trial(key) for key in keys]
    wins = sum(int(outcome.success) for outcome in outcomes)
    worst = np.max([outcome.ratio for outcome in outcomes])
    return {
        "name": case.name,
        "target": case.target,
        "trials": config.trials,
        "successes": wins,
        "interval": wilson_interval(wins, config.trials),
        "starts": np.mean([outcome.num_starts for outcome in outcomes]),
        "steps": np.median([outcome.num_steps for outcome in outcomes]),
        "worst_over_oracle": None if np.isnan(worst) else worst,
        "seconds": np.median([outcome.seconds for outcome in outcomes]),
    }
