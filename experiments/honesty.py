"""Honesty: a table of benign, hard and hopeless problems, and every success looked into.

CONVERGED is false where the relative residual, recomputed in extended precision, is above
rtol; STATIONARY where the cosine of the residual and the image of the tangent gradient is not
small; any end where the matrix is not finite or the residual that is told is not its own.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

import jaxpoly as jp
from experiments import figures
from experiments.honesty_problems import Problem, problems, rank_asked
from experiments.session import Session
from jaxpoly import Status
from jaxpoly.precision import default_rtol, stationarity_tolerance

# Rounding that a claim may be off by, in units of eps times the cancellation: the largest of
# |y| and of sum_j |d_j| |x . f_j| (|x| . |f_j|), over |y - mean y|.
ROUNDING = 20
# A stationarity is told of the iterate before the last step, and a step does not lower it
# always: ten times the tolerance, 1.5e-7 in float64 and 3.5e-3 in float32, is allowed, and the
# rounding of the residual and of the image of the gradient, over their sizes.
SLACK = 10.0


@dataclass(frozen=True)
class Config:
    """Which part of the table, and who is tried on it."""

    solvers: tuple[str, ...] = (
        "EP-ROM",
        "AP-ROM",
        "AP-ROM, krylov",
        "factored descent",
        "Gauss-Newton",
        "EP-ROM, positive",
        "factored descent, positive",
        "Gauss-Newton, positive",
        "recover",
    )
    """Names of solvers; variants see only the dimension in the middle."""
    dims: tuple[int, ...] = (1, 3, 8, 60)
    """Inputs p of the problems."""
    every: int = 1
    """Take every so many problems of the table."""
    recover_every: int = 4
    """Of these, give every so many to `recover`."""
    max_steps: int = 300
    """Steps at most."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(solvers=("Gauss-Newton",), dims=(8,), every=3),
    "paper": Config(),
    "full": Config(recover_every=1, max_steps=3000),
}
DTYPES = ("float32", "float64")


