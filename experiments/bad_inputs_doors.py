"""The public entry points that bad inputs are given to, and what they answer."""

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxpoly as jp
from experiments.bad_inputs_answers import Answer, EntryPoint, counted_rows, of_solution
from experiments.bad_inputs_cases import Data, P, R, good, low_rank, normal
from experiments.problems import SOLVERS, Cell
from experiments.session import Session
from experiments.sweep import sweep
from jaxpoly import Status
from jaxpoly.estimator import QuadraticNetworkClassifier, QuadraticNetworkRegressor
from jaxpoly.precision import default_rtol

NAMES = ("EP-ROM", "AP-ROM", "factored descent", "Gauss-Newton")
STEPS = 500
# A loop on the host costs milliseconds a step.
STREAMED_STEPS = 30


def build(name: str, data: Data) -> jp.Solver:
    """Return the solver of a name, with the rank and the step size of the data."""
    options = {} if data.step_size is None else {"step_size": data.step_size}
    return SOLVERS[name](data.rank, **options)


def solve(name: str, data: Data, streamed: bool = False) -> tuple[jp.Solution, int]:
    """Call `jaxpoly.solve` as a user does, and return the rows dropped too."""
    inputs = jp.StreamedRows(data.inputs, block_bytes=1024) if streamed else data.inputs
    lifting, targets = jp.Lifting(inputs, data.weight), data.targets
    dropped: Any = 0
    if data.drop:
        lifting, targets, dropped = jp.drop_nonfinite_rows(lifting, targets)
    usual = STREAMED_STEPS if streamed else STEPS
    steps = usual if data.max_steps is None else data.max_steps
    solver = build(name, data)
    solution = jp.solve(solver, lifting, targets, data.key, steps, data.rtol, data.start)
    return solution, int(dropped)


def eager(name: str, data: Data, streamed: bool = False) -> Answer:
    """Give it to `jaxpoly.solve`."""
    solution, dropped = solve(name, data, streamed)
    return of_solution(data, solution, data.rtol, num_dropped=dropped)


def _solve_lane(solver: Any, lane: dict[str, Any]) -> jp.Solution:
    """Solve one problem, all of whose numbers may be traced."""
    if "step_size" in lane:
        solver = replace(solver, step_size=lane["step_size"])
    lifting = jp.Lifting(lane["inputs"], lane["weight"])
    limits = lane["max_steps"], lane["rtol"], lane.get("start")
    return jp.solve(solver, lifting, lane["targets"], lane["key"], *limits)


_jitted = jax.jit(_solve_lane)
_batched = jax.jit(jax.vmap(_solve_lane, in_axes=(None, 0)))


def _lane_of(data: Data) -> dict[str, Any]:
    """Return what may be traced, the limits too."""
    dim = np.shape(data.inputs)[-1]
    rtol = default_rtol(jnp.dtype(float), max(dim, 1)) if data.rtol is None else data.rtol
    lane = {
        "inputs": data.inputs,
        "targets": data.targets,
        "weight": data.weight,
        "key": data.key,
        "max_steps": np.int32(STEPS if data.max_steps is None else data.max_steps),
        "rtol": np.float64(rtol),
    }
    given = {"start": data.start, "step_size": data.step_size}
    return lane | {name: value for name, value in given.items() if value is not None}


def jitted(name: str, data: Data) -> Answer:
    """Give it to `jax.jit(jaxpoly.solve)`."""
    if isinstance(data.rank, jax.Array):
        jax.jit(lambda rank: solve(name, data._replace(rank=rank))[0])(data.rank)
    if not all(map(_is_traceable, (data.inputs, data.targets))):
        # What cannot be an argument of a jitted function is refused while tracing.
        return of_solution(data, jax.jit(lambda: solve(name, data)[0])())
    solution = _jitted(build(name, data._replace(step_size=None)), _lane_of(data))
    rtol = None if data.rtol is None else data.rtol
    return of_solution(data, solution, rtol)


def _is_traceable(array: Any) -> bool:
    numeric = isinstance(array, jax.Array) or (
        isinstance(array, np.ndarray) and array.dtype.kind in "biufc" and array.dtype.isnative
    )
    return numeric and not isinstance(array, np.ma.MaskedArray)


def batched(name: str, data: Data) -> Answer:
    """Give it to `jax.vmap(jaxpoly.solve)` as one of three problems, the others good."""
    solver = build(name, data._replace(step_size=None))
    if np.ndim(data.inputs) == 3:
        keys = jax.random.split(data.key, 3)
        lane = _lane_of(data) | {"key": keys, "max_steps": np.full(3, STEPS), "rtol": np.zeros(3)}
        solutions = _batched(solver, lane)
        statuses = set(np.asarray(solutions.status).tolist())
        lone = data._replace(inputs=data.inputs[0], targets=data.targets[0], weight=data.weight[0])
        return of_solution(lone, _lane(solutions, 0), untouched=len(statuses) == 1)
    solutions = _three(solver, data)
    reference = _good_three(name, data.start is not None, data.step_size is not None)
    pairs = [(_lane(solutions, lane), _lane(reference, lane)) for lane in (0, 2)]
    untouched = all(jax.tree.all(jax.tree.map(np.array_equal, *pair)) for pair in pairs)
    rtol = None if data.rtol is None else data.rtol
    return of_solution(data, _lane(solutions, 1), rtol, untouched=untouched)


