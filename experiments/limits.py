"""Limits: from how few samples, and from which inputs, a planted network is found.

(a) The share of problems solved against m / dof for every solver of the kit, for
`recover` and for a spectrally started L-BFGS, p = 40, r = 3.  (b) `recover`, with no
setting changed, on ill-conditioned, noisy, spoilt and unruly data and on unknown rank.
Success is a relative Frobenius error of at most 1e-4.
"""

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxpoly as jp
from experiments import results
from experiments.limits_cases import Case, cases
from experiments.limits_figures import plot_curves
from experiments.limits_peers import spectral_lbfgs
from experiments.recovery import wilson_interval

Signs = Literal["positive", "mixed"]
SUCCESS = 1e-4


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
    """Samples over unknowns, m / dof, of the curves."""
    only: str = ""
    """Run only the rows of part (b) whose name contains this."""
    curves: bool = True
    """Run part (a)."""
    seed: int = 0
    """Seed of everything random."""


def main(config: Config, out: Path) -> None:
    """Run, save `limits.json`, draw the figure from it and print the tables."""
    began = time.perf_counter()
    payload: dict[str, Any] = {"curves": run_curves(config) if config.curves else {}}
    payload["rows"] = [run_case(case, config) for case in cases() if config.only in case.name]
    seconds = time.perf_counter() - began
    path = out / "limits.json"
    results.write(path, payload | {"provenance": results.provenance(config, seconds)})
    if config.curves:
        plot_curves(results.read(path), out / "limits.png")
    print(f"\nResults: {out}/limits*")


def solvers(rank: int) -> dict[str, jp.Solver]:
    """Return the solvers of the kit, none with an option set."""
    return {
        "EP-ROM": jp.ep_rom(rank),
        "AP-ROM": jp.ap_rom(rank),
        "factored descent": jp.factored_descent(rank),
        "Gauss-Newton": jp.gauss_newton(rank),
    }


def run_curves(config: Config) -> dict[str, Any]:
    """Return the success rates of part (a) by signs, method and ratio."""
    dim, rank = config.dim, config.rank
    unknowns = dim * rank - rank * (rank - 1) // 2
    keys = jax.random.split(jax.random.key(config.seed), config.trials)
    table: dict[str, Any] = {}
    for signs in ("mixed", "positive"):
        for ratio in config.ratios:
            sample = partial(
                jp.sample_problem,
                num_samples=round(ratio * unknowns),
                dim=dim,
                rank=rank,
                signs=signs,
                condition=1.0,
            )
            rates = curve_point(sample, rank, keys)
            for name, rate in rates.items():
                row = table.setdefault(signs, {}).setdefault(name, [])
                row.append({"ratio": ratio, "rate": rate})
            line = "  ".join(f"{name} {rate:.2f}" for name, rate in rates.items())
            print(f"{signs:<9}{ratio:>5.2f} dof: {line}", flush=True)
    return table


def curve_point(sample: Any, rank: int, keys: Array) -> dict[str, float]:
    """Return the success rate of every method on the problems of one size."""
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


def run_case(case: Case, config: Config) -> dict[str, Any]:
    """Run one row of part (b) and print it."""
    outcomes = [
        case.trial(key) for key in jax.random.split(jax.random.key(config.seed), config.trials)
    ]
    wins = sum(int(outcome.success) for outcome in outcomes)
    low, high = wilson_interval(wins, config.trials)
    worst = max(outcome.ratio for outcome in outcomes)
    row = {
        "name": case.name,
        "target": case.target,
        "trials": config.trials,
        "successes": wins,
        "interval": (low, high),
        "starts": float(np.mean([outcome.num_starts for outcome in outcomes])),
        "steps": float(np.median([outcome.num_steps for outcome in outcomes])),
        "worst_over_oracle": None if math.isnan(worst) else worst,
        "seconds": float(np.median([outcome.seconds for outcome in outcomes])),
    }
    oracle = "" if math.isnan(worst) else f"  worst over oracle {worst:.3f}"
    print(
        f"{case.name:<58}{wins / config.trials:>6.2f} ({low:.2f} to {high:.2f}), target "
        f"{case.target}; starts {row['starts']:.1f}, steps {row['steps']:.0f}, "
        f"{row['seconds']:.3f} s{oracle}",
        flush=True,
    )
    return row
