"""The figures of the benchmark, drawn from the saved results only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments import benchmark_goal, benchmark_growth, benchmark_kernels
from experiments.figures import STYLES, save

FORMS: dict[str, dict[str, Any]] = {
    "kit": {"color": "#000000", "marker": "o", "label": "jaxpoly"},
    "jax": {"color": "#D55E00", "marker": "v", "label": "two products in JAX"},
    "numpy": {"color": "#0072B2", "marker": "^", "label": "numpy, the best of several"},
}
ONE_READ: dict[str, Any] = {"color": "0.5", "linestyle": "--", "marker": ""}


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw a figure for each part that has one."""
    plots: dict[str, Callable[[Any], Figure]] = {
        "kernels": plot_kernels,
        "peers": plot_peers,
        "growth": plot_growth,
        "devices": plot_devices,
    }
    for part, plot in plots.items():
        if part in saved:
            save(plot(saved[part]), folder, f"benchmark-{part}")


def plot_kernels(rows: list[dict[str, Any]]) -> Figure:
    """Draw the seconds of the factored gradient over those of one read, a panel a dtype."""
    found = [benchmark_kernels.summary(row) for row in rows]
    dtypes = list(dict.fromkeys(one["size"].dtype for one in found))
    height = 1.4 + 0.27 * len(found) / len(dtypes)
    figure, panels = plt.subplots(
        1,
        len(dtypes),
        figsize=(9.6, height),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for axes, dtype in zip(panels[0], dtypes, strict=True):
        chosen = [one for one in found if one["size"].dtype == dtype]
        places = np.arange(len(chosen))
        for form, look in FORMS.items():
            ratios = [one["reads"][form] for one in chosen]
            axes.plot(ratios, places, linestyle="none", ms=6, alpha=0.85, **look)
        axes.axvline(1, **ONE_READ)
        axes.set_yticks(places, [_title(one["size"]) for one in chosen], fontsize=8)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.margins(y=0.08)
        axes.set_xlabel("seconds / seconds of one read of X")
        axes.set_title(dtype, fontsize=10)
        axes.grid(alpha=0.3)
    panels[0, 0].invert_yaxis()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _title(size: benchmark_kernels.Size) -> str:
    count = "" if size.batch == 1 else f"{size.batch} of "
    return f"{count}{size.num_samples} x {size.dim}, r = {size.rank}"


def plot_peers(rows: list[dict[str, Any]]) -> Figure:
    """Draw the seconds to the goal of every method, a panel a case."""
    columns = min(2, len(rows))
    lines = -(-len(rows) // columns)
    size = 5.25 * columns, 0.4 + 2.9 * lines
    figure, panels = plt.subplots(lines, columns, figsize=size, layout="constrained", squeeze=False)
    for axes, row in zip(panels.flat, rows, strict=False):
        _draw_case(axes, row)
    for axes in panels.flat[len(rows) :]:
        axes.remove()
    return figure


def _draw_case(axes: Axes, row: dict[str, Any]) -> None:
    case, count = benchmark_goal.Case(**row["case"]), len(row["problems"])
    methods = benchmark_goal.summary(row)["methods"]
    known = [line["seconds"] for line in methods.values() if line["seconds"]] or [1.0]
    for place, line in enumerate(methods.values()):
        name = list(methods)[place]
        if line["seconds"] is None:
            axes.text(min(known) / 1.8, place, f" {line['reason']}", va="center", fontsize=7)
            continue
        look = (
            {"color": STYLES[name]["color"]} if line["is_kit"] else {"color": "0.7", "hatch": "//"}
        )
        bar = axes.barh(place, line["seconds"], edgecolor="white", **look)
        share = "" if line["reached"] == count else f", {line['reached']} of {count} problems"
        axes.bar_label(bar, [f"{_duration(line['seconds'])}{share}"], padding=3, fontsize=7)
    axes.set_yticks(range(len(methods)), list(methods), fontsize=8)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())  # Within a decade they would overlap.
    axes.set_xlim(min(known) / 2, 8 * max(known))
    axes.set_xlabel(f"seconds to a relative error of {row['goal']:g}, compiled")
    axes.set_title(
        f"p = {case.dim}, r = {case.rank}, m = {case.num_samples}, {case.signs} signs", fontsize=10
    )
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _duration(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def plot_growth(saved: dict[str, list[dict[str, Any]]]) -> Figure:
    """Draw seconds and temporary memory of a step against m, p and r, with the exponents."""
    labels = {"seconds": "seconds a step", "temporary_bytes": "temporary bytes of a step"}
    figure, panels = plt.subplots(
        len(labels),
        len(saved),
        figsize=(11.5, 6.6),
        sharey="row",
        layout="constrained",
        squeeze=False,
    )
    for line, (what, label) in zip(panels, labels.items(), strict=True):
        line[0].set_ylabel(label)
        for axes, (axis, rows) in zip(line, saved.items(), strict=True):
            _draw_growth(axes, axis, rows, what)
    return figure


def _draw_growth(axes: Axes, axis: str, rows: list[dict[str, Any]], what: str) -> None:
    letter = axis.split()[1]
    for name in ("one read", *benchmark_growth.SOLVERS):
        sizes, values = benchmark_growth.curve(rows, axis, name, what)
        if not sizes:
            continue
        slope = benchmark_growth.exponent(sizes, values)
        label = name if slope is None else f"{name}: ${letter}^{{{slope:.2f}}}$"
        axes.plot(sizes, values, label=label, **STYLES.get(name, ONE_READ))
    axes.set(xscale="log", yscale="log", xlabel=axis)
    fixed = (
        f"{other.split()[1]} = {rows[0][field]}"
        for other, field in benchmark_growth.AXES.items()
        if other != axis
    )
    axes.set_title(", ".join(fixed), fontsize=9)
    ticks = [row[benchmark_growth.AXES[axis]] for row in rows]
    axes.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def plot_devices(saved: dict[str, list[dict[str, Any]]]) -> Figure:
    """Draw the seconds of a step against the number of devices, and what would be ideal."""
    figure, panels = plt.subplots(
        1, len(saved), figsize=(9.6, 3.8), sharey=True, layout="constrained", squeeze=False
    )
    for axes, (kind, rows) in zip(panels[0], saved.items(), strict=True):
        counts = np.array([row["devices"] for row in rows])
        names = list(rows[0]["seconds"])
        for name in names:
            seconds = [row["seconds"][name] for row in rows]
            axes.plot(counts, seconds, label=name, **STYLES[name])
            ideal = seconds[0] * (counts[0] / counts if kind == "strong" else np.ones(len(counts)))
            label = "ideal" if name == names[-1] else None
            axes.plot(counts, ideal, color="0.5", lw=1, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel(f"devices, {rows[0]['kind']}")
        samples = "m" if kind == "strong" else "m / devices"
        number = rows[0]["num_samples"] // (1 if kind == "strong" else counts[0])
        axes.set_title(f"{kind} scaling, {samples} = {number}, p = {rows[0]['dim']}", fontsize=10)
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel("seconds a step")
    panels[0, 0].legend(fontsize=8)
    return figure
