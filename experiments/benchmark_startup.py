"""What is waited for once: compilation of every solver, and the import of the package."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import jax

import jaxpoly as jp
from experiments.benchmark_children import measured, printed
from experiments.session import Session

SOLVERS: dict[str, Callable[[int], jp.Solver]] = {
    "EP-ROM": jp.ep_rom,
    "AP-ROM": jp.ap_rom,
    "factored descent": jp.factored_descent,
    "Gauss-Newton": jp.gauss_newton,
}
IMPORTS = """
import json, time
began = time.perf_counter()
import jax
middle = time.perf_counter()
import jaxpoly
print(json.dumps([middle - began, time.perf_counter() - middle]))
"""


@dataclass(frozen=True)
class Config:
    """The problem of the first call."""

    dim: int = 100
    """Inputs p."""
    rank: int = 5
    """Neurons r."""
    num_samples: int = 1500
    """Samples m."""
    solvers: tuple[str, ...] = (*SOLVERS, "recover")
    """Solvers of the kit."""
    repeats: int = 5
    """Processes that the time of the import is the median of."""


def run(config: Config, session: Session, seed: int) -> dict[str, Any]:
    """Return first and second call of every solver, and imports, all in fresh processes."""
    rows = {}
    sizes = config.num_samples, config.dim, config.rank, seed
    total = len(config.solvers) + config.repeats
    with session.progress("startup", total, unit="call") as progress:
        for name in config.solvers:
            module = "experiments.benchmark_startup"
            call = partial(measured, module, name, *map(str, sizes))
            rows[name] = session.ledger.recall(f"startup/{name}", call)
            progress.advance()
        imports = []
        for number in range(config.repeats):
            call = partial(printed, "-c", IMPORTS)
            imports.append(session.ledger.recall(f"startup/import/{number}", call))
            progress.advance()
    return {"solvers": rows, "imports": imports}


def calls(name: str, num_samples: int, dim: int, rank: int, seed: int) -> dict[str, float]:
    """Return the seconds of the first call of a solver in this process, and of the second."""
    problem = jp.sample_problem(jax.random.key(seed), num_samples, dim, rank)
    lifting, targets, _ = jax.block_until_ready(problem)
    key = jax.random.key(seed + 1)

    def call() -> jp.Solution:
        if name == "recover":
            return jp.recover(lifting.inputs, targets, rank, key=key)
        return jp.solve(SOLVERS[name](rank), lifting, targets, key)

    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return {"first": seconds[0], "second": seconds[1]}


def table(saved: dict[str, Any]) -> str:
    """Return the seconds as text."""
    lines = ["Seconds of a call in a fresh process", f"{'solver':<20}{'first':>8}{'second':>9}"]
    for name, row in saved["solvers"].items():
        lines.append(f"{name:<20}{row['first']:>8.2f}{row['second']:>9.4f}")
    jax_seconds, own_seconds = (median(times) for times in zip(*saved["imports"], strict=True))
    lines.append(f"import jax {jax_seconds:.2f} s, then jaxpoly {own_seconds:.2f} s more")
    return "\n".join(lines)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(json.dumps(calls(sys.argv[1], *map(int, sys.argv[2:]))))
