"""The figures of the convergence experiment, drawn from its saved results only."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from experiments import figures


def style_of(name: str) -> dict[str, Any]:
    """Return the style of a curve; variants of a method are thin, with open markers."""
    method, _, variant = name.partition(",")
    opened = {"lw": 1.0, "markerfacecolor": "white"} if variant else {"lw": 1.8}
    return figures.style(method) | {"ms": 5} | opened


def draw_loss(axes: Axes, saved: dict[str, Any], seconds: bool = False) -> None:
    """Draw the loss on the noisy problem by step or by seconds, over that of the noise."""
    noisy = saved["noisy"]
    for name, row in noisy["solvers"].items():
        label = f"{name}: floor at step {row['floor_step']}"
        _draw_curve(axes, name, row, row["losses"], seconds, every=10, label=label)
    axes.axhline(noisy["noise_loss"], color="0.4", lw=1, zorder=0)
    axes.annotate(
        r"noise alone, $\sigma^2 / 2$",
        (0.02, noisy["noise_loss"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, -4),
        textcoords="offset points",
        va="top",
        fontsize=8,
    )
    axes.set_ylabel(r"loss $\mathrm{E}\,(A(L) - y)^2 / 2$, squared units of $y$")
    axes.set_title(
        f"p = {saved['dim']}, r = {saved['rank']}, m = {noisy['num_samples']}, "
        f"noise of sd {noisy['noise']:g}",
        fontsize=10,
    )
    _finish(axes, seconds)
    axes.set_ylim(bottom=noisy["noise_loss"] / 4)
    axes.legend(fontsize=8)


def draw_error(axes: Axes, saved: dict[str, Any], seconds: bool = False) -> None:
    """Draw the error without noise by step or by seconds, with its rate in the legend."""
    exact = saved["exact"]
    for name, row in exact["solvers"].items():
        label = f"{name}: {rate_of(row)}"
        for errors in [] if seconds else row["errors"][1:]:
            axes.plot(_numbers(errors), color=figures.style(name)["color"], lw=0.5, alpha=0.4)
        _draw_curve(axes, name, row, row["errors"][0], seconds, every=25, label=label)
    axes.set_ylabel(r"relative error $\|L - L^*\|_F \, / \, \|L^*\|_F$")
    axes.set_title(
        f"p = {saved['dim']}, r = {saved['rank']}, mixed signs, m = {exact['num_samples']}, "
        "no noise",
        fontsize=10,
    )
    _finish(axes, seconds)
    axes.legend(fontsize=8, loc="upper right", title="slope a step of log10(error)")


def rate_of(row: dict[str, Any]) -> str:
    """Return the rate of a solver as text: range of the slopes, worst R^2."""
    if row["order"] == "quadratic":
        return "quadratic"
    fits = [fit for fit in row["fits"] if fit]
    if not fits:
        return "no straight line"
    slopes = [fit["slope"] for fit in fits]
    ends = dict.fromkeys(f"{end:.3f}" for end in (max(slopes), min(slopes)))
    worst = min(fit["r_squared"] for fit in fits)
    return f"{' to '.join(ends)}, $R^2 \\geq${math.floor(1e4 * worst) / 1e4}"


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw loss and error, each by step and by seconds."""
    for draw_panel, name in ((draw_loss, "convergence-loss"), (draw_error, "convergence-error")):
        figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.2), sharey=True, layout="constrained")
        for axes, seconds in zip(panels, (False, True), strict=True):
            draw_panel(axes, saved, seconds)
        panels[1].get_legend().remove()
        panels[1].set(title="", ylabel="")
        figures.save(figure, folder, name)


def _draw_curve(
    axes: Axes,
    name: str,
    row: dict[str, Any],
    values: list[float],
    seconds: bool,
    every: int,
    label: str,
) -> None:
    """Draw one curve from the start on."""
    steps = np.arange(len(values))
    across = row["start_seconds"] + row["step_seconds"] * steps if seconds else steps
    marked = 1 if len(values) < 2 * every else every
    axes.plot(across, _numbers(values), markevery=marked, label=label, **style_of(name))


def _numbers(values: list[float]) -> np.ndarray:
    """Return values with NaN where the file has none, after a divergence."""
    return np.asarray(values, float)


def _finish(axes: Axes, seconds: bool) -> None:
    axes.set_yscale("log")
    if seconds:
        axes.set_xscale("log")
    axes.set_xlabel("seconds, without compilation" if seconds else "step")
    axes.grid(alpha=0.3)
