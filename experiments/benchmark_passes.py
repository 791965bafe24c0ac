"""Reads of X: how many a start, a step and a digit of accuracy take, by counting them.

X is given as rows to be streamed, from a source that counts; in memory on a CPU a sweep
is one read too, and on an accelerator, or where X is sharded, it is two products.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import jaxpoly as jp
from experiments.problems import SOLVERS
from experiments.session import Session


@dataclass(frozen=True)
class Config:
    """The problem that reads are counted on."""

    dim: int = 100
    """Inputs p."""
    rank: int = 5
    """Neurons r."""
    oversampling: float = 6.0
    """Samples over unknowns."""
    solvers: tuple[str, ...] = ("EP-ROM", "AP-ROM", "factored descent", "Gauss-Newton")
    """Names of solvers, see experiments/problems.py."""
    goal: float = 1e-10
    """Relative error at which the count ends."""
    max_steps: int = 500
    """Steps at most."""


class Counting:
    """Rows in memory, and how often all of them have been read."""

    def __init__(self, values: np.ndarray):
        self.values, self.reads = values, 0.0
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        found = self.values[rows]
        self.reads += len(found) / len(self.values)
        return found


def run(config: Config, session: Session, seed: int) -> dict[str, Any]:
    """Return the reads of every solver from its start to the goal."""
    unknowns = config.dim * config.rank - config.rank * (config.rank - 1) // 2
    sizes = round(config.oversampling * unknowns), config.dim, config.rank
    problem = jp.sample_problem(jax.random.key(seed), *sizes)
    found = {}
    for name in config.solvers:

        def compute(name: str = name) -> dict[str, Any]:
            return counted(SOLVERS[name](config.rank), problem, config, seed)

        found[name] = session.ledger.recall(f"benchmark/passes/{name}", compute)
    return {"num_samples": sizes[0], "dim": config.dim, "rank": config.rank, "solvers": found}


def counted(solver: jp.Solver, problem: jp.Problem, config: Config, seed: int) -> dict[str, Any]:
    """Return reads and relative errors after the start and after every step."""
    source = Counting(np.asarray(problem.lifting.inputs))
    lifting = jp.Lifting(jp.StreamedRows(source))
    run = jp.init_run(solver, lifting, problem.targets, jax.random.key(seed + 1))
    reads, errors = [source.reads], [_error(run, problem)]
    while errors[-1] > config.goal and run.best.status == jp.Status.MAX_STEPS:
        if len(reads) > config.max_steps:
            break
        run = jp.advance(solver, lifting, problem.targets, run, 1)
        reads.append(source.reads)
        errors.append(_error(run, problem))
    return {"reads": reads, "errors": errors, "digits": np.log10(errors[0] / errors[-1])}


def _error(run: jp.Run, problem: jp.Problem) -> float:
    return float(jp.relative_error(run.state.estimate, problem.truth))


def table(found: dict[str, Any]) -> str:
    """Return reads for the start, a step, all, and a digit."""
    lines = [
        f"Reads of X, p = {found['dim']}, r = {found['rank']}, m = {found['num_samples']}, "
        "mixed signs",
        f"{'solver':<24}{'start':>7}{'a step':>8}{'steps':>7}{'in all':>8}{'a digit':>9}"
        f"{'last error':>12}",
    ]
    for name, row in found["solvers"].items():
        steps, total = len(row["reads"]) - 1, row["reads"][-1]
        a_step = (total - row["reads"][0]) / steps
        lines.append(
            f"{name:<24}{row['reads'][0]:>7.0f}{a_step:>8.1f}{steps:>7}{total:>8.0f}"
            f"{total / row['digits']:>9.1f}{row['errors'][-1]:>12.1e}"
        )
    return "\n".join(lines)
