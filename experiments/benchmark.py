"""Benchmark: kernels, peers, batches, growth, devices and start-up, in seconds.

Everything is compiled and has run before the clock starts, unless said otherwise, and
what is compared takes turns in one process.  Needs the extra "bench".
"""

import os
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

from experiments import (
    benchmark_batch,
    benchmark_devices,
    benchmark_figures,
    benchmark_goal,
    benchmark_growth,
    benchmark_kernels,
    benchmark_passes,
    benchmark_startup,
    benchmark_stream,
)
from experiments.session import Session

Part = Literal["kernels", "peers", "batch", "growth", "passes", "stream", "devices", "startup"]
PARTS: dict[Part, Any] = {
    "kernels": benchmark_kernels,
    "peers": benchmark_goal,
    "batch": benchmark_batch,
    "growth": benchmark_growth,
    "passes": benchmark_passes,
    "stream": benchmark_stream,
    "devices": benchmark_devices,
    "startup": benchmark_startup,
}
PACKAGES = ("optimistix", "pymanopt", "scipy", "threadpoolctl")


@dataclass(frozen=True)
class Config:
    """Parts, their sizes and seed."""

    parts: tuple[Part, ...] = get_args(Part)
    """Parts to run."""
    kernels: benchmark_kernels.Config = field(default=benchmark_kernels.Config())
    peers: benchmark_goal.Config = field(default=benchmark_goal.Config())
    batch: benchmark_batch.Config = field(default=benchmark_batch.Config())
    growth: benchmark_growth.Config = field(default=benchmark_growth.Config())
    passes: benchmark_passes.Config = field(default=benchmark_passes.Config())
    stream: benchmark_stream.Config = field(default=benchmark_stream.Config())
    devices: benchmark_devices.Config = field(default=benchmark_devices.Config())
    startup: benchmark_startup.Config = field(default=benchmark_startup.Config())
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(
        kernels=benchmark_kernels.Config(((300, 10),), (2,), ((3, 50, 6, 2),), repeats=1),
        peers=benchmark_goal.Config(
            ((8, 2, 120, 1),), ("mixed",), "^EP-ROM|fixed|Hest|0.5|squares", repeats=1
        ),
        batch=benchmark_batch.Config(3, 8, 1, 60, ("EP-ROM",), repeats=1),
        growth=benchmark_growth.Config(
            200, 12, 2, (100, 200), (12,), (2,), ("factored descent",), repeats=1
        ),
        passes=benchmark_passes.Config(8, 1, solvers=("Gauss-Newton",)),
        stream=benchmark_stream.Config(0.002, 50, 2, steps=1),
        devices=benchmark_devices.Config((2,), 80, 40, 8, 2, ("factored descent",), repeats=1),
        startup=benchmark_startup.Config(8, 1, 60, ("EP-ROM",), repeats=1),
    ),
    "paper": Config(),
    "full": Config(
        kernels=benchmark_kernels.Config(repeats=31),
        peers=benchmark_goal.Config(limit_seconds=120, repeats=9),
        batch=benchmark_batch.Config(count=64, repeats=5),
        growth=benchmark_growth.Config(
            samples=(5000, 10_000, 20_000, 40_000, 80_000, 160_000),
            ranks=(2, 4, 8, 16, 32, 64),
            dense_dim=4000,
            repeats=15,
        ),
        devices=benchmark_devices.Config(repeats=25),
        startup=benchmark_startup.Config(repeats=15),
    ),
}


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return the measurements of every part, and under what load they began."""
    session = session or Session()
    load = session.ledger.recall("load", os.getloadavg)
    found = {
        part: PARTS[part].run(getattr(config, part), session, config.seed) for part in config.parts
    }
    versions = {package: version(package) for package in PACKAGES}
    return {"load_average": load[0], "versions": versions} | found


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw a figure for each part that has one."""
    benchmark_figures.draw(saved, folder)


def table(saved: dict[str, Any]) -> str:
    """Return the tables of all parts, and the machine."""
    marks = saved["provenance"]
    lines = [
        f"{marks['cpu_model']}, {marks['cpu_cores']} cores; jax on {marks['device']}; "
        f"{marks['dtype']} unless said otherwise; load average at the start "
        f"{saved['load_average']:.1f}"
    ]
    lines += [PARTS[part].table(saved[part]) for part in PARTS if part in saved]
    return "\n\n".join(lines)
