"""Phase transition: the share of planted networks found, over samples and rank or inputs.

A grid of m / dof against r (or p, where several are given), for every solver and pattern of
signs, with the half-way contour and the lines m = dof, the information limit, and m = p r.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt

from experiments import figures
from experiments.problems import Cell, Signs, unknowns
from experiments.session import Session
from experiments.sweep import sweep


@dataclass(frozen=True)
class Config:
    """The grid; one of dims and ranks has one entry."""

    dims: tuple[int, ...] = (50,)
    """Inputs p."""
    ranks: tuple[int, ...] = tuple(range(1, 11))
    """Neurons r."""
    ratios: tuple[float, ...] = tuple(round(ratio, 3) for ratio in np.linspace(0.5, 3, 20).tolist())
    """Samples over unknowns, m / dof."""
    solvers: tuple[str, ...] = ("Gauss-Newton",)
    """Names of solvers, see experiments/problems.py."""
    signs: tuple[Signs, ...] = ("mixed",)
    """Signs of the output weights."""
    trials: int = 50
    """Problems a point."""
    max_steps: int = 40
    """Steps at most; of the problems that Gauss-Newton solves 99 in 100 take at most 21."""
    success: float = 1e-4
    """Relative Frobenius error that counts as found."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(dims=(8,), ranks=(1, 2), ratios=(0.75, 1.5, 4.0), trials=4, max_steps=50),
    "paper": Config(),
    "full": Config(
        solvers=("EP-ROM", "AP-ROM", "factored descent", "Gauss-Newton"),
        signs=("mixed", "positive"),
        max_steps=500,
    ),
}


def run(config: Config, session: Session | None = None) -> xr.Dataset:
    """Return the outcomes of all problems, see `sweep`."""
    if len(config.dims) > 1 and len(config.ranks) > 1:
        raise ValueError(
            f"both dims {config.dims} and ranks {config.ranks} vary; expected one of them to"
        )
    axes = config.solvers, config.signs, config.dims, config.ranks, config.ratios
    cells = [
        Cell(
            solver,
            dim,
            rank,
            max(1, round(ratio * unknowns(dim, rank))),
            signs,
            condition=1.0,
            max_steps=config.max_steps,
        )
        for solver, signs, dim, rank, ratio in product(*axes)
    ]
    cells = list(dict.fromkeys(cells))
    return sweep("phase-transition", cells, config.trials, config.seed, session or Session())


def rates(saved: xr.Dataset, success: float) -> xr.Dataset:
    """Return for every cell the ratio m / dof and the share of problems solved."""
    share = (saved.relative_error <= success).mean("trial")
    dof = unknowns(saved.dim, saved["rank"])
    return xr.Dataset({"rate": share, "ratio": saved.num_samples / dof, "dof": dof})


def half_way(ratio: np.ndarray, rate: np.ndarray) -> float:
    """Return the m / dof from which on at least half are solved, by interpolation; NaN if none.

    >>> half_way(np.array([1.0, 1.5, 2.0]), np.array([0.0, 0.25, 0.75]))
    1.75
    """
    below = np.flatnonzero(rate < 0.5)
    if len(below) == 0:
        return float(ratio[0])
    last = below[-1]
    if last + 1 == len(ratio):
        return float("nan")
    share = (0.5 - rate[last]) / (rate[last + 1] - rate[last])
    return float(ratio[last] + share * (ratio[last + 1] - ratio[last]))


def lines(saved: xr.Dataset) -> list[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]:
    """Return solver, signs, heights (r or p), ratios and rates (heights, ratios) of every map."""
    config = saved.attrs["provenance"]["config"]
    table = rates(saved, config["success"])
    by = "rank" if len(config["ranks"]) > 1 else "dim"
    found = []
    for solver, signs in product(config["solvers"], config["signs"]):
        part = table.isel(cell=(saved.solver == solver).values & (saved.signs == signs).values)
        heights = np.unique(part[by])
        rows = [part.isel(cell=(part[by] == height).values) for height in heights]
        rows = [row.isel(cell=np.argsort(row.ratio.values)) for row in rows]
        # Of two ratios that round to one number of samples there is one cell.
        ratios = np.sort(config["ratios"])
        share = np.array(
            [np.interp(ratios, np.round(row.ratio.values, 12), row.rate.values) for row in rows]
        )
        found.append((solver, signs, heights, ratios, share))
    return found


def draw(saved: xr.Dataset, folder: Path) -> None:
    """Draw a map for every solver and pattern of signs."""
    config = saved.attrs["provenance"]["config"]
    maps = lines(saved)
    across = min(4, len(maps))
    down = -(-len(maps) // across)
    figure, grid = plt.subplots(
        down,
        across,
        figsize=(1.2 + 4.2 * across, 0.9 + 3.1 * down),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    by_rank = len(config["ranks"]) > 1
    for axes in grid.flat[len(maps) :]:
        axes.set_visible(False)
    for axes, (solver, signs, heights, ratios, share) in zip(grid.flat, maps, strict=False):
        mesh = axes.pcolormesh(
            ratios, heights, share, vmin=0, vmax=1, cmap="cividis", shading="nearest"
        )
        if min(share.shape) > 1 and share.min() < 0.5 < share.max():
            axes.contour(ratios, heights, share, [0.5], colors="white", linewidths=2)
        rank = heights if by_rank else np.full(len(heights), config["ranks"][0])
        dim = np.full(len(heights), config["dims"][0]) if by_rank else heights
        full = (
            dim
            * rank
            / np.array([unknowns(int(p), int(r)) for p, r in zip(dim, rank, strict=True)])
        )
        axes.axvline(1, color="white", linestyle="--", lw=1.5, label="m = dof")
        axes.plot(full, heights, color="white", linestyle=":", lw=2, label="m = p r")
        if len(ratios) > 1:
            axes.set_xlim(ratios[0], ratios[-1])
        axes.set_title(f"{solver}, {signs} signs", fontsize=10)
        axes.set_yticks(heights[:: -(-len(heights) // 10)])
    fixed = f"p = {config['dims'][0]}" if by_rank else f"r = {config['ranks'][0]}"
    for axes in grid[-1]:
        axes.set_xlabel("samples / unknowns, m / dof")
    for row in grid:
        row[0].set_ylabel("neurons r" if by_rank else "inputs p")
    grid[0, 0].legend(fontsize=8, loc="upper right", facecolor="0.35", labelcolor="white")
    bar = figure.colorbar(mesh, ax=grid, shrink=0.9)
    bar.set_label(f"share of {config['trials']} problems solved")
    figure.suptitle(f"{fixed}, orthonormal factor; white contour: half solved", fontsize=10)
    figures.save(figure, folder, "phase-transition")


def table(saved: xr.Dataset) -> str:
    """Return the half-way points, and how the runs ended that found nothing."""
    config = saved.attrs["provenance"]["config"]
    by = "r" if len(config["ranks"]) > 1 else "p"
    text = [
        f"{saved.sizes['cell'] * saved.sizes['trial']} problems; m / dof from which on half of "
        f"{config['trials']} are solved (95 % interval of one point: up to "
        f"+-{_widest(config['trials']):.2f})",
        f"{'solver':<22}{'signs':<10}" + "".join(f"{by}={h:<6}" for h in lines(saved)[0][2]),
    ]
    for solver, signs, _, ratios, share in lines(saved):
        points = "".join(f"{half_way(ratios, row):<8.2f}" for row in share)
        text.append(f"{solver:<22}{signs:<10}{points}")
    return "\n".join(text)


def _widest(trials: int) -> float:
    low, high = figures.wilson_interval(trials // 2, trials)
    return (high - low) / 2
