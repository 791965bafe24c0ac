"""Bad inputs: a table of them at every entry point, and whether each is met as it should be.

Wrong shapes, types and options have to be refused with a message; NaN, infinities, extreme
scales and degenerate data have to end in a truthful status; unusual but good data have to be
answered rightly; and a success that the residual, computed again in extended precision, does
not bear out is a false one.  In a batch the other problems have to stay bitwise what they are.
"""

import re
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap

from experiments import figures, memory_maps
from experiments.bad_inputs_answers import Answer, EntryPoint, numbers
from experiments.bad_inputs_cases import BOTH, Case, Ends, Refused, Right, Same, good
from experiments.bad_inputs_doors import entry_points
from experiments.bad_inputs_forms import kinds, options, shapes
from experiments.bad_inputs_numbers import not_finite, scales, unruly
from experiments.session import Session
from jaxpoly import Status

# Outcomes, the first three as they should be, and what they are called in tables.
OUTCOMES = {
    "refused": "refused with a message",
    "truthful": "truthful status",
    "right": "answered rightly",
    "false success": "FALSE SUCCESS",
    "unexpected": "UNEXPECTED",
}
FAILURES = ("false success", "unexpected")


@dataclass(frozen=True)
class Config:
    """Which part of the table."""

    only: tuple[str, ...] = ()
    """Names of entry points; all of them if empty."""
    own_programs: bool = True
    """Also the cases that compile a program each."""
    seed: int = 0
    """Not used: nothing is random."""


PRESETS = {
    "smoke": Config(only=("Gauss-Newton, in a batch", "sweep"), own_programs=False),
    "paper": Config(),
    "full": Config(),
}


@cache
def cases() -> tuple[Case, ...]:
    """Return the table."""
    return (*shapes(), *kinds(), *not_finite(), *scales(), *unruly(), *options())


def pairs(config: Config) -> list[tuple[Case, EntryPoint]]:
    """Return every case with every entry point that can be given it."""
    return [
        (case, point)
        for point in entry_points()
        for case in cases()
        if point.applies(case)
        and (not config.only or point.name in config.only)
        and (config.own_programs or not needs_program(case, point))
    ]


