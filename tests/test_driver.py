"""The driver: every status is reached and true, bad input is refused, pieces equal the whole."""

import dataclasses
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxpoly as jp
from jaxpoly import Status

SOLVER = jp.ep_rom(2)
KEY = jax.random.key(7)
PROBLEM = jp.sample_problem(jax.random.key(0), num_samples=120, dim=12, rank=2)
INPUTS, TARGETS = np.asarray(PROBLEM.lifting.inputs), np.asarray(PROBLEM.targets)
WEIGHTS = np.ones(120)
ZERO = jp.LowRank(np.zeros((12, 2)), np.zeros(2))
BUILDERS = {"ep_rom": jp.ep_rom, "ap_rom": jp.ap_rom, "factored": jp.factored_descent}
slow = partial(pytest.param, marks=pytest.mark.slow)
each_builder = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


def solve(solver=SOLVER, inputs=INPUTS, targets=TARGETS, **options) -> jp.Solution:
    return jp.solve(solver, jp.Lifting(inputs), targets, KEY, **options)


def spoil(array: np.ndarray, value: float) -> np.ndarray:
    """Put one bad number in the middle."""
    array = array.copy()
    array.flat[array.size // 2] = value
    return array


def same(left, right) -> bool:
    return jax.tree.all(jax.tree.map(jnp.array_equal, left, right))


def finite(solution: jp.Solution) -> bool:
    return bool(jnp.isfinite(jp.to_dense(solution.value)).all() & jnp.isfinite(solution.intercept))


def test_noiseless_data_end_converged_long_before_the_steps_run_out():
    solution = solve()
    assert solution.status == Status.CONVERGED
    assert solution.num_steps < 200
    assert jp.relative_error(solution.value, PROBLEM.truth) < 1e-12


def test_noisy_data_end_stationary_with_the_residual_of_an_oracle():
    noise = 0.5 * np.random.default_rng(1).normal(size=120)
    solution = solve(targets=TARGETS + noise)
    assert solution.status == Status.STATIONARY
    assert solution.stationarity < 1e-7
    # An oracle projects the noise off the tangent space: 24 unknowns of 120 samples.
    level = np.sqrt(np.mean(noise**2) * (1 - 24 / 120)) / np.std(TARGETS + noise)
    assert_allclose(solution.relative_residual, level, rtol=0.15)


def test_few_steps_end_with_max_steps_and_continue_from_the_value():
    short = solve(max_steps=5)
    assert (short.status, short.num_steps) == (Status.MAX_STEPS, 5)
    longer = solve(max_steps=500, start=short.value)
    assert longer.status == Status.CONVERGED


def test_no_steps_return_the_start_with_max_steps():
    solution = solve(max_steps=0, start=PROBLEM.truth, rtol=0.0)
    assert (solution.status, solution.num_steps) == (Status.MAX_STEPS, 0)
    assert jp.relative_error(solution.value, PROBLEM.truth) < 1e-14


def test_rounding_level_is_stalled_and_never_converged_for_zero_rtol():
    solution = solve(max_steps=2000, rtol=0.0)
    assert solution.status in (Status.STALLED, Status.STATIONARY)
    assert 0 < solution.relative_residual < 1e-14
    assert solution.num_steps < 600


def test_a_start_on_a_saddle_is_stalled():
    solution = solve(jp.factored_descent(2), start=ZERO)
    assert solution.status == Status.STALLED
    assert solution.num_steps <= 101
    assert_allclose(jp.to_dense(solution.value), 0)


@pytest.mark.parametrize("step_size", [5.0, 1e3, 1e30, 1e300])
def test_a_much_too_large_step_is_diverged_soon_and_the_best_iterate_is_returned(step_size):
    solution = solve(jp.ep_rom(2, step_size=step_size), max_steps=10_000)
    assert solution.status == Status.DIVERGED
    assert solution.num_steps < 200
    assert finite(solution)
    assert solution.relative_residual <= 1
    residual = TARGETS - np.asarray(jp.measure(PROBLEM.lifting, solution.value))
    relative = np.std(residual) / np.std(TARGETS)
    assert_allclose(solution.relative_residual, relative, rtol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_in_inputs_or_targets_ends_at_once(bad):
    for data in ({"inputs": spoil(INPUTS, bad)}, {"targets": spoil(TARGETS, bad)}):
        solution = solve(**data)
        assert (solution.status, solution.num_steps) == (Status.NONFINITE_INPUT, 0)
        assert finite(solution)
        assert solution.relative_residual == np.inf


@pytest.mark.parametrize("dtype", [np.float64, slow(np.float32)])
def test_one_bad_number_in_many_ends_at_once(dtype):
    # XLA on CPU reduces larger arrays in parts, and its maximum then ignores NaN.
    problem = jp.sample_problem(jax.random.key(0), 1000, 20, 2, dtype=dtype)
    inputs = np.asarray(problem.lifting.inputs)
    for bad in (np.nan, np.inf):
        run = jp.init_run(SOLVER, jp.Lifting(spoil(inputs, bad)), problem.targets, KEY)
        assert jp.finish(run).status == Status.NONFINITE_INPUT


@pytest.mark.parametrize("build", [jp.ep_rom, slow(jp.ap_rom), slow(jp.factored_descent)])
def test_bad_lanes_of_a_batch_leave_the_good_ones_alone(build):
    good = INPUTS, TARGETS, WEIGHTS, ZERO.factor + 0.1
    lanes = [good]
    for position, bad in ((0, np.nan), (0, np.inf), (1, np.nan), (1, np.inf)):
        lanes.append((*good[:position], spoil(good[position], bad), *good[position + 1 :]))
    for weight in (np.nan, np.inf, -1.0):
        lanes.append((*good[:2], spoil(WEIGHTS, weight), good[3]))
    lanes += [(*good[:3], spoil(good[3], np.nan)), (*good[:3], spoil(good[3], np.inf)), good]
    diagonal = jnp.array([1.0, -1.0])

    @jax.jit
    @jax.vmap
    def batch(inputs, targets, weights, factor):
        start = jp.LowRank(factor, diagonal)
        return jp.solve(build(2), jp.Lifting(inputs, weights), targets, KEY, 400, 1e-9, start)

    solutions = batch(*map(np.stack, zip(*lanes, strict=True)))
    alone = jp.solve(
        build(2),
        jp.Lifting(INPUTS, WEIGHTS),
        TARGETS,
        KEY,
        400,
        1e-9,
        jp.LowRank(good[3], diagonal),
    )
    assert solutions.status[1:-1].tolist() == [Status.NONFINITE_INPUT] * (len(lanes) - 2)
    assert solutions.num_steps[1:-1].tolist() == [0] * (len(lanes) - 2)
    assert finite(dataclasses.replace(alone, value=jax.tree.map(lambda x: x[1], solutions.value)))
    for lane in (0, -1):
        assert solutions.status[lane] == alone.status
        value = jax.tree.map(itemgetter(lane), solutions.value)
        assert jp.relative_error(value, alone.value) < 1e-7


def test_a_start_that_is_not_finite_ends_at_once():
    for bad in (np.nan, np.inf):
        solution = solve(start=jp.LowRank(spoil(ZERO.factor, bad), np.ones(2)))
        assert (solution.status, solution.num_steps) == (Status.NONFINITE_INPUT, 0)
        assert finite(solution)


def test_constant_or_zero_targets_and_zero_inputs_are_degenerate():
    for data in (
        {"targets": np.full(120, 3.7)},
        {"targets": np.full(120, 1e-30)},
        {"targets": np.zeros(120)},
        {"inputs": np.zeros((120, 12))},
    ):
        solution = solve(**data)
        assert (solution.status, solution.num_steps) == (Status.DEGENERATE, 0)
        assert_allclose(jp.to_dense(solution.value), 0)
        assert_allclose(solution.intercept, np.mean(data.get("targets", TARGETS)))


def test_weights_that_are_all_zero_or_negative_raise_eagerly_and_are_a_status_under_jit():
    jitted = jax.jit(lambda w: jp.solve(SOLVER, jp.Lifting(INPUTS, w), TARGETS, KEY))
    zero, negative = np.zeros(120), spoil(WEIGHTS, -1.0)
    assert jitted(zero).status == Status.DEGENERATE
    assert jitted(negative).status == Status.NONFINITE_INPUT
    assert jitted(WEIGHTS).status == Status.CONVERGED
    for weights, words in ((zero, "all zero"), (negative, "negative entries")):
        with pytest.raises(ValueError, match=words):
            jp.solve(SOLVER, jp.Lifting(INPUTS, weights), TARGETS, KEY)


@each_builder
def test_a_zero_start_is_neither_converged_nor_stationary(build):
    solution = solve(build(2), start=ZERO, max_steps=3)
    assert solution.status == Status.MAX_STEPS
    assert solution.relative_residual > 0.1


@pytest.mark.parametrize("rank", [1, 12])
def test_a_start_of_another_rank_is_truncated_or_filled_up(rank):
    start = jp.sample_truth(jax.random.key(3), 12, rank)
    first = solve(start=start, max_steps=0)
    assert first.value.factor.shape == (12, 2)
    nearest = jp.lowrank.truncate_matrix(jp.to_dense(start), 2)
    assert_allclose(jp.to_dense(first.value), jp.to_dense(nearest), atol=1e-10)
    assert solve(start=start).status == Status.CONVERGED


@pytest.mark.parametrize(
    ("build", "num_samples", "dim", "rank"),
    [
        (jp.ep_rom, 1, 1, 1),
        (jp.ep_rom, 3, 5, 4),
        (jp.ep_rom, 40, 3, 3),
        (jp.ap_rom, 3, 5, 4),
        (jp.factored_descent, 1, 1, 1),
        slow(jp.ap_rom, 40, 3, 3),
        slow(jp.factored_descent, 3, 5, 4),
        slow(jp.factored_descent, 40, 3, 3),
    ],
)
def test_tiny_problems_run_and_say_whether_they_are_underdetermined(build, num_samples, dim, rank):
    problem = jp.sample_problem(jax.random.key(1), num_samples, dim, rank)
    solution = jp.solve(build(rank), problem.lifting, problem.targets, KEY)
    assert finite(solution)
    assert bool(solution.underdetermined) == (num_samples < 40)
    if num_samples == 40:
        assert solution.status == Status.CONVERGED
        assert jp.relative_error(solution.value, problem.truth) < 1e-10


def test_underdetermined_counts_unknowns_intercept_and_samples_that_carry_weight():
    # p r - r (r - 1) / 2 = 23, and the intercept.
    for num_samples in (23, 24, 25):
        weights = np.where(np.arange(120) < num_samples, 0.5, 0.0)
        for debias, unknowns in (("centre", 24), ("trace", 23)):
            solver = jp.ep_rom(2, debias=debias)
            run = jp.init_run(solver, jp.Lifting(INPUTS, weights), TARGETS, KEY)
            assert bool(jp.finish(run).underdetermined) == (num_samples < unknowns)


@pytest.mark.parametrize("build", [jp.ep_rom, slow(jp.ap_rom), slow(jp.factored_descent)])
def test_a_run_in_pieces_equals_the_solve_and_stays_where_it_ended(build):
    data = build(2), PROBLEM.lifting, TARGETS
    whole = jp.solve(*data, KEY)
    run = jp.init_run(*data, KEY)
    assert (jp.finish(run).status, jp.finish(run).num_steps) == (Status.MAX_STEPS, 0)
    for num_steps in (1, 2, 40):
        run = jp.advance(*data, run, num_steps)
    assert (jp.finish(run).status, jp.finish(run).num_steps) == (Status.MAX_STEPS, 43)
    run = jp.advance(*data, run, 500)
    pieces = jp.finish(run)
    assert (pieces.status, pieces.num_steps) == (whole.status, whole.num_steps)
    assert jp.relative_error(pieces.value, whole.value) < 1e-12
    after = jp.advance(*data, run, 10)
    assert same(jp.finish(after), pieces)
    assert same(after.state.residual, run.state.residual)


def test_the_record_of_a_trajectory_agrees_with_steps_by_hand_and_with_the_solution():
    state, record = jp.trajectory(SOLVER, PROBLEM.lifting, TARGETS, KEY, num_steps=8)
    by_hand = SOLVER.init(PROBLEM.lifting, jnp.asarray(TARGETS), KEY)
    for step in range(8):
        by_hand = SOLVER.step(PROBLEM.lifting, jnp.asarray(TARGETS), by_hand)
        estimate = jax.tree.map(itemgetter(step), record.estimate)
        assert jp.relative_error(estimate, by_hand.estimate) < 1e-9
        assert_allclose(record.step_size[step], by_hand.step_size, rtol=1e-9)
        assert_allclose(record.stationarity[step], by_hand.stationarity, rtol=1e-8)
        spread = np.std(by_hand.residual)
        assert_allclose(record.loss[step], spread**2 / 2, rtol=1e-8)
        assert_allclose(record.relative_residual[step], spread / np.std(TARGETS), rtol=1e-8)
    assert_allclose(state.residual, by_hand.residual, atol=1e-8)
    assert_allclose(solve(max_steps=8).relative_residual, min(record.relative_residual), rtol=1e-9)


def test_a_trajectory_of_no_steps_is_the_start_and_an_empty_record():
    state, record = jp.trajectory(SOLVER, PROBLEM.lifting, TARGETS, KEY, 0, PROBLEM.truth)
    assert jp.relative_error(state.estimate, PROBLEM.truth) < 1e-14
    assert record.loss.shape == record.step_size.shape == (0,)
    assert record.estimate.factor.shape == (0, 12, 2)


@pytest.mark.parametrize("step_size", [0.3, 0.9, 1.2, 2.0])
def test_the_solution_is_the_best_of_all_iterates(step_size):
    data = jp.ep_rom(2, step_size, "trace"), PROBLEM.lifting, TARGETS, KEY
    _, record = jp.trajectory(*data, num_steps=30)
    best = int(np.nanargmin(record.relative_residual))
    solution = jp.solve(*data, max_steps=30)
    lowest = min(1.0, float(record.relative_residual[best]))
    assert_allclose(solution.relative_residual, lowest, rtol=1e-6)
    residual = jp.measure(PROBLEM.lifting, solution.value) - TARGETS
    assert_allclose(np.linalg.norm(residual) / np.linalg.norm(TARGETS), lowest, rtol=1e-6)


@pytest.mark.parametrize("build", [jp.ap_rom, jp.factored_descent, jp.gauss_newton])
def test_matrix_free_solvers_need_far_less_memory_than_the_inputs(build):
    num_samples, dim = 2000, 20_000
    inputs = jax.ShapeDtypeStruct((num_samples, dim), jnp.float32)
    targets = jax.ShapeDtypeStruct((num_samples,), jnp.float32)
    compiled = jax.jit(jp.solve).lower(build(5), jp.Lifting(inputs), targets, KEY).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 0.1 * 4 * num_samples * dim
