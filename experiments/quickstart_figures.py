"""The figures of the quickstart, drawn from its saved results only."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.figures import STYLES


def plot_convergence(planted: dict[str, Any]) -> Figure:
    """Draw the relative error of every solver against its step."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name, row in planted["solvers"].items():
        errors = np.array(row["errors"], float)
        steps = np.arange(1, len(errors) + 1)
        milliseconds = 1e3 * row["run_seconds"] / row["steps"]
        label = f"{name} ({milliseconds:.2g} ms per step)"
        every = max(1, len(errors) // 10)
        axes.semilogy(steps, errors, **STYLES[name], markevery=every, lw=2, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel(r"relative error $\|L - L^*\|_F \, / \, \|L^*\|_F$")
    axes.set_title(
        f"One planted network: p = {planted['dim']}, r = {planted['rank']}, mixed signs, "
        f"m = {planted['num_samples']}",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def plot_neurons(digits: dict[str, Any], count: int = 3) -> Figure:
    """Draw the strongest neurons of every digit as 8 x 8 images."""
    patterns, weights = np.asarray(digits["patterns"]), np.asarray(digits["output_weights"])
    count = min(count, weights.shape[1])
    figure, grid = plt.subplots(
        count, 10, figsize=(9, 1.05 * count + 0.7), layout="constrained", squeeze=False
    )
    for digit in range(10):
        for neuron in range(count):
            axes = grid[neuron, digit]
            image = patterns[digit, neuron]
            limit = np.abs(image).max()
            axes.imshow(image, cmap="PuOr", vmin=-limit, vmax=limit)
            axes.set_xlabel(f"{weights[digit, neuron]:+.2f}", fontsize=8, labelpad=2)
            axes.set_xticks([])
            axes.set_yticks([])
        grid[0, digit].set_title(f"digit {digit}", fontsize=9)
    figure.suptitle(
        "Patterns that drive the strongest neurons (below: output weight $a_j$)", fontsize=10
    )
    return figure
