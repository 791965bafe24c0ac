"""Conditioning: steps and success against the condition number of the planted matrix."""

from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from matplotlib import pyplot as plt

from experiments import figures
from experiments.problems import Cell, unknowns
from experiments.session import Session
from experiments.sweep import sweep


@dataclass(frozen=True)
class Config:
    """The problems and the grid."""

    dim: int = 40
    """Inputs p."""
    rank: int = 4
    """Neurons r."""
    conditions: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    """Largest over smallest magnitude of the eigenvalues, geometric in between."""
    ratio: float = 4.0
    """Samples over unknowns, m / dof."""
    solvers: tuple[str, ...] = ("EP-ROM", "AP-ROM", "factored descent", "Gauss-Newton")
    """Names of solvers, see experiments/problems.py."""
    trials: int = 20
    """Problems a point."""
    max_steps: int = 3000
    """Steps at most."""
    success: float = 1e-6
    """Relative Frobenius error that counts as found."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(
        dim=8,
        rank=2,
        conditions=(1.0, 10.0),
        solvers=("EP-ROM", "Gauss-Newton"),
        trials=4,
        max_steps=300,
    ),
    "paper": Config(),
    "full": Config(trials=100, max_steps=20000),
}


def run(config: Config, session: Session | None = None) -> xr.Dataset:
    """Return the outcomes of all problems, see `sweep`."""
    num_samples = round(config.ratio * unknowns(config.dim, config.rank))
    cells = [
        Cell(
            solver,
            config.dim,
            config.rank,
            num_samples,
            condition=condition,
            max_steps=config.max_steps,
        )
        for solver in config.solvers
        for condition in config.conditions
    ]
    return sweep("conditioning", cells, config.trials, config.seed, session or Session())


def summary(saved: xr.Dataset) -> xr.Dataset:
    """Return for every cell the share solved and the median steps of those solved."""
    solved = saved.relative_error <= saved.attrs["provenance"]["config"]["success"]
    return xr.Dataset(
        {"rate": solved.mean("trial"), "steps": saved.num_steps.where(solved).median("trial")}
    )


def draw(saved: xr.Dataset, folder: Path) -> None:
    """Draw steps and success against the condition number."""
    config = saved.attrs["provenance"]["config"]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.6, 3.8), sharex=True, layout="constrained"
    )
    for solver in config["solvers"]:
        part = summary(saved).isel(cell=(saved.solver == solver).values)
        left.loglog(part.condition, part.steps, label=solver, **figures.style(solver))
        figures.plot_rates(right, part.condition, part.rate, config["trials"], solver)
    right.set_xscale("log")
    left.set_ylabel("median steps of the problems solved")
    right.set_ylabel(f"share of {config['trials']} problems solved")
    right.set_ylim(-0.03, 1.03)
    for axes in (left, right):
        axes.set_xlabel("condition number of L* on its range")
        axes.grid(alpha=0.3)
    left.legend(fontsize=9)
    figure.suptitle(
        f"p = {config['dim']}, r = {config['rank']}, mixed signs, m = {config['ratio']:g} dof, "
        f"at most {config['max_steps']} steps, solved: error <= {config['success']:g}; "
        "bands: 95 % intervals",
        fontsize=10,
    )
    figures.save(figure, folder, "conditioning")


def table(saved: xr.Dataset) -> str:
    """Return share solved and median steps for every solver and condition."""
    config = saved.attrs["provenance"]["config"]
    found = summary(saved)
    text = [
        "share solved / median steps of those, by condition number",
        f"{'solver':<20}" + "".join(f"{condition:>14g}" for condition in config["conditions"]),
    ]
    for solver in config["solvers"]:
        part = found.isel(cell=(saved.solver == solver).values)
        entries = zip(part.rate.values, part.steps.values, strict=True)
        text.append(
            f"{solver:<20}"
            + "".join(f"{f'{rate:.2f} / {steps:.0f}':>14}" for rate, steps in entries)
        )
    return "\n".join(text)
