"""The figure of the limits, drawn from the saved results only."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from experiments.recovery import wilson_interval

# Okabe and Ito's colours, and markers and dashes for grey and for the colour-blind.
STYLES = {
    "recover": ("#000000", "-", "o"),
    "Gauss-Newton": ("#D55E00", "--", "s"),
    "EP-ROM": ("#0072B2", "-.", "^"),
    "AP-ROM": ("#56B4E9", ":", "v"),
    "factored descent": ("#009E73", "--", "D"),
    "L-BFGS, spectral start": ("#CC79A7", ":", "x"),
}


def plot_curves(saved: dict[str, Any], path: Path) -> None:
    """Draw success against m / dof for every method, one panel for each kind of signs."""
    config = saved["provenance"]["config"]
    figure, panels = plt.subplots(
        1, 2, figsize=(9.6, 4.0), sharey=True, layout="constrained", squeeze=False
    )
    for axes, (signs, methods) in zip(panels[0], saved["curves"].items(), strict=True):
        for name, (colour, dashes, marker) in STYLES.items():
            ratios = [point["ratio"] for point in methods[name]]
            rates = [point["rate"] for point in methods[name]]
            bands = [
                wilson_interval(round(rate * config["trials"]), config["trials"]) for rate in rates
            ]
            low, high = zip(*bands, strict=True)
            axes.fill_between(ratios, low, high, color=colour, alpha=0.1, lw=0)
            axes.plot(
                ratios, rates, color=colour, linestyle=dashes, marker=marker, ms=5, label=name
            )
        axes.axvline(1, color="0.5", lw=1)
        axes.set_xscale("log")
        ticks = [1, 1.2, 1.5, 2, 3, 4]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("samples / unknowns, m / dof")
        axes.set_title(f"{signs} signs", fontsize=10)
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel(f"share of {config['trials']} problems solved")
    panels[0, 1].legend(fontsize=8, loc="lower right")
    figure.suptitle(
        f"p = {config['dim']}, r = {config['rank']}, orthonormal factor; bands: 95 % intervals",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)
