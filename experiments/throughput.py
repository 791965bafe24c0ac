"""Throughput: problems per second of the executors, where step counts vary a lot.

The same problems are solved by a vmapped while loop, which runs until its slowest lane
ends, by `lax.map` in one thread and in all, and side by side in lanes that are refilled.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from experiments import figures
from experiments.problems import Cell
from experiments.session import Executor, Session
from experiments.sweep import sweep


@dataclass(frozen=True)
class Config:
    """The problems, all of one compiled program."""

    solver: str = "factored descent"
    """A name in experiments/problems.py."""
    dim: int = 30
    """Inputs p."""
    rank: int = 2
    """Neurons r."""
    num_samples: int = 300
    """Samples m."""
    trials: int = 512
    """Problems."""
    max_steps: int = 4000
    """Steps at most."""
    repeats: int = 3
    """Runs that a time is the median of."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(
        solver="EP-ROM", dim=8, rank=1, num_samples=64, trials=12, max_steps=100, repeats=1
    ),
    "paper": Config(),
    "full": Config(trials=2048),
}
VARIANTS: dict[str, tuple[Executor, int | None]] = {
    "vmapped loop": ("vmap", 1),
    "lax.map, one worker": ("map", 1),
    "lax.map, all workers": ("map", None),
    "refilled lanes": ("refill", 1),
}


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return steps and seconds of every executor; each run solves everything anew."""
    session = session or Session()
    found = {}
    with session.progress("throughput", len(VARIANTS), unit="executor") as progress:
        for name, (executor, devices) in VARIANTS.items():
            measure = partial(timed, config, executor, devices)
            found[name] = session.ledger.recall(f"throughput/{name}", measure)
            progress.advance()
    return {"executors": found}


def timed(config: Config, executor: Executor, devices: int | None) -> dict[str, Any]:
    """Return the seconds of all runs after a first one that compiles, and the steps."""
    cell = Cell(
        config.solver,
        config.dim,
        config.rank,
        config.num_samples,
        max_steps=config.max_steps,
    )
    seconds = []
    for _ in range(1 + config.repeats):
        began = time.perf_counter()
        session = Session(executor=executor, devices=devices)
        table = sweep("throughput", [cell], config.trials, config.seed, session)
        seconds.append(time.perf_counter() - began)
    return {
        "first_seconds": seconds[0],
        "seconds": seconds[1:],
        "workers": session.num_workers,
        "num_steps": table.num_steps.values[0],
        "solved": float((table.relative_error <= 1e-4).mean()),
    }


def rate(saved: dict[str, Any], name: str) -> float:
    """Return problems per second."""
    row = saved["executors"][name]
    return len(row["num_steps"]) / median(row["seconds"])


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw problems per second, and the spread of the steps."""
    config = saved["provenance"]["config"]
    names = list(saved["executors"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.4), layout="constrained")
    rates = [rate(saved, name) for name in names]
    bars = left.barh(names, rates, color="#0072B2")
    left.bar_label(bars, [f"{value:.3g}" for value in rates], padding=3)
    left.margins(x=0.15)
    left.invert_yaxis()
    left.set_xlabel("problems per second")
    steps = np.sort(saved["executors"][names[0]]["num_steps"])
    right.plot(steps, np.arange(1, len(steps) + 1) / len(steps), color="#D55E00", lw=2)
    right.set_xscale("log")
    right.set_xlabel("steps to the end of a problem")
    right.set_ylabel("share of problems ended")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(
        f"{config['trials']} problems, {config['solver']}, p = {config['dim']}, "
        f"r = {config['rank']}, m = {config['num_samples']}, mixed signs",
        fontsize=10,
    )
    figures.save(figure, folder, "throughput")


def table(saved: dict[str, Any]) -> str:
    """Return problems per second and their ratio to the vmapped loop."""
    names = list(saved["executors"])
    text = [f"{'executor':<24}{'workers':>8}{'problems/s':>12}{'ratio':>8}{'first run s':>13}"]
    for name in names:
        row = saved["executors"][name]
        ratio = rate(saved, name) / rate(saved, names[0])
        text.append(
            f"{name:<24}{row['workers']:>8}{rate(saved, name):>12.1f}{ratio:>8.1f}"
            f"{row['first_seconds']:>13.1f}"
        )
    steps = saved["executors"][names[0]]["num_steps"]
    low, middle, high = np.percentile(steps, [5, 50, 100])
    text.append(f"steps: 5 % below {low:.0f}, median {middle:.0f}, most {high:.0f}")
    return "\n".join(text)
