"""The figure of the limits, drawn from the saved results only."""

from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.figures import STYLES, wilson_interval


def plot_curves(saved: dict[str, Any]) -> Figure:
    """Draw success against m / dof for every method, one panel for each kind of signs."""
    trials = saved["trials"]
    figure, panels = plt.subplots(
        1, 2, figsize=(9.6, 4.0), sharey=True, layout="constrained", squeeze=False
    )
    for axes, (signs, methods) in zip(panels[0], saved["curves"].items(), strict=True):
        for name, points in methods.items():
            ratios = [point["ratio"] for point in points]
            rates = [point["rate"] for point in points]
            bands = [wilson_interval(round(rate * trials), trials) for rate in rates]
            low, high = zip(*bands, strict=True)
            style = STYLES[name]
            axes.fill_between(ratios, low, high, color=style["color"], alpha=0.1, lw=0)
            axes.plot(ratios, rates, **style, ms=5, label=name)
        axes.axvline(1, color="0.5", lw=1)
        axes.set_xscale("log")
        axes.set_ylim(-0.03, 1.03)
        ticks = [1, 1.2, 1.5, 2, 3, 4]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("samples / unknowns, m / dof")
        axes.set_title(f"{signs} signs", fontsize=10)
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel(f"share of {trials} problems solved")
    panels[0, 1].legend(fontsize=8, loc="lower right")
    figure.suptitle(
        f"p = {saved['dim']}, r = {saved['rank']}, orthonormal factor; bands: 95 % intervals",
        fontsize=10,
    )
    return figure
