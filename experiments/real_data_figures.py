"""The figure of the real data, drawn from the saved results only."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.figures import STYLES

# The network is fitted by `recover`.
NETWORK = {"color": STYLES["recover"]["color"], "marker": STYLES["recover"]["marker"]}
OTHERS = {"color": "#0072B2", "marker": "o", "markerfacecolor": "white"}


def plot_scores(data_sets: dict[str, Any], num_columns: int = 4) -> Figure:
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
        for position, (model, row) in enumerate(rows.items()):
            style = NETWORK if model == "quadratic network" else OTHERS
            axes.errorbar(row["score"], position, xerr=row["standard_error"], **style, ms=5)
        axes.set_yticks(np.arange(len(rows)), list(rows))
        axes.set_title(f"{name} ({table['num_rows']} x {table['num_inputs']})", fontsize=9)
        axes.set_xlabel("R$^2$" if table["task"] == "regression" else "accuracy", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", alpha=0.3)
    grid[0, 0].invert_yaxis()
    return figure
