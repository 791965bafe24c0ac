"""Figure 2018: the three panels of the paper's only figure, with its published numbers.

Soltani and Hegde, AISTATS 2018: (a) success against the number of samples, (b) loss against
the iteration, (c) error against time at p = 1000.  All with the paper's unit step and trace
correction, beside this kit's defaults.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from experiments import convergence, figures, running_time
from experiments.convergence import Config as ConvergenceConfig
from experiments.problems import Cell
from experiments.running_time import Config as RunningTimeConfig
from experiments.session import Session
from experiments.sweep import sweep

# Success rates of panel (a) as published, by number of samples; p = 100, r = 5.
PUBLISHED = {
    "EP-ROM": {3500: 0.0, 5000: 0.0, 6500: 0.40, 8000: 1.0},
    "AP-ROM": {3500: 0.0, 5000: 0.0, 6500: 0.20, 8000: 0.98},
    "gFM": {3500: 0.0, 5000: 0.0, 6500: 0.66, 8000: 1.0},
    "convex": {3500: 0.24, 5000: 0.78, 6500: 1.0, 8000: 1.0},
}
PUBLISHED_TRIALS = 50
SUCCESS = 0.05


@dataclass(frozen=True)
class Config:
    """Panel (a); panels (b) and (c) are experiments of their own."""

    dim: int = 100
    """Inputs p of panel (a)."""
    rank: int = 5
    """Neurons r of panel (a)."""
    samples: tuple[int, ...] = (3500, 5000, 6500, 8000)
    """Samples m for the paper's setting."""
    paper_solvers: tuple[str, ...] = ("EP-ROM, paper", "AP-ROM, paper, Krylov head")
    """Names of solvers in the paper's setting, see experiments/problems.py."""
    fewer_samples: tuple[int, ...] = (600, 740, 980, 1470)
    """Samples m for the kit's defaults."""
    solvers: tuple[str, ...] = ("EP-ROM", "AP-ROM", "factored descent", "Gauss-Newton")
    """Names of the kit's defaults."""
    trials: int = 50
    """Problems a point."""
    seed: int = 0
    """Seed of everything random."""
    convergence: ConvergenceConfig = convergence.PRESETS["paper"]
    """Panel (b)."""
    running_time: RunningTimeConfig = running_time.PRESETS["paper"]
    """Panel (c)."""


PRESETS = {
    "smoke": Config(
        dim=6,
        rank=1,
        samples=(150, 190),
        paper_solvers=("EP-ROM, paper",),
        fewer_samples=(15, 40),
        solvers=("Gauss-Newton",),
        trials=6,
        convergence=convergence.PRESETS["smoke"],
        running_time=running_time.PRESETS["smoke"],
    ),
    "paper": Config(),
    "full": replace(Config(), trials=500),
}


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return the three panels."""
    session = session or Session()
    kinds = [(solver, m, 300, 1e-3) for solver in config.paper_solvers for m in config.samples]
    kinds += [(solver, m, 500, 1e-6) for solver in config.solvers for m in config.fewer_samples]
    cells = [
        Cell(solver, config.dim, config.rank, m, "positive", max_steps=steps, rtol=rtol)
        for solver, m, steps, rtol in kinds
    ]
    found = sweep("figure-2018", cells, config.trials, config.seed, session)
    wins = (found.spectral_error < SUCCESS).sum("trial").values
    rows = [
        {"solver": cell.solver, "num_samples": cell.num_samples, "wins": int(count)}
        for cell, count in zip(cells, wins, strict=True)
    ]
    return {
        "phase_transition": {"rows": rows, "published": PUBLISHED},
        "convergence": convergence.run(config.convergence, session),
        "running_time": running_time.run(config.running_time, session),
    }


def draw_phase_transition(axes: Axes, saved: dict[str, Any]) -> None:
    """Draw panel (a): ours as lines with bands, the published rates as hollow markers."""
    config = saved["provenance"]["config"]
    part = saved["phase_transition"]
    for solver in config["paper_solvers"]:
        name = solver.split(",")[0]
        across, rates = curve(saved, solver)
        figures.plot_rates(axes, across, rates, config["trials"], name, label=f"{name}, paper")
        published = part["published"][name]
        style = figures.style(name) | {"linestyle": "none", "fillstyle": "none", "ms": 10}
        samples = [int(m) for m in published]
        axes.plot(samples, list(published.values()), label=f"{name}, published", **style)
    across, rates = curve(saved, "Gauss-Newton")
    figures.plot_rates(axes, across, rates, config["trials"], "Gauss-Newton")
    axes.set_xscale("log")
    ticks = [m for m in (500, 1000, 2000, 4000, 8000) if min(across) <= 2 * m]
    axes.set_xticks(ticks, [str(m) for m in ticks])
    axes.minorticks_off()
    axes.set_xlabel("samples m")
    axes.set_ylabel(f"share of {config['trials']} problems solved")
    axes.set_title(f"(a) p = {config['dim']}, r = {config['rank']}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def curve(saved: dict[str, Any], solver: str) -> tuple[list[int], list[float]]:
    """Return samples and success rates of a solver."""
    trials = saved["provenance"]["config"]["trials"]
    rows = [row for row in saved["phase_transition"]["rows"] if row["solver"] == solver]
    return [row["num_samples"] for row in rows], [row["wins"] / trials for row in rows]


def inner(saved: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the results of panel (b) or (c) as those of its own experiment."""
    provenance = saved["provenance"]
    config = provenance["config"][name]
    return saved[name] | {"provenance": provenance | {"config": config}}


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw the three panels side by side."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 4.0), layout="constrained")
    draw_phase_transition(left, saved)
    convergence.draw_loss(middle, inner(saved, "convergence"))
    middle.set_title(f"(b) {middle.get_title()}", fontsize=10)
    running_time.draw_error(right, inner(saved, "running_time"))
    right.set_title(f"(c) {right.get_title()}", fontsize=10)
    figures.save(figure, folder, "figure-2018")


def table(saved: dict[str, Any]) -> str:
    """Return the numbers of the three panels beside the published ones."""
    config = saved["provenance"]["config"]
    published = saved["phase_transition"]["published"]
    text = [
        f"(a) share of {config['trials']} problems solved (relative spectral error below "
        f"{SUCCESS}) with its 95 % interval",
        f"{'solver':<30}{'m':>6}{'share':>8}   {'interval':<14}published",
    ]
    for row in saved["phase_transition"]["rows"]:
        low, high = figures.wilson_interval(row["wins"], config["trials"])
        solver, m = row["solver"], row["num_samples"]
        there = published.get(solver.split(",")[0], {}).get(str(m), "") if "," in solver else ""
        text.append(
            f"{solver:<30}{m:>6}{row['wins'] / config['trials']:>8.2f}   "
            f"{f'{low:.2f} to {high:.2f}':<14}{there}"
        )
    parts = (
        convergence.table(inner(saved, "convergence")),
        running_time.table(inner(saved, "running_time")),
    )
    return "\n".join(text) + "\n\n(b) " + parts[0] + "\n\n(c) " + parts[1]
