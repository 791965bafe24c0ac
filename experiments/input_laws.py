"""Input laws: the share of planted networks found when the inputs are not Gaussian."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt

from experiments import figures
from experiments.problems import Cell, Inputs, unknowns
from experiments.session import Session
from experiments.sweep import sweep


@dataclass(frozen=True)
class Config:
    """The problems and the grid."""

    dim: int = 40
    """Inputs p."""
    rank: int = 3
    """Neurons r."""
    laws: tuple[Inputs, ...] = ("gaussian", "uniform", "laplace", "student", "rademacher")
    """Laws of the entries of x, of mean 0 and variance 1."""
    ratios: tuple[float, ...] = (1.2, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    """Samples over unknowns, m / dof."""
    solvers: tuple[str, ...] = ("EP-ROM", "AP-ROM", "factored descent", "Gauss-Newton")
    """Names of solvers, see experiments/problems.py."""
    trials: int = 50
    """Problems a point."""
    max_steps: int = 500
    """Steps at most."""
    success: float = 1e-4
    """Relative Frobenius error that counts as found."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(
        dim=8,
        rank=1,
        laws=("gaussian", "laplace"),
        ratios=(2.0, 8.0),
        solvers=("Gauss-Newton",),
        trials=4,
        max_steps=200,
    ),
    "paper": Config(),
    "full": Config(
        trials=200, ratios=(1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0)
    ),
}


def run(config: Config, session: Session | None = None) -> xr.Dataset:
    """Return the outcomes of all problems, see `sweep`."""
    cells = [
        Cell(
            solver,
            config.dim,
            config.rank,
            round(ratio * unknowns(config.dim, config.rank)),
            condition=1.0,
            inputs=law,
            max_steps=config.max_steps,
        )
        for solver in config.solvers
        for law in config.laws
        for ratio in config.ratios
    ]
    return sweep("input-laws", cells, config.trials, config.seed, session or Session())


def share(saved: xr.Dataset, solver: str, law: str) -> np.ndarray:
    """Return the share solved, by ratio."""
    success = saved.attrs["provenance"]["config"]["success"]
    part = saved.isel(cell=(saved.solver == solver).values & (saved.inputs == law).values)
    return (part.relative_error <= success).mean("trial").values


def draw(saved: xr.Dataset, folder: Path) -> None:
    """Draw success against m / dof, a panel a law."""
    config = saved.attrs["provenance"]["config"]
    laws, trials = config["laws"], config["trials"]
    figure, panels = plt.subplots(
        1,
        len(laws),
        figsize=(1 + 2.6 * len(laws), 3.6),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, law in zip(panels[0], laws, strict=True):
        for solver in config["solvers"]:
            figures.plot_rates(axes, config["ratios"], share(saved, solver, law), trials, solver)
        axes.set_xscale("log")
        ticks = [ratio for ratio in (1, 2, 4, 8) if ratio <= max(config["ratios"])]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_title(law, fontsize=10)
        axes.set_xlabel("m / dof")
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel(f"share of {trials} problems solved")
    panels[0, -1].legend(fontsize=8, loc="lower right")
    figure.suptitle(
        f"Inputs of other laws: p = {config['dim']}, r = {config['rank']}, mixed signs, "
        "orthonormal factor; bands: 95 % intervals",
        fontsize=10,
    )
    figures.save(figure, folder, "input-laws")


def table(saved: xr.Dataset) -> str:
    """Return the share solved for every law, solver and ratio."""
    config = saved.attrs["provenance"]["config"]
    text = [
        f"share of {config['trials']} problems solved, by m / dof",
        f"{'inputs':<13}{'solver':<20}" + "".join(f"{ratio:>7g}" for ratio in config["ratios"]),
    ]
    for law in config["laws"]:
        for solver in config["solvers"]:
            row = "".join(f"{rate:>7.2f}" for rate in share(saved, solver, law))
            text.append(f"{law:<13}{solver:<20}{row}")
    return "\n".join(text)
