"""What all figures share: colours that the colour-blind tell apart, bands, PNG and SVG."""

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import ArrayLike

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours; dashes and markers for grey.  One style a method, in every figure.
STYLES: dict[str, dict[str, Any]] = {
    name: {"color": colour, "linestyle": dashes, "marker": marker}
    for name, colour, dashes, marker in (
        ("EP-ROM", "#0072B2", "-", "^"),
        ("AP-ROM", "#D55E00", "--", "v"),
        ("factored descent", "#009E73", ":", "D"),
        ("Gauss-Newton", "#CC79A7", "-.", "s"),
        ("recover", "#000000", "-", "o"),
        ("L-BFGS, spectral start", "#E69F00", ":", "x"),
    )
}


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name.png` and `name.svg`, and close the figure."""
    # Without these the SVG of the same data would differ from run to run.
    with matplotlib.rc_context({"svg.hashsalt": "jaxpoly"}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=150)
    plt.close(figure)


def plot_rates(
    axes: Axes, across: ArrayLike, rates: ArrayLike, trials: int, name: str, label: str = ""
) -> None:
    """Draw the success rates of a method, in its style, with their 95 % bands."""
    style = STYLES[name]
    wins = np.round(np.asarray(rates) * trials).astype(int)
    bands = [wilson_interval(count, trials) for count in wins.tolist()]
    low, high = zip(*bands, strict=True)
    axes.fill_between(across, low, high, color=style["color"], alpha=0.12, lw=0)
    axes.plot(across, rates, label=label or name, ms=5, **style)


def wilson_interval(wins: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a success rate.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    z, rate = 1.96, wins / trials
    centre = rate + z**2 / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
