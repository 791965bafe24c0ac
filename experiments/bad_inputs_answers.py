"""What every entry point answers, in the same words, and which cases it can be given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import jaxpoly as jp
from experiments.bad_inputs_cases import Case, Data, Refused
from jaxpoly import Status
from jaxpoly.precision import default_rtol


class Answer(NamedTuple):
    """What an entry point said, in the same words for all of them.

    Attributes:
        status: how it ended.
        num_steps: steps taken; None where it is not told.
        claimed: the relative residual it claims; NaN where it claims none.
        rtol: the relative residual that its CONVERGED promises.
        predictions: of the rows that count, in extended precision where the answer is a matrix.
        terms: the size of what the predictions are sums of, row by row.
        counted: the rows that count.
        finite: whether every number of the answer is.
        underdetermined: as in `Solution`; None where it is not told.
        num_dropped: rows given no weight.
        untouched: whether the other problems of its batch are bitwise as without it.
    """

    status: Status
    num_steps: int | None
    claimed: float
    rtol: float
    predictions: np.ndarray
    terms: np.ndarray
    counted: np.ndarray
    finite: bool
    underdetermined: bool | None = None
    num_dropped: int = 0
    untouched: bool = True


@dataclass(frozen=True)
class EntryPoint:
    """A way into the package.

    Attributes:
        name: as the tables have it.
        family: of the entry points that behave alike.
        takes: the fields of `Data` it can be given.
        kinds: the kinds of cases it can be given; "object" where it is refused too.
        answer: give it data.
    """

    name: str
    family: str
    takes: frozenset[str]
    kinds: frozenset[str]
    answer: Callable[[Data], Answer]

    def applies(self, case: Case) -> bool:
        """Return whether the case can be given to this entry point."""
        if not set(case.changed) <= self.takes:
            return False
        if self.family == "sweep":
            return case.sizes
        if self.family == "classifier" and "inputs" not in case.changed:
            # Its targets are labels.
            return "targets" not in case.changed
        if self.family == "batch" and np.ndim(case.data.inputs) == 3:
            return "targets" in case.changed
        traced = self.family in ("jitted", "batch")
        if case.kind == "option" and traced:
            return case.traced is not None
        refused = isinstance(case.wanted_at(self.family, self.name), Refused)
        return case.kind in self.kinds or (
            case.kind == "object" and refused and self.family == "jitted"
        )


def numbers(array: Any) -> np.ndarray:
    """Return any array in float64, as numpy has it."""
    return np.asarray(array).astype(np.float64)


def counted_rows(data: Data, weight: Any) -> np.ndarray:
    """Return the rows of nonzero weight, without those dropped."""
    counted = numbers(weight) != 0
    if data.drop:
        finite = np.isfinite(numbers(data.inputs)).all(axis=1) & np.isfinite(numbers(data.targets))
        counted &= finite
    return counted


def of_solution(
    data: Data, solution: jp.Solution, rtol: float | None = None, weight: Any = None, **more: Any
) -> Answer:
    """Return what a `Solution` says."""
    counted = counted_rows(data, data.weight if weight is None else weight)
    inputs = np.asarray(numbers(data.inputs), np.longdouble)[counted]
    parts = (solution.value.factor, solution.value.diagonal, solution.linear, solution.intercept)
    factor, diagonal, linear, intercept = (np.asarray(part, np.longdouble) for part in parts)
    with np.errstate(all="ignore"):
        squares = (inputs @ factor) ** 2
        predictions = squares @ diagonal + inputs @ linear + intercept
        terms = squares @ np.abs(diagonal) + np.abs(inputs) @ np.abs(linear) + np.abs(intercept)
        terms += (np.abs(inputs) @ np.abs(factor)) ** 2 @ np.abs(diagonal)
    dtype = solution.value.factor.dtype
    return Answer(
        Status(int(solution.status)),
        int(solution.num_steps),
        float(solution.relative_residual),
        default_rtol(dtype, inputs.shape[1]) if rtol is None else rtol,
        predictions,
        terms,
        counted,
        all(bool(np.isfinite(np.asarray(part)).all()) for part in parts),
        bool(solution.underdetermined),
        **more,
    )
