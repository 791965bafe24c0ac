"""Fuzz: problems drawn at random by hypothesis, and the laws that every answer keeps.

For valid shapes no exception; a status; finite numbers; the relative residual is the one that
numpy finds in extended precision; CONVERGED only below rtol; rows without weight change nothing;
in float64 data multiplied by powers of two give the same steps.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis.database import ExampleDatabase
from matplotlib import pyplot as plt

import jaxpoly as jp
from experiments import figures
from experiments.fuzz_examples import SHAPES, Example, Problem, examples, problem
from experiments.problems import SOLVERS
from experiments.session import Session
from jaxpoly import Status
from jaxpoly.precision import default_rtol

STEPS = 300
# Examples are drawn and kept in parts of this many.
PART = 250
# A residual is told to this fraction, and to so many roundings of what it is a sum of.
SLACK = 0.01
ROUNDINGS = 100
FALSE_SUCCESS = "CONVERGED above rtol"


@dataclass(frozen=True)
class Config:
    """How many examples, and of what."""

    examples: int = 2000
    """Problems drawn."""
    solvers: tuple[str, ...] = ("EP-ROM", "AP-ROM", "factored descent", "Gauss-Newton")
    """Names of solvers, see experiments/problems.py."""
    shapes: tuple[str, ...] = tuple(SHAPES)
    """Names of shapes, see experiments/fuzz_examples.py; a program each for every solver."""
    dtypes: tuple[str, ...] = ("float64", "float32")
    """Dtypes; a program each too."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(examples=40, solvers=("Gauss-Newton",), shapes=("usual",), dtypes=("float64",)),
    "paper": Config(),
    "full": Config(examples=20_000),
}


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return the statuses by solver, and every example that breaks a law."""
    session = session or Session()
    parts = []
    starts = range(0, config.examples, PART)
    with session.progress("fuzz", len(starts), unit="part") as progress:
        for start in starts:
            size = min(PART, config.examples - start)
            compute = partial(_part, config, start, size)
            parts.append(session.ledger.recall(f"part/{start:08d}", compute))
            progress.advance()
    counts: dict[str, Counter[str]] = {}
    for part in parts:
        for solver, found in part["statuses"].items():
            counts.setdefault(solver, Counter()).update(found)
    return {
        "examples": sum(part["examples"] for part in parts),
        "statuses": {solver: dict(found) for solver, found in counts.items()},
        "broken": [entry for part in parts for entry in part["broken"]],
    }


def _part(config: Config, start: int, size: int) -> dict[str, Any]:
    statuses: dict[str, Counter[str]] = {}
    broken, visited = [], []

    def visit(example: Example) -> None:
        status, laws = check(example)
        visited.append(example)
        statuses.setdefault(example.solver, Counter())[status] += 1
        if laws:
            broken.append({"example": asdict(example), "laws": laws})

    explore(config, visit, size, config.seed + start)
    found = {solver: dict(counted) for solver, counted in statuses.items()}
    return {"examples": len(visited), "statuses": found, "broken": broken}


def explore(
    config: Config,
    visit: Callable[[Example], None],
    size: int,
    seed: int,
    database: ExampleDatabase | None = None,
) -> None:
    """Give `size` examples to `visit`; where it raises, raise for the simplest example found.

    Args:
        config: solvers, shapes and dtypes to draw from.
        visit: is given every example.
        size: examples.
        seed: of the drawing.
        database: where examples at which `visit` raised are kept and tried first.
    """
    settings = hypothesis.settings(
        max_examples=size,
        database=database,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    drawn = examples(config.solvers, config.shapes, config.dtypes)
    hypothesis.seed(seed)(settings(hypothesis.given(drawn)(visit)))()


def check(example: Example) -> tuple[str, list[str]]:
    """Solve an example; return the name of its status and the laws it breaks."""
    data = problem(example)
    try:
        solution = solve(example, data)
    except Exception as error:
        return type(error).__name__, [f"no exception: {error}"]
    status = int(solution.status)
    if status not in set(Status):
        return str(status), ["a status"]
    parts = solution.value.factor, solution.value.diagonal, solution.intercept, solution.linear
    residual, rounding = recomputed(solution, data)
    claimed = float(solution.relative_residual)
    meant = status not in (Status.NONFINITE_INPUT, Status.DEGENERATE)
    rtol = default_rtol(data.inputs.dtype, data.inputs.shape[1])
    laws = {
        "finite": all(np.isfinite(np.asarray(part)).all() for part in parts),
        "residual as numpy has it": not meant
        or abs(claimed - residual) <= SLACK * residual + rounding,
        FALSE_SUCCESS: status != Status.CONVERGED or residual <= (1 + SLACK) * rtol + rounding,
        "rows without weight change nothing": same(solution, solve(example, spoilt(data))),
        # Measured: in float32 the same steps at another scale differ by roundings.
        "powers of two change no step": example.dtype == "float32"
        or is_equivariant(example, data, solution),
    }
    return Status(status).name, [law for law, holds in laws.items() if not holds]


def solve(example: Example, data: Problem) -> jp.Solution:
    """Solve the problem as it is given."""
    solver = SOLVERS[example.solver](SHAPES[example.shape][2])
    inputs, targets, weight = map(jnp.asarray, data)
    key = jax.random.key(example.seed)
    return jax.device_get(jp.solve(solver, jp.Lifting(inputs, weight), targets, key, STEPS))


def recomputed(solution: jp.Solution, data: Problem) -> tuple[float, float]:
    """Return the relative residual in extended precision, and what rounding explains of it."""
    on = data.weight != 0
    inputs, targets, weight = (np.asarray(array[on], np.longdouble) for array in data)
    factor, diagonal = (
        np.asarray(part, np.longdouble) for part in (solution.value.factor, solution.value.diagonal)
    )
    intercept = np.longdouble(solution.intercept)
    weight = weight / weight.sum()
    predictions = (inputs @ factor) ** 2 @ diagonal + intercept
    terms = (np.abs(inputs) @ np.abs(factor)) ** 2 @ np.abs(diagonal) + np.abs(intercept)
    norms = [
        np.sqrt(weight @ array**2)
        for array in (predictions - targets, targets - weight @ targets, terms + np.abs(targets))
    ]
    size = norms[1] if norms[1] > 0 else np.longdouble(1)
    eps = np.finfo(data.inputs.dtype).eps
    return float(norms[0] / size), float(ROUNDINGS * eps * norms[2] / size)


def spoilt(data: Problem) -> Problem:
    """Return the problem with other numbers in the rows without weight."""
    off = data.weight == 0
    inputs = np.where(off[:, None], -3 * data.inputs[::-1], data.inputs)
    targets = np.where(off, 5 * data.targets[::-1], data.targets)
    return Problem(inputs, targets, data.weight)


def same(left: jp.Solution, right: jp.Solution) -> bool:
    """Return whether two solutions are bitwise the same."""
    return jax.tree.all(jax.tree.map(partial(np.array_equal, equal_nan=True), left, right))


def is_equivariant(example: Example, data: Problem, solution: jp.Solution) -> bool:
    """Return whether X / 4 and 16 y give 256 L, after the same steps."""
    scaled = solve(example, Problem(data.inputs / 4, data.targets * 16, data.weight))
    if (scaled.status, scaled.num_steps) != (solution.status, solution.num_steps):
        return False
    # L as a whole: a factor has its scale in itself or in the diagonal.
    before, after = (
        (found.value.factor.astype(np.float64) * found.value.diagonal) @ found.value.factor.T
        for found in (solution, scaled)
    )
    eps = np.finfo(data.inputs.dtype).eps
    return np.allclose(after, 256 * before, rtol=0, atol=1e3 * eps * np.abs(after).max())


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw the shares of the statuses by solver."""
    figure, axes = plt.subplots(figsize=(7.2, 3.0), layout="constrained")
    names = list(saved["statuses"])
    left = np.zeros(len(names))
    for status in Status:
        counts = np.array([saved["statuses"][name].get(status.name, 0) for name in names])
        if counts.any():
            axes.barh(names, counts, left=left, label=status.name)
        left = left + counts
    axes.invert_yaxis()
    axes.set_xlabel("examples")
    axes.legend(fontsize=8)
    axes.set_title(f"{saved['examples']} problems, {len(saved['broken'])} of them break a law")
    figures.save(figure, folder, "fuzz")


def table(saved: dict[str, Any]) -> str:
    """Return the statuses by solver, and the laws broken."""
    text = [f"{'solver':<20}" + "".join(f"{status.name:>17}" for status in Status)]
    for name, counts in saved["statuses"].items():
        text.append(
            f"{name:<20}" + "".join(f"{counts.get(status.name, 0):>17}" for status in Status)
        )
    laws = Counter(law.partition(":")[0] for entry in saved["broken"] for law in entry["laws"])
    text += [
        "",
        f"examples: {saved['examples']}; that break a law: {len(saved['broken'])}; "
        f"false successes: {laws[FALSE_SUCCESS]}",
    ]
    text += [f"{law}: {count}" for law, count in laws.items()]
    text += [f"{entry['laws']}: {entry['example']}" for entry in saved["broken"][:10]]
    return "\n".join(text)
