"""Recovery: in how many of the trials each solver finds the planted network.

The settings of the paper's figure (unit step, trace correction, relative spectral
error below 0.05) beside the kit's default solvers at far fewer samples (relative
Frobenius error below 1e-3).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

import jaxpoly as jp
from experiments import results


@dataclass(frozen=True)
class Config:
    """Trials and seed; the settings are those of the table."""

    trials: int = 50
    """Planted networks a setting."""
    small: bool = False
    """Only the settings with p = 40, a minute instead of several."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True)
class Family:
    """A family of problems, and what counts as a success in it."""

    dim: int
    rank: int
    signs: Literal["positive", "mixed"]
    condition: float | None
    metric: Callable[[jp.LowRank, jp.LowRank], Array]
    threshold: float
    max_steps: int
    rtol: float


class Setting(NamedTuple):
    """One row of the table."""

    name: str
    solver: jp.Solver
    family: Family
    num_samples: int


def paper_settings() -> list[Setting]:
    """Return the settings of the figure, p = 100, r = 5, L* = U U^T with U Gaussian.

    Before them the defaults and a smaller step, at far fewer samples.
    """
    family = Family(100, 5, "positive", None, jp.spectral_error, 0.05, max_steps=300, rtol=1e-3)
    solvers: list[tuple[str, jp.Solver]] = [
        ("EP-ROM, paper", jp.ep_rom(5, step_size=1.0, debias="trace")),
        ("AP-ROM, paper, krylov head", jp.ap_rom(5, 1.0, "trace", head="krylov")),
        ("AP-ROM, paper, tangent head", jp.ap_rom(5, step_size=1.0, debias="trace")),
    ]
    damped = jp.ep_rom(5, step_size=0.25, debias="trace")
    return [
        Setting("EP-ROM", jp.ep_rom(5), family, num_samples=980),
        Setting("AP-ROM", jp.ap_rom(5), family, num_samples=980),
        Setting("EP-ROM, step 0.25, trace", damped, family, num_samples=3 * 5 * 100),
        *(Setting(*solver, family, m) for m in (5000, 6500, 8000) for solver in solvers),
    ]


def default_settings() -> list[Setting]:
    """Return the default solvers at 1.5, 2 and 3 times as many samples as unknowns."""
    dim, rank = 40, 3
    unknowns = dim * rank - rank * (rank - 1) // 2
    solvers: list[tuple[str, jp.Solver]] = [
        ("EP-ROM", jp.ep_rom(rank)),
        ("AP-ROM", jp.ap_rom(rank)),
        ("factored descent", jp.factored_descent(rank)),
    ]
    mixed = Family(dim, rank, "mixed", 1.0, jp.relative_error, 1e-3, max_steps=500, rtol=1e-5)
    families = mixed, replace(mixed, signs="positive")
    return [
        Setting(*solver, family, num_samples=round(ratio * unknowns))
        for ratio in (1.5, 2, 3)
        for family in families
        for solver in solvers
    ]


def main(config: Config, out: Path) -> None:
    """Run every setting, save `recovery.json` and print the table."""
    began = time.perf_counter()
    settings = default_settings() if config.small else default_settings() + paper_settings()
    rows = []
    print(f"{'solver':<29}{'p':>4}{'r':>3}  {'signs':<9}{'m':>5}{'success':>9}   95 % interval")
    for setting in settings:
        family = setting.family
        wins = int(jnp.sum(successes(setting, config.trials, config.seed)))
        low, high = wilson_interval(wins, config.trials)
        row = {
            "solver": setting.name,
            "dim": family.dim,
            "rank": family.rank,
            "signs": family.signs,
            "num_samples": setting.num_samples,
            "trials": config.trials,
            "successes": wins,
            "interval": (low, high),
        }
        rows.append(row)
        print(
            f"{setting.name:<29}{family.dim:>4}{family.rank:>3}  {family.signs:<9}"
            f"{setting.num_samples:>5}{wins / config.trials:>9.2f}   {low:.2f} to {high:.2f}",
            flush=True,
        )
    seconds = time.perf_counter() - began
    payload: dict[str, Any] = {"rows": rows, "provenance": results.provenance(config, seconds)}
    results.write(out / "recovery.json", payload)
    print(f"\nResults: {out}/recovery.json")


def successes(setting: Setting, trials: int, seed: int) -> Array:
    """Return for every trial whether the solver found the planted network, (trials,)."""
    family = setting.family

    def trial(key: Array) -> Array:
        problem_key, solver_key = jax.random.split(key)
        problem = jp.sample_problem(
            problem_key,
            setting.num_samples,
            family.dim,
            family.rank,
            signs=family.signs,
            condition=family.condition,
        )
        data = problem.lifting, problem.targets, solver_key
        solution = jp.solve(setting.solver, *data, family.max_steps, family.rtol)
        return family.metric(solution.value, problem.truth) < family.threshold

    keys = jax.random.split(jax.random.key(seed), trials)
    return jax.jit(partial(jax.lax.map, trial))(keys)


def wilson_interval(wins: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a success rate."""
    z, rate = 1.96, wins / trials
    centre = rate + z**2 / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