def _three(solver: jp.Solver, data: Data) -> jp.Solution:
    """Solve the problem between two good ones."""
    beside: dict[str, Any] = Data._field_defaults | {
        "start": None if data.start is None else low_rank(normal(4, (P, R))),
        "step_size": None if data.step_size is None else np.float64(0.1),
    }
    lanes = [good(0)._replace(**beside), data, good(2)._replace(**beside)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(_lane_of, lanes))
    return _batched(solver, stacked)


@cache
def _good_three(name: str, has_start: bool, has_step: bool) -> jp.Solution:
    start = low_rank(normal(5, (P, R))) if has_start else None
    step = np.float64(0.1) if has_step else None
    data = good(1)._replace(start=start)
    return _three(build(name, data), data._replace(step_size=step))


def _lane(solutions: jp.Solution, lane: int) -> jp.Solution:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[lane], solutions)


def recovered(data: Data) -> Answer:
    """Give it to `jaxpoly.recover`."""
    limits = {
        name: getattr(data, name)
        for name in ("max_steps", "rtol")
        if getattr(data, name) is not None
    }
    solution = jp.recover(
        data.inputs,
        data.targets,
        data.rank,
        key=data.key,
        sample_weight=data.weight,
        robust=data.robust,
        drop_nonfinite=data.drop,
        **limits,
    )
    # It promises what rounding leaves possible, in the coordinates it works in.
    promised = max(float(solution.relative_residual), default_rtol(solution.value.factor.dtype, 1))
    weight = solution.sample_weight if data.robust else None
    dropped = int(solution.num_dropped)
    return of_solution(data, solution, promised, weight, num_dropped=dropped)


def fitted(classifier: bool, data: Data) -> Answer:
    """Give it to an estimator."""
    limits = {} if data.max_steps is None else {"max_steps": data.max_steps}
    options = {"drop_nonfinite": data.drop, "random_state": 0} | limits
    model: Any
    if classifier:
        model = QuadraticNetworkClassifier(data.rank, ridge=0.01, **options)
        labels = np.asarray(data.targets) > 0
        model.fit(data.inputs, labels, sample_weight=data.weight)
        counted = counted_rows(data, data.weight)
        predictions = model.decision_function(_rows(data.inputs, counted))
    else:
        model = QuadraticNetworkRegressor(data.rank, ridge=0.0, robust=data.robust, **options)
        model.fit(data.inputs, data.targets, sample_weight=data.weight)
        weight = model.sample_weight_ if data.robust else data.weight
        counted = counted_rows(data, weight)
        predictions = model.predict(_rows(data.inputs, counted))
    parts = model.neurons_, model.output_weights_, model.coef_, model.intercept_, predictions
    return Answer(
        Status[model.status_],
        None,
        np.nan,
        1e-6 if predictions.dtype == np.float64 else 1e-3,
        np.asarray(predictions, np.longdouble),
        np.abs(predictions),
        counted,
        all(bool(np.isfinite(part).all()) for part in parts),
        num_dropped=model.n_dropped_,
    )


def _rows(inputs: Any, counted: np.ndarray) -> Any:
    return inputs[counted] if hasattr(inputs, "shape") else np.asarray(inputs)[counted]


def swept(data: Data) -> Answer:
    """Give its sizes and limits to a cell of a sweep."""
    limits: dict[str, Any] = {
        name: getattr(data, name)
        for name in ("max_steps", "rtol")
        if getattr(data, name) is not None
    }
    num_samples, dim = np.shape(data.inputs)
    cell = Cell("Gauss-Newton", dim, data.rank, num_samples, **limits)
    found = sweep("bad-inputs", [cell], 1, 0, Session(devices=1))
    none = np.zeros(0)
    return Answer(
        Status(found.status.item()),
        found.num_steps.item(),
        found.relative_residual.item(),
        cell.rtol,
        none,
        none,
        np.zeros(num_samples, bool),
        bool(np.isfinite(found.relative_residual).all()),
    )


def entry_points() -> tuple[EntryPoint, ...]:
    """Return all entry points."""
    arrays = frozenset({"value", "array"})
    hosted = arrays | {"object", "option"}
    data = frozenset({"inputs", "targets", "weight", "rank", "truth"})
    limits = frozenset({"max_steps", "rtol"})
    host = data | limits | {"key", "drop", "x64", "start"}
    listed = []
    for name in NAMES:
        takes = host if name == "Gauss-Newton" else host | {"step_size"}
        listed += [
            EntryPoint(name, "solve", takes, hosted, partial(eager, name)),
            EntryPoint(
                f"{name}, jitted", "jitted", takes - {"x64", "drop"}, arrays, partial(jitted, name)
            ),
            EntryPoint(
                f"{name}, in a batch",
                "batch",
                takes - {"x64", "drop"},
                frozenset({"value"}),
                partial(batched, name),
            ),
        ]
    streamed = partial(eager, "Gauss-Newton", streamed=True)
    takes = data | limits | {"max_steps", "robust", "drop", "x64"}
    return (
        *listed,
        EntryPoint("streamed rows", "streamed", data | limits | {"key"}, hosted, streamed),
        EntryPoint("recover", "recover", takes | {"key"}, hosted, recovered),
        EntryPoint("regressor", "regressor", takes - {"rtol"}, hosted, partial(fitted, False)),
        EntryPoint("classifier", "classifier", takes - {"rtol"}, hosted, partial(fitted, True)),
        EntryPoint("sweep", "sweep", data | limits, hosted, swept),
    )
