"""Scaling: seconds of a step with the rows of X spread over devices.

Strong: the same problem on more devices.  Weak: a problem that grows with the devices.  On
a machine without several accelerators the devices are virtual, each a share of the same
cores, and the whole shows what the partition costs, not what it gains.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.benchmark_children import measured
from experiments.benchmark_clock import Candidate, interleaved
from experiments.benchmark_growth import draw_problem, first_state, next_state
from experiments.problems import SOLVERS
from experiments.session import Session


@dataclass(frozen=True)
class Config:
    """Devices and the problem on one of them."""

    devices: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of devices."""
    num_samples: int = 40_000
    """m of the strong sweep, a multiple of every number of devices."""
    samples_per_device: int = 10_000
    """m over devices of the weak sweep."""
    dim: int = 1000
    """Inputs p."""
    rank: int = 5
    """Neurons r."""
    solvers: tuple[str, ...] = ("AP-ROM", "factored descent")
    """Names in experiments/problems.py."""
    repeats: int = 7
    """Rounds that a time is the median of."""


def run(config: Config, session: Session, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return a row for every number of devices, strong and weak."""
    rows: dict[str, list[dict[str, Any]]] = {"strong": [], "weak": []}
    total = len(rows) * len(config.devices)
    with session.progress("devices", total, unit="run") as progress:
        for kind, count in product(rows, config.devices):
            samples = config.samples_per_device * count if kind == "weak" else config.num_samples
            sizes = samples, config.dim, config.rank, config.repeats, seed
            measure = partial(on_devices, config.solvers, count, *sizes)
            # What both sweeps share is measured once.
            rows[kind].append(session.ledger.recall(f"devices/{count}/{samples}", measure))
            progress.advance()
    return rows


def on_devices(solvers: Sequence[str], count: int, *sizes: int) -> dict[str, Any]:
    """Return seconds a step, on real devices where there are several, else in a child process."""
    if jax.device_count() > 1:
        return seconds_per_step(solvers, count, *sizes)
    module = "experiments.benchmark_devices"
    arguments = ",".join(solvers), *map(str, (count, *sizes))
    return measured(module, *arguments, num_devices=count)


def seconds_per_step(
    solvers: Sequence[str],
    count: int,
    num_samples: int,
    dim: int,
    rank: int,
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """Return the seconds of a step of every solver on the first `count` devices."""
    chosen = np.array(jax.devices()[:count])
    mesh = Mesh(chosen, ("rows",), axis_types=(AxisType.Auto,))
    by_rows = NamedSharding(mesh, PartitionSpec("rows"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    lifting, targets, start = draw_problem(num_samples, dim, rank, seed)
    lifting, targets = jax.device_put((lifting, targets), by_rows)
    start, key = jax.device_put((start, jax.random.key(seed)), everywhere)
    candidates = {}
    for name in solvers:
        solver = jax.device_put(SOLVERS[name](rank), everywhere)
        state = first_state(solver, lifting, targets, key, start)
        candidates[name] = Candidate(partial(next_state, solver, lifting, targets, state))
    seconds = {name: median(found) for name, found in interleaved(candidates, repeats).items()}
    device = jax.devices()[0]
    return {
        "devices": count,
        "kind": "virtual CPU" if device.platform == "cpu" else device.device_kind,
        "num_samples": num_samples,
        "dim": dim,
        "rank": rank,
        "seconds": seconds,
    }


def table(saved: dict[str, list[dict[str, Any]]]) -> str:
    """Return seconds a step as text, and the efficiency: the ideal time over that measured."""
    lines = []
    for kind, rows in saved.items():
        heads = "".join(f"{row['devices']:>10}" for row in rows)
        sizes = ", ".join(dict.fromkeys(str(row["num_samples"]) for row in rows))
        lines += [
            f"Milliseconds a step, {kind} scaling on {rows[0]['kind']} devices, "
            f"m = {sizes}, p = {rows[0]['dim']}, r = {rows[0]['rank']}",
            f"{'devices':<24}{heads}",
        ]
        for name in rows[0]["seconds"]:
            cells = "".join(f"{1e3 * row['seconds'][name]:>10.3g}" for row in rows)
            shares = "".join(f"{share:>10.2f}" for share in efficiency(kind, rows, name))
            lines += [f"{name:<24}{cells}", f"{'  efficiency':<24}{shares}"]
        lines.append("")
    return "\n".join(lines[:-1])


def efficiency(kind: str, rows: list[dict[str, Any]], name: str) -> list[float]:
    """Return the time that ideal scaling from the fewest devices predicts, over that measured."""
    first = rows[0]
    return [
        first["seconds"][name]
        / row["seconds"][name]
        * (first["devices"] / row["devices"] if kind == "strong" else 1)
        for row in rows
    ]


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(json.dumps(seconds_per_step(sys.argv[1].split(","), *map(int, sys.argv[2:]))))