def needs_program(case: Case, point: EntryPoint) -> bool:
    """Return whether a program is compiled for this case alone: a refusal takes none."""
    refused = isinstance(case.wanted_at(point.family, point.name), Refused)
    return case.own_program and not refused


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return what came of every case at every entry point."""
    session = session or Session()
    chosen = pairs(config)
    rows = []
    with session.progress("bad inputs", len(chosen), unit="case") as progress:
        for case, point in chosen:
            compute = partial(attempt, case, point)
            rows.append(session.ledger.recall(f"{point.name}/{case.name}", compute))
            memory_maps.keep_few()
            progress.advance()
    return {"rows": rows, "cases": len({case.name for case, _ in chosen})}


def attempt(case: Case, point: EntryPoint) -> dict[str, Any]:
    """Give one case to one entry point and say what came of it."""
    began = time.perf_counter()
    outcome, detail = judge(case, point)
    return {
        "case": case.name,
        "catalogue": case.row,
        "entry_point": point.name,
        "outcome": outcome,
        "detail": detail,
        "seconds": time.perf_counter() - began,
    }


def judge(case: Case, point: EntryPoint) -> tuple[str, str]:
    """Return the outcome, one of `OUTCOMES`, and what was said or is wrong."""
    wanted = case.wanted_at(point.family, point.name)
    with warnings.catch_warnings(record=True) as caught, jax.enable_x64(case.data.x64):
        warnings.simplefilter("always")
        try:
            answer = point.answer(case.data)
        except (ValueError, TypeError) as error:
            words = str(error)
            fits = isinstance(wanted, Refused) and re.search(wanted.words, words)
            return ("refused" if fits else "unexpected"), f"{type(error).__name__}: {words}"
        except Exception as error:
            return "unexpected", f"{type(error).__name__}: {error}"
    if isinstance(wanted, Refused):
        return "unexpected", f"not refused: {answer.status.name}"
    detail = f"{answer.status.name}, residual {answer.claimed:.1e}"
    if point.family not in ("classifier", "sweep") and is_false_success(case, answer):
        return "false success", f"{detail}; recomputed {recomputed(case, answer):.1e}"
    counted = [str(warning.message) for warning in caught if "x64" in str(warning.message)]
    faults = {
        "not finite": answer.finite,
        "the rest of the batch changed": answer.untouched,
        "number of rows dropped": answer.num_dropped == case.num_dropped,
        "not said to be underdetermined": answer.underdetermined in (None, case.underdetermined),
        # An estimator computes in float64 whatever the setting.
        "warnings of x64": len(counted) == (bool(case.warning) and point.family not in BOTH),
        "residual not as claimed": point.family == "classifier" or is_claim_true(case, answer),
        "not as wanted": fits_wanted(case, point, answer),
    }
    wrong = [name for name, fine in faults.items() if not fine]
    if wrong:
        return "unexpected", f"{', '.join(wrong)}: {detail}, recomputed {recomputed(case, answer)}"
    return ("right" if isinstance(wanted, Right | Same) else "truthful"), detail


def fits_wanted(case: Case, point: EntryPoint, answer: Answer) -> bool:
    """Return whether the answer is the one the table has for this entry point."""
    wanted = case.wanted_at(point.family, point.name)
    if isinstance(wanted, Ends):
        steps = answer.num_steps
        ended = wanted.num_steps is None or steps is None or steps <= wanted.num_steps
        return answer.status in wanted.statuses and ended
    if isinstance(wanted, Same):
        return np.array_equal(answer.predictions, _usual(point).predictions)
    if isinstance(wanted, Right) and point.family not in ("classifier", "sweep"):
        return recomputed(case, answer) <= wanted.residual
    return True


@cache
def _usual(point: EntryPoint) -> Answer:
    return point.answer(good())


def recomputed(case: Case, answer: Answer) -> float:
    """Return the relative residual in extended precision, NaN where there is nothing to fit."""
    nothing = answer.status in (Status.NONFINITE_INPUT, Status.DEGENERATE)
    if nothing or not len(answer.predictions):
        return np.nan
    data = case.data
    truth = data.targets if data.truth is None else data.truth
    targets = np.asarray(numbers(truth), np.longdouble).reshape(-1)[answer.counted]
    spread = np.std(targets)
    if spread == 0 or len(answer.predictions) != len(targets):
        return np.nan
    return float(np.sqrt(np.mean((answer.predictions - targets) ** 2)) / spread)


def rounding(case: Case, answer: Answer) -> float:
    """Return the relative residual that rounding alone explains."""
    targets = np.asarray(numbers(case.data.targets), np.longdouble).reshape(-1)[answer.counted]
    eps = 1e-16 if answer.rtol < 1e-9 else 1e-7
    sizes = np.asarray(answer.terms, np.longdouble), targets
    size = sum(np.sqrt(np.mean(array**2)) for array in sizes)
    return float(100 * eps * size / np.std(targets))


def is_false_success(case: Case, answer: Answer) -> bool:
    """Return whether CONVERGED is said of a residual that is larger than was promised."""
    residual = recomputed(case, answer)
    if answer.status != Status.CONVERGED or np.isnan(residual):
        return False
    return residual > 1.01 * answer.rtol + rounding(case, answer)


def is_claim_true(case: Case, answer: Answer) -> bool:
    """Return whether the relative residual is the one that is claimed."""
    residual = recomputed(case, answer)
    if not np.isfinite(residual) or not np.isfinite(answer.claimed):
        return True
    slack = 0.01 * residual + rounding(case, answer)
    return abs(residual - answer.claimed) <= slack


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw every case at every entry point, coloured by what came of it."""
    names = list(dict.fromkeys(row["entry_point"] for row in saved["rows"]))
    listed = sorted({(row["catalogue"], row["case"]) for row in saved["rows"]})
    kinds = list(OUTCOMES)
    grid = np.full((len(names), len(listed)), np.nan)
    for row in saved["rows"]:
        place = (
            names.index(row["entry_point"]),
            listed.index((row["catalogue"], row["case"])),
        )
        grid[place] = kinds.index(row["outcome"])
    colours = ("0.75", "#56B4E9", "#009E73", "#D55E00", "#000000")
    size = (2.4 + 0.085 * len(listed), 1.6 + 0.2 * len(names))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.pcolormesh(
        grid, cmap=ListedColormap(colours), vmin=-0.5, vmax=4.5, edgecolor="white", lw=0.5
    )
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=7)
    numbered = [index for index, (row, _) in enumerate(listed) if row and row % 5 == 0]
    firsts = {listed[index][0]: index for index in reversed(numbered)}
    axes.set_xticks([place + 0.5 for place in firsts.values()], [str(row) for row in firsts])
    axes.set_xlabel("row of the catalogue; a column a case")
    axes.invert_yaxis()
    for name, colour in zip(OUTCOMES, colours, strict=True):
        axes.plot([], [], "s", color=colour, label=OUTCOMES[name])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=5, fontsize=7, frameon=False)
    figures.save(figure, folder, "bad-inputs")


def table(saved: dict[str, Any]) -> str:
    """Return the counts by entry point, and every failure."""
    rows = saved["rows"]
    text = [
        f"{'entry point':<28}{'tried':>7}" + "".join(f"{words:>24}" for words in OUTCOMES.values())
    ]
    for name in [*dict.fromkeys(row["entry_point"] for row in rows), "all"]:
        part = [row["outcome"] for row in rows if name in (row["entry_point"], "all")]
        counts = Counter(part)
        text.append(
            f"{name:<28}{len(part):>7}" + "".join(f"{counts[kind]:>24}" for kind in OUTCOMES)
        )
    counts = Counter(row["outcome"] for row in rows)
    text += [
        "",
        f"bad inputs tried: {len(rows)} ({saved['cases']} cases; rows of the catalogue: "
        f"{len({row['catalogue'] for row in rows} - {0})})",
        f"false successes: {counts['false success']}; unexpected: {counts['unexpected']}",
    ]
    text += [
        f"{row['entry_point']}, {row['case']}: {row['outcome']}: {row['detail']}"
        for row in rows
        if row["outcome"] in FAILURES
    ]
    return "\n".join(text)
