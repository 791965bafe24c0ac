"""Seconds to a relative error of 1e-6: the kit's solvers and what users would pick instead.

Every method gets the least effort, of steps or of a tolerance, with which it reaches the
goal on the problem at hand: nobody pays for digits that were not asked for.  The error is
that of L against the truth.  Its run, compiled and warm, from X and y to L with the start
included, is then timed in turn with all others.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from statistics import median
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

import jaxpoly as jp
from experiments import benchmark_peers as peers
from experiments.benchmark_clock import Candidate, interleaved
from experiments.session import Session

Signs = Literal["mixed", "positive"]


@dataclass(frozen=True)
class Config:
    """Problems and the goal."""

    cases: tuple[tuple[int, int, int, int], ...] = (
        (50, 3, 600, 5),
        (50, 3, 1500, 5),
        (1000, 5, 29_940, 2),
    )
    """Inputs p, neurons r, samples m and the number of problems."""
    signs: tuple[Signs, ...] = get_args(Signs)
    """Of the output weights."""
    only: str = ""
    """Run only the methods whose name matches this regular expression."""
    goal: float = 1e-6
    """Relative error to be reached."""
    limit_seconds: float = 20.0
    """A method whose run takes longer is not given more effort."""
    repeats: int = 5
    """Rounds that a time is the median of."""


class Case(NamedTuple):
    """A kind of problem."""

    dim: int
    rank: int
    num_samples: int
    signs: Signs


class Method(NamedTuple):
    """A way to L.

    Attributes:
        prepare: from a problem to a function of the effort.
        most: the largest effort.
        is_kit: whether it is the kit's.
        on_host: whether numpy's BLAS does the work.
        refusal: from m and p to the reason why it cannot be run, or None.
    """

    prepare: Callable[[peers.Task], peers.Run]
    most: int = peers.MOST_STEPS
    is_kit: bool = False
    on_host: bool = False
    refusal: Callable[[int, int], str | None] = lambda num_samples, dim: None


def solver_run(build: Callable[..., jp.Solver], task: peers.Task) -> peers.Run:
    """Prepare a solver of the kit; the effort is its number of steps."""
    solver = build(task.rank, positive=task.positive)
    data = task.problem.lifting, task.problem.targets, task.key
    return lambda effort: jp.solve(solver, *data, max_steps=effort).value


def gauss_newton_run(task: peers.Task) -> peers.Run:
    """Prepare Gauss-Newton; the effort is its tolerance, which its inner steps go by too."""
    solver = jp.gauss_newton(task.rank, positive=task.positive)
    data = task.problem.lifting, task.problem.targets, task.key
    return lambda effort: jp.solve(solver, *data, rtol=peers.tolerance(effort)).value


def recover_run(task: peers.Task) -> peers.Run:
    """Prepare `recover`; the effort is its tolerance."""
    inputs, targets = task.problem.lifting.inputs, task.problem.targets

    def run(effort: int) -> jp.LowRank:
        rtol = peers.tolerance(effort)
        return jp.recover(
            inputs, targets, task.rank, key=task.key, positive=task.positive, rtol=rtol
        ).value

    return run


def by_least_squares(model: str) -> Method:
    """Return the method of scikit-learn with this last step; it has no effort to choose."""
    prepare = partial(peers.degree_two, model)
    return Method(prepare, most=1, on_host=True, refusal=peers.degree_two_refusal)


MOST_DIGITS = 48  # A tolerance of 1e-12.
# A method and, after the comma, its setting.
METHODS: dict[str, Method] = {
    "EP-ROM": Method(partial(solver_run, jp.ep_rom), is_kit=True),
    "AP-ROM": Method(partial(solver_run, jp.ap_rom), is_kit=True),
    "factored descent": Method(partial(solver_run, jp.factored_descent), is_kit=True),
    "Gauss-Newton": Method(gauss_newton_run, MOST_DIGITS, is_kit=True),
    "recover": Method(recover_run, MOST_DIGITS, is_kit=True),
    "optimistix L-BFGS, fixed signs": Method(partial(peers.optimistix_lbfgs, False), MOST_DIGITS),
    "optimistix L-BFGS, free weights": Method(partial(peers.optimistix_lbfgs, True), MOST_DIGITS),
    "optax L-BFGS, fixed signs": Method(partial(peers.optax_lbfgs, False)),
    "optax L-BFGS, free weights": Method(partial(peers.optax_lbfgs, True)),
    "pymanopt CG, Hestenes-Stiefel": Method(
        partial(peers.pymanopt_descent, "HestenesStiefel"), on_host=True
    ),
    "pymanopt CG, Polak-Ribiere": Method(
        partial(peers.pymanopt_descent, "PolakRibiere"), on_host=True
    ),
    "numpy EP-ROM, step 1": Method(partial(peers.numpy_ep_rom, 1.0), on_host=True),
    "numpy EP-ROM, step 0.5": Method(partial(peers.numpy_ep_rom, 0.5), on_host=True),
    "numpy EP-ROM, step 0.25": Method(partial(peers.numpy_ep_rom, 0.25), on_host=True),
    "scikit-learn degree 2, least squares": by_least_squares("least squares"),
    "scikit-learn degree 2, ridge": by_least_squares("ridge"),
}


def run(config: Config, session: Session, seed: int) -> list[dict[str, Any]]:
    """Return a row for every case: of every problem, efforts and seconds of all methods."""
    rows = []
    chosen = {name: method for name, method in METHODS.items() if re.search(config.only, name)}
    total = len(config.signs) * len(chosen) * sum(count for *_, count in config.cases)
    with session.progress("peers", total, unit="method") as progress:
        for (dim, rank, samples, count), signs in product(config.cases, config.signs):
            case = Case(dim, rank, samples, signs)
            problems = []
            for number in range(count):
                # Drawn only if some method has to run.
                task = cache(partial(draw_task, case, seed + number))
                key = f"peers/{case}/{number}"
                efforts = {}
                for name, method in chosen.items():
                    find = partial(least_effort, config, method, case, task)
                    efforts[name] = session.ledger.recall(f"{key}/{name}", find)
                    progress.advance()
                race = partial(timed, config, efforts, task, session.num_workers)
                seconds = session.ledger.recall(f"{key}/seconds", race)
                problems.append({"efforts": efforts, "seconds": seconds})
            rows.append({"case": case._asdict(), "goal": config.goal, "problems": problems})
    return rows


def draw_task(case: Case, seed: int) -> peers.Task:
    """Return a noiseless problem."""
    problem_key, key = jax.random.split(jax.random.key(seed))
    sizes = case.num_samples, case.dim, case.rank
    problem = jp.sample_problem(problem_key, *sizes, signs=case.signs)
    return peers.Task(problem, case.rank, case.signs == "positive", key)


def error_of(estimate: peers.Estimate, truth: jp.LowRank) -> float:
    """Return the relative Frobenius error of L."""
    if isinstance(estimate, jp.LowRank):
        return float(jp.relative_error(estimate, truth))
    dense = np.asarray(jp.to_dense(truth))
    return float(np.linalg.norm(estimate - dense) / np.linalg.norm(dense))


def least_effort(
    config: Config, method: Method, case: Case, task: Callable[[], peers.Task]
) -> dict[str, Any]:
    """Return the least effort that reaches the goal, to a twentieth, and the error there."""
    refusal = method.refusal(case.num_samples, case.dim)
    if refusal is not None:
        return {"reached": False, "reason": refusal}
    compute = method.prepare(task())
    truth = task().problem.truth
    began = time.perf_counter()
    jax.block_until_ready(compute(1))
    found: dict[str, Any] = {"first_seconds": time.perf_counter() - began}

    @cache
    def attempt(effort: int) -> tuple[float, float]:
        began = time.perf_counter()
        estimate = jax.block_until_ready(compute(effort))
        return time.perf_counter() - began, error_of(estimate, truth)

    low, high = 0, 1
    while attempt(high)[1] > config.goal:
        if high == method.most:
            reason = f"error {attempt(high)[1]:.0e}"
            return found | {"reached": False, "reason": reason}
        if attempt(high)[0] > config.limit_seconds:
            reason = f"error {attempt(high)[1]:.0e} after {attempt(high)[0]:.0f} s"
            return found | {"reached": False, "reason": reason}
        low, high = high, min(2 * high, method.most)
    while high - low > max(1, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if attempt(middle)[1] <= config.goal else (middle, high)
    return found | {"reached": True, "effort": high, "error": attempt(high)[1]}


def timed(
    config: Config, efforts: dict[str, Any], task: Callable[[], peers.Task], cores: int
) -> dict[str, list[float]]:
    """Return the seconds of the methods that reach the goal; the best of BLAS on 1 or all cores."""
    candidates = {}
    for name, found in efforts.items():
        if found["reached"]:
            compute = partial(METHODS[name].prepare(task()), found["effort"])
            for threads in sorted({1, cores} if METHODS[name].on_host else {1}):
                candidates[f"{name}/{threads}"] = Candidate(compute, threads)
    best: dict[str, list[float]] = {}
    for title, seconds in interleaved(candidates, config.repeats).items():
        name = title.rpartition("/")[0]
        best[name] = min(seconds, best.get(name, seconds), key=median)
    return best


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """Return the best setting of every method, and the best kit method over the best peer."""
    problems = row["problems"]
    found: dict[str, dict[str, Any]] = {}
    for name in problems[0]["efforts"]:
        seconds = [median(one["seconds"][name]) for one in problems if name in one["seconds"]]
        efforts = [one["efforts"][name] for one in problems]
        line = {
            "setting": name.partition(", ")[2],
            "is_kit": METHODS[name].is_kit,
            "reached": len(seconds),
            "seconds": median(seconds) if seconds else None,
            "effort": median(one["effort"] for one in efforts if one["reached"]) if seconds else 0,
            "first_seconds": efforts[0].get("first_seconds"),
            "reason": next((one["reason"] for one in efforts if not one["reached"]), ""),
        }
        title = name.partition(", ")[0]
        found[title] = min(line, found.get(title, line), key=_order)
    best = [
        min(
            (name for name in found if found[name]["is_kit"] == is_kit),
            key=lambda name: _order(found[name]),
            default=None,
        )
        for is_kit in (True, False)
    ]
    times = [found[name]["seconds"] for name in best if name and found[name]["seconds"]]
    ratio = times[0] / times[1] if len(times) == 2 else None
    return {"methods": found, "best_kit": best[0], "best_peer": best[1], "ratio": ratio}


def _order(line: dict[str, Any]) -> tuple[int, float]:
    """Rank methods: first by how many problems they solve, then by seconds."""
    return -line["reached"], line["seconds"] or 0.0


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as text."""
    lines = []
    for row in rows:
        case, found = Case(**row["case"]), summary(row)
        count = len(row["problems"])
        lines += [
            f"Time to a relative error of {row['goal']:g}: p = {case.dim}, r = {case.rank}, "
            f"m = {case.num_samples}, {case.signs} signs",
            f"{'method':<24}{'setting':<18}{'reached':>8}{'effort':>8}{'ms':>10}{'first s':>9}",
        ]
        for name, line in found["methods"].items():
            text = f"{name:<24}{line['setting']:<18}{line['reached']:>5}/{count:<2}"
            if line["seconds"] is not None:
                text += f"{line['effort']:>8g}{1e3 * line['seconds']:>10.3g}"
                text += f"{line['first_seconds']:>9.2g}"
            if line["reason"]:
                text += f"  failing: {line['reason']}"
            lines.append(text)
        if found["ratio"] is not None:
            lines.append(f"{found['best_kit']} over {found['best_peer']}: {found['ratio']:.2f}")
        lines.append("")
    return "\n".join(lines[:-1])
