"""What all figures share: colours that the colour-blind tell apart, bands, PNG and SVG."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import ArrayLike

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results import replace_file

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


def style(name: str) -> dict[str, Any]:
    """Return the style of a method; of a variant, such as "EP-ROM, paper", that of the method."""
    plain = {"color": "0.4", "linestyle": "-", "marker": "P"}
    known = STYLES.get(name.split(",")[0], plain)
    return known if name in STYLES else known | {"fillstyle": "none", "lw": 1}


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name.png` and `name.svg`, and close the figure."""
    # Without these the SVG of the same data would differ from run to run.
    with matplotlib.rc_context({"svg.hashsalt": "jaxpoly"}):
        draw = partial(figure.savefig, format="svg", metadata={"Date": None})
        replace_file(folder / f"{name}.svg", draw)
    replace_file(folder / f"{name}.png", partial(figure.savefig, format="png", dpi=150))
    plt.close(figure)


def plot_rates(
    axes: Axes, across: ArrayLike, rates: ArrayLike, trials: int, name: str, label: str = ""
) -> None:
    """Draw the success rates of a method, in its style, with their 95 % bands."""
    look = style(name)
    wins = np.round(np.asarray(rates) * trials).astype(int)
    bands = [wilson_interval(count, trials) for count in wins.tolist()]
    low, high = zip(*bands, strict=True)
    axes.fill_between(across, low, high, color=look["color"], alpha=0.12, lw=0)
    axes.plot(across, rates, label=label or name, ms=5, **look)


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
