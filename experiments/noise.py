"""Noise: the error of the matrix against the noise and the samples, beside the theory.

Least squares on the tangent space of the truth has a mean squared error
|L - L*|_F^2 of about sigma^2 dof / (2 (m - dof)) on Gaussian inputs.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt

from experiments import figures
from experiments.problems import Cell, unknowns
from experiments.session import Session
from experiments.sweep import sweep


@dataclass(frozen=True)
class Config:
    """The problems and the two grids."""

    dim: int = 40
    """Inputs p."""
    rank: int = 3
    """Neurons r."""
    sigmas: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0)
    """Standard deviations of the noise; the targets have sqrt(2 r)."""
    ratios: tuple[float, ...] = (2.0, 3.0, 4.0, 8.0, 16.0, 32.0)
    """Samples over unknowns, m / dof."""
    solvers: tuple[str, ...] = ("Gauss-Newton", "AP-ROM")
    """Names of solvers, see experiments/problems.py."""
    trials: int = 20
    """Problems a point."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(
        dim=8, rank=1, sigmas=(0.01, 0.1), ratios=(4.0, 8.0), solvers=("Gauss-Newton",), trials=8
    ),
    "paper": Config(),
    "full": Config(trials=200),
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
            noise=sigma,
        )
        for solver in config.solvers
        for ratio in config.ratios
        for sigma in config.sigmas
    ]
    return sweep(
        "noise", list(dict.fromkeys(cells)), config.trials, config.seed, session or Session()
    )


def theory(saved: xr.Dataset) -> xr.DataArray:
    """Return the relative error that the theory has for every cell; |L*|_F^2 = r."""
    dof = unknowns(saved.dim, saved["rank"])
    square = saved.noise**2 * dof / (2 * (saved.num_samples - dof))
    return np.sqrt(square / saved["rank"])


def typical(saved: xr.Dataset) -> xr.DataArray:
    """Return the median over the trials: some starts end in another optimum."""
    return saved.relative_error.median("trial")


def slope(saved: xr.Dataset, solver: str, ratio: float) -> float:
    """Return the fitted exponent of the error in sigma; the theory has 1."""
    part = select(saved, solver).isel(cell=_near(saved, solver, ratio))
    return float(np.polyfit(np.log(part.noise), np.log(typical(part)), 1)[0])


def select(saved: xr.Dataset, solver: str) -> xr.Dataset:
    """Return the cells of a solver."""
    return saved.isel(cell=(saved.solver == solver).values)


def _near(saved: xr.Dataset, solver: str, ratio: float) -> np.ndarray:
    config = saved.attrs["provenance"]["config"]
    num_samples = round(ratio * unknowns(config["dim"], config["rank"]))
    return (select(saved, solver).num_samples == num_samples).values


def draw(saved: xr.Dataset, folder: Path) -> None:
    """Draw the error against sigma for every m, and against m for every sigma."""
    config = saved.attrs["provenance"]["config"]
    dof = unknowns(config["dim"], config["rank"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained")
    for solver in config["solvers"]:
        part = select(saved, solver)
        style = figures.style(solver) | {"linestyle": "none", "fillstyle": "none", "ms": 7}
        for axes, across, by in (
            (left, part.noise, part.num_samples),
            (right, part.num_samples / dof, part.noise),
        ):
            for height in np.unique(by):
                line = (by == height).values
                axes.plot(across[line], typical(part)[line], **style)
                axes.plot(across[line], theory(part)[line], color="0.4", lw=1, zorder=0)
                crowded = axes is left and height not in (by.min(), by.max())
                if solver == config["solvers"][0] and not crowded:
                    name = f"m = {height / dof:.3g} dof" if axes is left else f"{height:g}"
                    axes.annotate(
                        name,
                        (across[line][-1], theory(part)[line][-1]),
                        xytext=(4, 0),
                        textcoords="offset points",
                        fontsize=7,
                        va="center",
                    )
        left.plot([], [], label=solver, **style)
    left.plot([], [], color="0.4", lw=1, label="theory")
    for axes, label in (
        (left, r"noise $\sigma$ (units of y; sd(y) is $\sqrt{2r}$)"),
        (right, r"samples / unknowns, m / dof (labels: $\sigma$)"),
    ):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        axes.margins(x=0.2)
    right.set_xticks(config["ratios"], [f"{ratio:g}" for ratio in config["ratios"]])
    right.minorticks_off()
    left.set_ylabel(r"median relative error $\|L - L^*\|_F / \|L^*\|_F$")
    left.legend(fontsize=9)
    figure.suptitle(
        f"p = {config['dim']}, r = {config['rank']}, mixed signs, {config['trials']} problems "
        r"a point; theory $\sigma\,(dof / (2 r (m - dof)))^{1/2}$",
        fontsize=10,
    )
    figures.save(figure, folder, "noise")


def table(saved: xr.Dataset) -> str:
    """Return the error over the theory for every m, and the fitted exponents."""
    config = saved.attrs["provenance"]["config"]
    text = [
        "median error over that of the theory, by m / dof; the exponent in sigma (theory: 1)",
        f"{'solver':<20}{'sigma':>8}" + "".join(f"{ratio:>8g}" for ratio in config["ratios"]),
    ]
    for solver in config["solvers"]:
        part = select(saved, solver)
        over = typical(part) / theory(part)
        for sigma in config["sigmas"]:
            row = over[(part.noise == sigma).values].values
            text.append(f"{solver:<20}{sigma:>8g}" + "".join(f"{value:>8.2f}" for value in row))
        fits = "".join(f"{slope(saved, solver, ratio):>8.2f}" for ratio in config["ratios"])
        text.append(f"{solver:<20}{'exponent':>8}{fits}")
    return "\n".join(text)
