"""Many problems at once: `vmap`, `lax.map` and a Python loop over `jp.solve`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

import jaxpoly as jp
from experiments.benchmark_clock import Candidate, interleaved, typical_ratio
from experiments.problems import SOLVERS
from experiments.session import Session

SHARED = {False: "every problem with its own X", True: "one X, many targets"}


@dataclass(frozen=True)
class Config:
    """The problems of a batch."""

    count: int = 16
    """Problems."""
    dim: int = 50
    """Inputs p."""
    rank: int = 3
    """Neurons r."""
    num_samples: int = 600
    """Samples m."""
    solvers: tuple[str, ...] = ("EP-ROM", "AP-ROM", "factored descent", "Gauss-Newton")
    """Names in experiments/problems.py."""
    repeats: int = 3
    """Rounds that a time is the median of."""


def run(config: Config, session: Session, seed: int) -> list[dict[str, Any]]:
    """Return a row for every solver, with an X for each problem and with one for all."""
    rows = []
    with session.progress("batches", 2 * len(config.solvers), unit="solver") as progress:
        for shared in SHARED:
            for name in config.solvers:
                measure = partial(compare, config, name, shared, seed)
                rows.append(session.ledger.recall(f"batch/{SHARED[shared]}/{name}", measure))
                progress.advance()
    return rows


def draw_batch(config: Config, shared: bool, seed: int) -> tuple[jp.Lifting, Array]:
    """Return inputs, (count, m, p) or (m, p) if shared, and targets (count, m)."""
    sizes = config.num_samples, config.dim, config.rank
    keys = jax.random.split(jax.random.key(seed), config.count)
    problems = jax.vmap(lambda key: jp.sample_problem(key, *sizes))(keys)
    if not shared:
        return problems.lifting, problems.targets
    lifting = jax.tree.map(lambda inputs: inputs[0], problems.lifting)
    return lifting, jax.vmap(partial(jp.measure, lifting))(problems.truth)


def compare(config: Config, name: str, shared: bool, seed: int) -> dict[str, Any]:
    """Return the seconds of all ways, and the share of problems that converged."""
    lifting, targets = draw_batch(config, shared, seed)
    keys = jax.random.split(jax.random.key(seed + 1), config.count)
    ways = {
        way: partial(solve_all, SOLVERS[name](config.rank), lifting, targets, keys)
        for way, solve_all in WAYS.items()
    }
    statuses = {way: jnp.stack(solve()) for way, solve in ways.items()}
    return {
        "solver": name,
        "shared": shared,
        "count": config.count,
        "seconds": interleaved({way: Candidate(ways[way]) for way in ways}, config.repeats),
        "converged": {
            way: float(jnp.mean(status == jp.Status.CONVERGED)) for way, status in statuses.items()
        },
    }


def _axis(lifting: jp.Lifting) -> int | None:
    return 0 if lifting.inputs.ndim == 3 else None


@jax.jit
def vmapped(solver: jp.Solver, lifting: jp.Lifting, targets: Array, keys: Array) -> Array:
    """Return the statuses of a batch whose problems step together until the slowest ends."""
    axes = (None, _axis(lifting), 0, 0)
    return jax.vmap(jp.solve, in_axes=axes)(solver, lifting, targets, keys).status


@jax.jit
def mapped(solver: jp.Solver, lifting: jp.Lifting, targets: Array, keys: Array) -> Array:
    """Return the statuses of a batch solved one after the other inside one program."""
    if _axis(lifting) is None:
        return lax.map(lambda data: jp.solve(solver, lifting, *data).status, (targets, keys))
    return lax.map(lambda data: jp.solve(solver, *data).status, (lifting, targets, keys))


def looped(solver: jp.Solver, lifting: jp.Lifting, targets: Array, keys: Array) -> list[Array]:
    """Return the statuses of a batch solved one after the other from Python."""
    shared = _axis(lifting) is None
    return [
        jp.solve(
            solver, lifting if shared else jp.Lifting(lifting.inputs[i]), targets[i], keys[i]
        ).status
        for i in range(len(targets))
    ]


WAYS: dict[str, Callable[..., Any]] = {"vmap": vmapped, "lax.map": mapped, "loop": looped}


def table(rows: list[dict[str, Any]]) -> str:
    """Return problems per second of the ways as text."""
    lines = []
    for shared, title in SHARED.items():
        chosen = [row for row in rows if row["shared"] == shared]
        lines += [
            f"Problems per second, batch of {chosen[0]['count']}, {title}",
            f"{'solver':<20}"
            + "".join(f"{way:>10}" for way in WAYS)
            + f"{'vmap/loop':>12}{'lax.map/loop':>14}{'converged':>11}",
        ]
        for row in chosen:
            seconds = row["seconds"]
            rates = (row["count"] / median(seconds[way]) for way in WAYS)
            gains = [typical_ratio(seconds, "loop", way) for way in ("vmap", "lax.map")]
            lines.append(
                f"{row['solver']:<20}"
                + "".join(f"{rate:>10.3g}" for rate in rates)
                + f"{gains[0]:>12.2f}{gains[1]:>14.2f}{min(row['converged'].values()):>11.2f}"
            )
        lines.append("")
    return "\n".join(lines[:-1])
