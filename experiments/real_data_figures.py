"""The figure of the real data, drawn from the saved results only."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def plot_scores(data_sets: dict[str, Any], path: Path, num_columns: int = 4) -> None:
    """Draw the score of every model with its standard error, a panel a data set."""
    num_columns = min(num_columns, len(data_sets))
    num_rows = -(-len(data_sets) // num_columns)
    figure, grid = plt.subplots(
        num_rows,
        num_columns,
        figsize=(2.3 * num_columns + 2, 2.2 * num_rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[len(data_sets) :]:
        axes.set_visible(False)
    for axes, (name, table) in zip(grid.flat, data_sets.items(), strict=False):
        rows = table["models"]
        positions = np.arange(len(rows))
        scores = [row["score"] for row in rows.values()]
        errors = [row["standard_error"] for row in rows.values()]
        colours = ["#D55E00" if model.startswith("quadratic") else "#0072B2" for model in rows]
        axes.hlines(positions, np.subtract(scores, errors), np.add(scores, errors), colours)
        axes.scatter(scores, positions, c=colours, s=25)
        axes.set_yticks(positions, list(rows))
        axes.set_title(f"{name} ({table['num_rows']} x {table['num_inputs']})", fontsize=9)
        axes.set_xlabel("R$^2$" if table["task"] == "regression" else "accuracy", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", alpha=0.3)
    grid[0, 0].invert_yaxis()
    figure.savefig(path, dpi=150)
    plt.close(figure)
