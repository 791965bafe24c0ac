"""The figures of the quickstart, drawn from its saved results only."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Okabe and Ito's colours are told apart by the colour-blind; the dashes by everyone else.
LINES = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", ":"))


def plot_convergence(planted: dict[str, Any], path: Path) -> None:
    """Draw the relative error of every solver against its step."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for (name, row), (colour, dashes) in zip(planted["solvers"].items(), LINES, strict=True):
        steps = np.arange(1, len(row["errors"]) + 1)
        milliseconds = 1e3 * row["run_seconds"] / row["steps"]
        label = f"{name} ({milliseconds:.1f} ms per step)"
        axes.semilogy(steps, row["errors"], color=colour, linestyle=dashes, lw=2, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel(r"relative error $\|L - L^*\|_F \, / \, \|L^*\|_F$")
    axes.set_title(
        f"One planted network: p = {planted['dim']}, r = {planted['rank']}, mixed signs, "
        f"m = {planted['num_samples']}",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_neurons(digits: dict[str, Any], path: Path, count: int = 3) -> None:
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
    figure.savefig(path, dpi=150)
    plt.close(figure)