def solver(name: str, rank: int) -> jp.Solver:
    """Return the solver of a name."""
    method, _, variant = name.partition(", ")
    positive = variant == "positive"
    if method == "AP-ROM":
        return jp.ap_rom(rank, positive=positive, head="krylov" if variant else "tangent")
    build: dict[str, Any] = {
        "EP-ROM": jp.ep_rom,
        "factored descent": jp.factored_descent,
        "Gauss-Newton": jp.gauss_newton,
    }
    return build[method](rank, positive=positive)


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return the counts of every solver, and what was claimed falsely."""
    session = session or Session()
    table = problems(config.seed)[:: config.every]
    parts = [
        (name, dim, dtype)
        for name in config.solvers
        for dim in config.dims
        for dtype in DTYPES
        if _apt(name, dim, dtype)
    ]
    rows = []
    with session.progress("honesty", len(parts), unit="part") as progress:
        for name, dim, dtype in parts:
            chosen = [problem for problem in table if problem.inputs.shape[1] == dim]
            compute = partial(run_part, config, name, chosen, jnp.dtype(dtype))
            rows.append(session.ledger.recall(f"{name}/{dim}/{dtype}", compute))
            progress.advance()
    return {"problems": sum(p.inputs.shape[1] in config.dims for p in table), "rows": rows}


def _apt(name: str, dim: int, dtype: str) -> bool:
    # Each part is a program to compile; variants and small dimensions need fewer.
    if name == "recover" or "," in name:
        return dim == 8 and (dtype == "float64" or "krylov" in name)
    return dim > 3 or dtype == "float64"


def run_part(config: Config, name: str, chosen: list[Problem], dtype: Any) -> dict[str, Any]:
    """Solve problems of one shape and return what the statuses were and which of them are false."""
    counts: Counter[str] = Counter()
    lies = []
    if name == "recover":
        chosen = chosen[:: config.recover_every]
    for problem, solution in zip(chosen, _solve(config, name, chosen, dtype), strict=True):
        counts[Status(int(solution.status)).name] += 1
        positive = "positive" in name
        for lie in find_lies(problem, solution, dtype, name == "recover", positive):
            lies.append(f"{name}, {np.dtype(dtype).name}, {problem.name}: {lie}")
    return {"solver": name, "counts": dict(counts), "lies": lies}


def _solve(config: Config, name: str, chosen: list[Problem], dtype: Any) -> list[jp.Solution]:
    """Return the solutions; problems without a start of their own in one program."""
    if name == "recover":
        return [_recover(config, problem, dtype) for problem in chosen]
    found: dict[str, jp.Solution] = {}
    for started in (False, True):
        group = [problem for problem in chosen if (problem.start is not None) == started]
        if not group:
            continue
        arrays = [_arrays(problem, dtype) for problem in group]
        batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
        asked = solver(name, rank_asked(group[0].inputs.shape[1]))
        solutions = jax.device_get(_solve_all(asked, batch, config.max_steps, config.seed))
        for index, problem in enumerate(group):
            found[problem.name] = jax.tree.map(lambda leaf, i=index: leaf[i], solutions)
    return [found[problem.name] for problem in chosen]


def _arrays(problem: Problem, dtype: Any) -> dict[str, Any]:
    arrays = {
        "inputs": problem.inputs,
        "targets": problem.targets,
        "weight": problem.weight,
        "start": problem.start,
    }
    return jax.tree.map(lambda array: _rounded(array, dtype), arrays)


def _rounded(array: np.ndarray, dtype: Any) -> np.ndarray:
    # Overflow to infinity is an input like others.
    with np.errstate(over="ignore", under="ignore"):
        return array.astype(dtype)


@jax.jit
def _solve_all(asked: jp.Solver, batch: dict[str, Any], max_steps: int, seed: int) -> jp.Solution:
    def one(data: dict[str, Any]) -> jp.Solution:
        lifting = jp.Lifting(data["inputs"], data["weight"])
        start = None if data["start"] is None else jp.LowRank(*data["start"])
        key = jax.random.key(seed)
        return jp.solve(asked, lifting, data["targets"], key, max_steps, start=start)

    return jax.lax.map(one, batch)


def _recover(config: Config, problem: Problem, dtype: Any) -> jp.Solution:
    data = _arrays(problem, dtype)
    rank, key = rank_asked(problem.inputs.shape[1]), jax.random.key(config.seed)
    weight = data["weight"]
    rtol = default_rtol(dtype, problem.inputs.shape[1])
    return jax.device_get(
        jp.recover(data["inputs"], data["targets"], rank, key=key, sample_weight=weight, rtol=rtol)
    )


def find_lies(
    problem: Problem, solution: jp.Solution, dtype: Any, whitened: bool, positive: bool
) -> list[str]:
    """Return what is not true of a solution, found by means of numpy alone.

    A stationarity in whitened coordinates, or at the edge of the cone of semidefinite
    matrices, is not that of the tangent space here, and not recomputed.
    """
    finite = all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(solution.value))
    if not finite:
        return ["the matrix is not finite"]
    status, eps = Status(int(solution.status)), float(jnp.finfo(dtype).eps)
    if status in (Status.NONFINITE_INPUT, Status.DEGENERATE):
        return []
    facts = recompute(problem, solution, dtype)
    rounding = ROUNDING * eps * facts["cancellation"]
    rtol = default_rtol(dtype, problem.inputs.shape[1])
    told, found = float(solution.relative_residual), facts["residual"]
    lies = []
    if status == Status.CONVERGED and found > rtol + rounding:
        lies.append(f"CONVERGED at {found:.2e}, rtol {rtol:.2e}")
    if not 0.99 * found - rounding <= told <= 1.01 * found + rounding:
        lies.append(f"told residual {told:.2e}, is {found:.2e}")
    if status == Status.STATIONARY and not (whitened or positive):
        spread = facts["cancellation"] / max(found, eps) + facts["image_cancellation"]
        limit = SLACK * stationarity_tolerance(dtype) + ROUNDING * eps * spread
        if facts["cosine"] > limit:
            lies.append(f"STATIONARY at a cosine of {facts['cosine']:.2e}, limit {limit:.2e}")
    return lies


def recompute(problem: Problem, solution: jp.Solution, dtype: Any) -> dict[str, float]:
    """Return relative residual, cosine and cancellation in extended precision, at unit scale."""
    wide, tiny = np.longdouble, np.finfo(float).tiny
    given = _arrays(problem, dtype)
    inputs, targets, weight = (given[key].astype(wide) for key in ("inputs", "targets", "weight"))
    counted = weight > 0
    inputs, targets, weight = inputs[counted], targets[counted], weight[counted]
    weight = weight / weight.max() / np.sum(weight / weight.max())
    size, height = np.max(np.abs(inputs)), np.max(np.abs(targets))
    inputs, targets = inputs / size, targets / height
    factor = np.asarray(solution.value.factor, wide)
    diagonal = np.asarray(solution.value.diagonal, wide) * size / height * size
    products = inputs @ factor
    residual = products**2 @ diagonal + wide(solution.intercept) / height - targets
    spread = _norm(weight, targets - weight @ targets)
    # A product x . f is known to eps |x| . |f|, and squared to that times 2 |x . f|.
    rough = np.abs(products) * (np.abs(inputs) @ np.abs(factor))
    terms = np.max(np.abs(targets)) + np.max(rough @ np.abs(diagonal))
    # Cosine of the residual and the image of the tangent gradient, in double precision.
    centred = (residual - weight @ residual).astype(float)
    basis = np.linalg.qr(factor.astype(float))[0]
    narrow, share = inputs.astype(float), weight.astype(float)
    along = narrow @ basis
    image = narrow.T @ ((share * centred)[:, None] * along)
    image = image - basis @ (basis.T @ image) / 2
    parts = 2 * along * (narrow @ image)
    measured = np.sum(parts, axis=1)
    measured = measured - share @ measured
    lengths = _norm(share, measured) * _norm(share, centred)
    cosine = abs(share @ (measured * centred)) / lengths if lengths > 0 else 0.0
    return {
        "residual": float(_norm(weight, residual) / spread),
        "cosine": float(cosine),
        "cancellation": float(terms / spread),
        "image_cancellation": float(np.max(np.abs(parts)) / max(_norm(share, measured), tiny)),
    }


def _norm(weight: np.ndarray, values: np.ndarray) -> Any:
    return np.sqrt(weight @ values**2)


def counts(saved: dict[str, Any]) -> dict[str, Counter[str]]:
    """Return for every solver how often each status was its end, and the false claims."""
    found: dict[str, Counter[str]] = {}
    for row in saved["rows"]:
        mine = found.setdefault(row["solver"], Counter())
        mine.update(row["counts"])
        mine["false"] += len(row["lies"])
    return found


def table(saved: dict[str, Any]) -> str:
    """Return the counts by solver and status, and every false claim."""
    names = [status.name for status in Status]
    total: Counter[str] = Counter()
    head = "".join(f"{name[:10].lower():>12}" for name in ("solves", *names, "false"))
    text = [f"{saved['problems']} problems; ends by status, and false claims", " " * 28 + head]
    for solver_name, ends in counts(saved).items():
        total.update(ends)
        text.append(_line(solver_name, ends, names))
    text.append(_line("all", total, names))
    return "\n".join([*text, *(lie for row in saved["rows"] for lie in row["lies"])])


def _line(name: str, ends: Counter[str], names: list[str]) -> str:
    numbers = [sum(ends[status] for status in names), *(ends[status] for status in names)]
    return f"{name:<28}" + "".join(f"{number:>12}" for number in (*numbers, ends["false"]))


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw the ends of every solver as a bar."""
    found = counts(saved)
    figure, axes = plt.subplots(figsize=(8.0, 1.2 + 0.35 * len(found)), layout="constrained")
    left = np.zeros(len(found))
    for status in Status:
        width = np.array([ends[status.name] for ends in found.values()])
        axes.barh(list(found), width, left=left, label=status.name)
        left = left + width
    axes.invert_yaxis()
    axes.set_xlabel("solves")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.4, 1.35))
    figures.save(figure, folder, "honesty")
