"""The driver refuses bad arguments with words that help, and reports failures on request."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxpoly as jp
from jaxpoly import Status

KEY = jax.random.key(0)
LIFTING = jp.Lifting(np.ones((6, 4)))
TARGETS = np.ones(6)
SOLUTION = jp.Solution(
    value=jp.LowRank(jnp.ones((4, 2)), jnp.ones(2)),
    intercept=jnp.zeros(()),
    linear=jnp.zeros(4),
    status=jnp.int32(0),
    num_steps=jnp.int32(12),
    relative_residual=jnp.array(0.25),
    stationarity=jnp.zeros(()),
    underdetermined=jnp.array(False),
)
ADAM = partial(jp.factored_descent, 2, optimizer=optax.adam)

ENTRIES = {
    "solve": jp.solve,
    "init_run": jp.init_run,
    "trajectory": jp.trajectory,
    "jitted solve": jax.jit(jp.solve),
}
BAD_DATA = {
    "short targets": ({"targets": np.ones(5)}, ValueError, "targets has length 5.*6 rows"),
    "targets as a column": (
        {"targets": np.ones((6, 1))},
        ValueError,
        r"targets has shape \(6, 1\).*pass its .ravel\(\)",
    ),
    "a batch of inputs": (
        {"lifting": jp.Lifting(np.ones((2, 6, 4)))},
        ValueError,
        r"lifting.inputs has shape \(2, 6, 4\).*jax.vmap",
    ),
    "complex inputs": ({"lifting": jp.Lifting(np.ones((6, 4)) + 0j)}, TypeError, "complex128"),
    "complex targets": ({"targets": TARGETS + 0j}, TypeError, "targets has dtype complex128"),
    "complex start": (
        {"start": jp.LowRank(np.ones((4, 2)) + 0j, np.ones(2))},
        TypeError,
        "start.factor has dtype complex128",
    ),
    "short weights": (
        {"lifting": jp.Lifting(np.ones((6, 4)), np.ones(5))},
        ValueError,
        "sample_weight has length 5",
    ),
    "rank above p": ({"solver": jp.ep_rom(5)}, ValueError, "rank is 5, above .* p = 4"),
    "start of another p": (
        {"start": jp.LowRank(np.ones((5, 2)), np.ones(2))},
        ValueError,
        r"start has factor \(5, 2\).*p = 4",
    ),
    "keys in a batch": ({"key": jax.random.split(KEY, 2)}, ValueError, r"batch shape \(2,\)"),
    "key of floats": ({"key": np.ones(2)}, TypeError, "key has dtype float64"),
}
BAD_VALUES = {
    "inputs instead of a lifting": ({"lifting": np.ones((6, 4))}, TypeError, "jaxpoly.Lifting"),
    "a matrix as start": ({"start": np.ones((4, 4))}, TypeError, "start is a ndarray"),
    "a function as solver": ({"solver": jp.ep_rom}, TypeError, "expected a solver such as"),
    "no solver": ({"solver": None}, TypeError, "solver is None; expected a solver such as"),
    "an int as key": ({"key": 0}, TypeError, r"jax.random.key\(0\)"),
    "no key": ({"key": None}, TypeError, "key is a NoneType; expected a JAX key"),
}
BAD_LIMITS = {
    "negative rtol": ({"rtol": -1e-3}, ValueError, "rtol is -0.001"),
    "rtol NaN": ({"rtol": float("nan")}, ValueError, "rtol is nan"),
    "numpy rtol NaN": ({"rtol": np.float64("nan")}, ValueError, "rtol is nan"),
    "negative max_steps": ({"max_steps": -1}, ValueError, "max_steps is -1"),
    "negative array as max_steps": ({"max_steps": jnp.int32(-1)}, ValueError, "max_steps is -1"),
    "a float as max_steps": ({"max_steps": 10.0}, TypeError, "max_steps is 10.0"),
    "a float array as max_steps": ({"max_steps": jnp.ones(())}, TypeError, "dtype float"),
    "a bool as max_steps": ({"max_steps": True}, TypeError, "max_steps is True"),
}


def call(entry, solver=None, lifting=LIFTING, targets=TARGETS, key=KEY, **options):
    return entry(solver, lifting, targets, key, **options)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("case", BAD_DATA)
def test_every_entry_refuses_data_of_wrong_shape_or_kind_also_while_tracing(case, entry):
    change, error, words = BAD_DATA[case]
    with pytest.raises(error, match=words):
        call(ENTRIES[entry], **{"solver": jp.ep_rom(2), **change})


@pytest.mark.parametrize("entry", [jp.solve, jp.init_run, jp.trajectory])
@pytest.mark.parametrize("case", BAD_VALUES)
def test_every_entry_refuses_objects_of_the_wrong_type(case, entry):
    change, error, words = BAD_VALUES[case]
    with pytest.raises(error, match=words):
        call(entry, **{"solver": jp.ep_rom(2), **change})


@pytest.mark.parametrize("case", BAD_LIMITS)
def test_solve_refuses_limits_out_of_range(case):
    change, error, words = BAD_LIMITS[case]
    with pytest.raises(error, match=words):
        call(jp.solve, jp.ep_rom(2), **change)


@pytest.mark.parametrize(
    ("num_steps", "error"),
    [(-1, ValueError), (2.0, TypeError), (True, TypeError), (jnp.int32(3), TypeError)],
)
def test_trajectory_refuses_a_number_of_steps_that_is_no_count(num_steps, error):
    with pytest.raises(error, match="num_steps is"):
        call(jp.trajectory, jp.ep_rom(2), num_steps=num_steps)


@pytest.mark.parametrize("build", [jp.ep_rom, jp.ap_rom, jp.factored_descent])
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"rank": 0}, ValueError, "rank is 0; expected at least 1"),
        ({"rank": -2}, ValueError, "rank is -2"),
        ({"rank": 2.0}, TypeError, "rank is 2.0 of type float"),
        ({"rank": True}, TypeError, "rank is True"),
        ({"rank": jnp.int32(2)}, TypeError, "rank is .*not traced"),
        ({"step_size": 0.0}, ValueError, "step_size is 0.0"),
        ({"step_size": -0.1}, ValueError, "step_size is -0.1"),
        ({"step_size": float("nan")}, ValueError, "step_size is nan"),
        ({"step_size": float("inf")}, ValueError, "step_size is inf"),
        ({"step_size": True}, TypeError, "step_size is True"),
        ({"step_size": "0.1"}, TypeError, "step_size is '0.1'"),
        ({"debias": "center"}, ValueError, "debias is 'center'; expected one of 'centre'"),
        ({"positive": 1}, TypeError, "positive is 1"),
    ],
)
def test_builders_refuse_options_out_of_range(build, options, error, words):
    with pytest.raises(error, match=words):
        build(**{"rank": 2, **options})


def test_a_traced_rank_is_refused():
    with pytest.raises(TypeError, match="not traced"):
        jax.eval_shape(lambda rank: jp.ep_rom(rank).step_size, jnp.int32(2))


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (partial(jp.ap_rom, 2, head="both"), ValueError, "head is 'both'"),
        (partial(jp.ap_rom, 2, depth=-1), ValueError, "depth is -1"),
        (partial(jp.ap_rom, 2, depth=1.5), TypeError, "depth is 1.5"),
        (ADAM, ValueError, "step_size is None, which is defined for optax.sgd"),
        (
            partial(jp.factored_descent, 2, 0.1, optimizer=optax.adam(0.1)),
            TypeError,
            "expected an optax constructor",
        ),
    ],
)
def test_builders_refuse_their_own_options_out_of_range(build, error, words):
    with pytest.raises(error, match=words):
        build()


@pytest.mark.parametrize("status", [Status.CONVERGED, Status.STATIONARY])
def test_success_passes_raise_if_failed(status):
    jp.raise_if_failed(dataclasses.replace(SOLUTION, status=jnp.int32(status)))
    jp.raise_if_failed(dataclasses.replace(SOLUTION, status=jnp.full((2, 3), status)))


@pytest.mark.parametrize("status", [s for s in Status if s > Status.STATIONARY])
def test_a_failure_raises_with_its_name_its_numbers_and_advice(status):
    with pytest.raises(jp.SolveError, match=f"{status.name} after 12 steps.*2.50e-01") as raised:
        jp.raise_if_failed(dataclasses.replace(SOLUTION, status=jnp.int32(status)))
    assert str(raised.value).endswith(jp.describe(status))


def test_failures_in_a_batch_raise_with_their_count_and_the_first_index():
    status = np.zeros((2, 3), np.int32)
    status[0, 2], status[1, 0], status[1, 1] = Status.STALLED, Status.DIVERGED, Status.STATIONARY
    batch = dataclasses.replace(
        SOLUTION,
        status=jnp.asarray(status),
        num_steps=jnp.arange(6).reshape(2, 3),
        relative_residual=jnp.linspace(0, 0.5, 6).reshape(2, 3),
    )
    words = r"2 of 6 solves failed, first at index \(0, 2\): STALLED after 2 steps .*2.00e-01"
    with pytest.raises(jp.SolveError, match=words):
        jp.raise_if_failed(batch)


def test_every_status_has_its_own_sentence():
    sentences = [jp.describe(status) for status in Status]
    assert len(set(sentences)) == len(Status) == 7
    assert all(len(sentence) > 30 and sentence.endswith(".") for sentence in sentences)
    assert jp.describe(jnp.int32(3)) == jp.describe(Status.STALLED) == jp.describe(3)
    with pytest.raises(ValueError, match="7"):
        jp.describe(7)
    for status in (jnp.zeros(2, jnp.int32), 1.5, True, None):
        with pytest.raises(TypeError, match="expected one jaxpoly"):
            jp.describe(status)


def test_what_is_no_run_or_no_solution_is_refused_by_name():
    run = jp.init_run(jp.ep_rom(2), LIFTING, TARGETS, KEY)
    data = LIFTING, TARGETS
    for other in (None, run.state):
        with pytest.raises(TypeError, match="run is a"):
            jp.advance(jp.ep_rom(2), *data, other, 3)
        with pytest.raises(TypeError, match="run is a"):
            jp.finish(other)
    with pytest.raises(ValueError, match="expected the run that init_run made of them"):
        jp.advance(jp.ep_rom(1), *data, run, 3)
    with pytest.raises(ValueError, match="expected the run that init_run made of them"):
        jp.advance(jp.ep_rom(2), jp.Lifting(LIFTING.inputs[:-1]), TARGETS[:-1], run, 3)
    solution = jp.finish(run)
    for refuse in (jp.implicit, jp.standard_errors):
        with pytest.raises(TypeError, match="solution is a LowRank"):
            refuse(jp.ep_rom(2), *data, solution.value)
        with pytest.raises(TypeError, match="solver is None"):
            refuse(None, *data, solution)
    with pytest.raises(TypeError, match="solution is a NoneType"):
        jp.raise_if_failed(None)
