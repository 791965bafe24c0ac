"""The figures of the running time, drawn from its saved results only."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from experiments import figures
from experiments.convergence_figures import style_of

# Those of the published methods that are not among the solvers.
OTHERS: dict[str, dict[str, Any]] = {
    "gFM": {"color": "0.4", "marker": "P"},
    "convex": {"color": "0.4", "marker": "X"},
}
# What tells more than two settings of one method apart.
VARIANTS: dict[str, dict[str, Any]] = {
    "AP-ROM, paper, Krylov head": {"linestyle": "-.", "marker": "<"},
    "AP-ROM, paper, one-sided head": {"linestyle": ":", "marker": ">"},
}


def draw_error(axes: Axes, saved: dict[str, Any], seconds: bool = False) -> None:
    """Draw the error at the largest p by step or by seconds, and where the published runs ended."""
    panel = saved["sizes"][-1]
    for name, row in panel["solvers"].items():
        errors = np.asarray(row["errors"], float)
        across = row["elapsed"] if seconds else np.arange(len(errors))
        label = f"{name}, {row['total_seconds']:.2g} s"
        axes.plot(across, errors, label=label, **_style(name))
        if is_asymmetric(row):
            symmetric = np.asarray(row["symmetric_errors"], float)
            label = "the same, symmetric part alone"
            axes.plot(across, symmetric, color="0.4", ls=":", lw=1, label=label)
    for name, row in saved["published"].items():
        if row["log10_error"] is None:
            if seconds:
                axes.axvline(row["seconds"], color="0.4", ls=":", lw=1)
                where, offset = (row["seconds"], 1e-6), (-3, 0)
                axes.annotate(
                    f"{name}, published, {row['seconds']} s",
                    where,
                    xytext=offset,
                    textcoords="offset points",
                    rotation=90,
                    ha="right",
                    va="center",
                    fontsize=7,
                )
            continue
        style = _published(name)
        across, error = (
            row["seconds"] if seconds else saved["published_steps"],
            10 ** row["log10_error"],
        )
        label = f"{name}, published, {row['seconds']} s"
        axes.plot([across], [error], label=label, clip_on=False, zorder=5, **style)
    axes.set_yscale("log")
    axes.set_ylim(1e-10, 3)
    axes.set_ylabel(r"relative error $\|L - L^*\|_F \, / \, \|L^*\|_F$")
    axes.set_xlabel("seconds, without compilation" if seconds else "step")
    if seconds:
        axes.set_xscale("log")
    axes.set_title(
        f"p = {panel['dim']}, r = {saved['rank']}, m = {panel['num_samples']}, no noise",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6.5, loc="lower right", markerscale=0.7)


def is_asymmetric(row: dict[str, Any]) -> bool:
    """Tell whether a run ended at an L with a part that the data do not see."""
    whole, symmetric = row["errors"][-1], row["symmetric_errors"][-1]
    return None not in (whole, symmetric) and symmetric < 0.9 * whole


def draw_cost(axes: Axes, saved: dict[str, Any]) -> None:
    """Draw seconds a step against p, with the fitted exponents in the legend."""
    for name, slope in saved["exponents"].items():
        dims = [size["dim"] for size in saved["sizes"]]
        seconds = [size["solvers"][name]["step_seconds"] for size in saved["sizes"]]
        axes.plot(dims, seconds, label=f"{name}: $p^{{{slope:.2f}}}$", **_style(name))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(dims, [str(dim) for dim in dims])
    axes.minorticks_off()
    ratio = saved["sizes"][-1]["num_samples"] / (dims[-1] * saved["rank"])
    axes.set_xlabel(f"inputs p, with r = {saved['rank']} and m = {ratio:g} p r samples")
    axes.set_ylabel("seconds a step")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw the error by step and by seconds, and the cost of a step."""
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.8), sharey=True, layout="constrained")
    for axes, seconds in zip(panels, (False, True), strict=True):
        draw_error(axes, saved, seconds)
    panels[1].get_legend().remove()
    panels[1].set(title="", ylabel="")
    figures.save(figure, folder, "running-time-error")
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    draw_cost(axes, saved)
    figures.save(figure, folder, "running-time-cost")


def _style(name: str) -> dict[str, Any]:
    return style_of(name) | VARIANTS.get(name, {})


def _published(name: str) -> dict[str, Any]:
    style = OTHERS.get(name) or figures.style(name)
    return style | {"linestyle": "none", "fillstyle": "none", "ms": 11, "mew": 1.5}
