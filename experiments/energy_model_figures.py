"""The figures of the energy model, drawn from its saved results only."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.figures import STYLES

ESTIMATORS: dict[str, dict[str, str]] = {
    "jaxpoly": STYLES["recover"],
    "whitened STC": {"color": "#56B4E9", "linestyle": "--", "marker": "s"},
    "STC": {"color": "#D55E00", "linestyle": ":", "marker": "^"},
}
FILTERS = ("excitatory 1", "excitatory 2", "suppressive")
NOISE = {"poisson": "Poisson spike counts", "gaussian": "Gaussian noise"}


def plot_filters(saved: dict[str, Any]) -> Figure:
    """Draw the true filters above those of every estimator, of unit norm, as images."""
    kinds = list(saved["stimuli"])
    truth = np.asarray(saved["truth"])
    limit = 1.1 * np.abs(truth).max()
    estimators = list(saved["stimuli"][kinds[0]]["estimators"])
    figure = plt.figure(figsize=(7.6, 6.0), layout="constrained")
    figure.suptitle(
        f"Filters of an energy-model cell from {saved['sample_sizes'][-1]} stimuli, "
        f"{NOISE[saved['noise']]}\n"
        "Excitatory filters are rotated within their plane to fit the truth: data tell the plane "
        "only.\nBelow each: cosine with the truth. Purple is positive, orange negative. "
        "STC: spike-triggered covariance.",
        fontsize=9,
    )
    parts = figure.subfigures(1, len(kinds), squeeze=False)
    for part, kind in zip(parts[0], kinds, strict=True):
        part.suptitle(f"{kind} stimuli", fontsize=10)
        grid = part.subplots(1 + len(estimators), len(FILTERS))
        rows = saved["stimuli"][kind]["estimators"]
        for line, name in enumerate(("truth", *estimators)):
            grid[line, 0].set_ylabel(name, fontsize=9)
            for column, axes in enumerate(grid[line]):
                image = truth[column] if line == 0 else np.asarray(rows[name]["filters"][column])
                axes.imshow(image, cmap="PuOr", vmin=-limit, vmax=limit)
                axes.set_xticks([])
                axes.set_yticks([])
                if line > 0:
                    cosine = rows[name]["cosines"][column]
                    axes.set_xlabel(f"{cosine:.2f}", fontsize=8, labelpad=2)
        for axes, title in zip(grid[0], FILTERS, strict=True):
            axes.set_title(title, fontsize=8)
    return figure


def plot_errors(saved: dict[str, Any]) -> Figure:
    """Draw the angle to the true filters against the number of stimuli, median and range."""
    sizes = saved["sample_sizes"]
    figure, panels = plt.subplots(
        1, len(saved["stimuli"]), figsize=(7.6, 3.6), sharey=True, layout="constrained"
    )
    for axes, (kind, part) in zip(panels, saved["stimuli"].items(), strict=True):
        for name, row in part["estimators"].items():
            angles = np.array(row["angle_degrees"], float)
            style = ESTIMATORS[name]
            low, high = angles.min(axis=0), angles.max(axis=0)
            axes.fill_between(sizes, low, high, color=style["color"], alpha=0.15, lw=0)
            axes.plot(sizes, np.median(angles, axis=0), **style, lw=2, label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size}" for size in sizes], fontsize=8)
        axes.set_ylim(0, 92)
        axes.set_yticks(range(0, 91, 15))
        axes.set_xlabel("number of stimuli m")
        axes.set_title(f"{kind} stimuli", fontsize=10)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("largest principal angle\nto the three true filters (degrees)")
    panels[0].legend(fontsize=9)
    repeats = len(next(iter(part["estimators"].values()))["angle_degrees"])
    figure.suptitle(
        f"Energy-model cell, {NOISE[saved['noise']]}: median and range of {repeats} experiments",
        fontsize=10,
    )
    return figure
