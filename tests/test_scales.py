"""Inputs, targets and weights of any scale: the right answer, or a failure that is told."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxpoly as jp
from jaxpoly import Status

KEY = jax.random.key(7)
only = partial(pytest.mark.parametrize, "solver", indirect=True)
slow = partial(pytest.param, marks=pytest.mark.slow)
CORE = ["ep_rom", "ap_rom", "factored", "gauss_newton"]
REST = ["ep_rom positive", "ap_rom krylov", "ap_rom positive", "factored adam"]
REST += ["factored positive", "gauss_newton positive"]
# Scales of X and, for each, of y: first those whose L the dtype can hold.
SCALES = {
    np.float32: [
        (1e-30, 1e-30, True),
        (1e-20, 1e-30, True),
        (1e-20, 1e-15, True),
        (1e-10, 1e15, True),
        (1.0, 1e-30, True),
        (1.0, 1e30, True),
        (1e10, 1e30, True),
        (1e18, 1.0, True),
        (1e18, 1e30, True),
        (1e20, 1e30, True),
        (1e-20, 1.0, False),
        (1e-30, 1e30, False),
        (1e20, 1e-20, False),
        (1e18, 1e-30, False),
    ],
    np.float64: [
        (1e-150, 1e-300, True),
        (1e-80, 1e100, True),
        (1e20, 1e-20, True),
        (1e-30, 1e30, True),
        (1.0, 1e300, True),
        (1.0, 1e-300, True),
        (1e150, 1.0, True),
        (1e200, 1e300, True),
        (1e-200, 1.0, False),
        (1e200, 1e-200, False),
    ],
}


def scaled(problem, inputs_scale, targets_scale, dtype):
    """The problem in other units, rounded to the dtype."""
    inputs = (np.asarray(problem.lifting.inputs, np.float64) * inputs_scale).astype(dtype)
    targets = (np.asarray(problem.targets, np.float64) * targets_scale).astype(dtype)
    weight = problem.lifting.sample_weight
    return jp.Lifting(inputs, np.asarray(weight, dtype)), targets


def unscaled(value: jp.LowRank, inputs_scale: float, targets_scale: float) -> np.ndarray:
    """L in the units of the problem as it was drawn, in extended precision."""
    factor, diagonal = (np.asarray(part, np.longdouble) for part in (value.factor, value.diagonal))
    scale = np.longdouble(inputs_scale) ** 2 / np.longdouble(targets_scale)
    return ((factor * (scale * diagonal)) @ factor.T).astype(float)


def assert_right_or_told(solve, problem, dtype, tolerance):
    truth = np.asarray(jp.to_dense(problem.truth))
    for inputs_scale, targets_scale, holds in SCALES[dtype]:
        solution = solve(*scaled(problem, inputs_scale, targets_scale, dtype))
        status = Status(int(solution.status))
        told = (inputs_scale, targets_scale, status.name)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(solution.value)), told
        if not holds:
            assert status == Status.DIVERGED, told
            assert_allclose(solution.relative_residual, 1, rtol=1e-4, err_msg=str(told))
            continue
        assert status == Status.CONVERGED, told
        error = unscaled(solution.value, inputs_scale, targets_scale) - truth
        assert np.linalg.norm(error) < tolerance * np.linalg.norm(truth), told


@only(["ep_rom", "gauss_newton", *map(slow, [*CORE[1:3], *REST])])
def test_float32_data_of_any_scale_are_solved_or_the_failure_is_told(solver, planted):
    solve = partial(jp.solve, solver, key=KEY)
    assert_right_or_told(solve, planted(dtype=jnp.float32), np.float32, 2e-4)


# Adam with a fixed rate does not come down to the rounding of float64 in 500 steps at any scale.
WIDE = ["ep_rom", "factored", "gauss_newton", *(name for name in REST if "adam" not in name)]


@only(["ap_rom", *map(slow, WIDE)])
def test_float64_data_of_any_scale_are_solved_or_the_failure_is_told(solver, planted):
    assert_right_or_told(partial(jp.solve, solver, key=KEY), planted(), np.float64, 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, slow(np.float64)])
def test_recover_finds_data_of_any_scale_or_tells_the_failure(dtype):
    problem = jp.sample_problem(jax.random.key(3), 120, 10, 2)
    weighted = problem.lifting.inputs, jnp.ones(120)
    problem = jp.Problem(jp.Lifting(*weighted), problem.targets, problem.truth)

    def recover(lifting, targets):
        return jp.recover(lifting.inputs, targets, 2, key=KEY)

    assert_right_or_told(recover, problem, dtype, 1e-4 if dtype is np.float32 else 1e-12)


def test_powers_of_two_change_nothing_but_the_exponent():
    problem = jp.sample_problem(jax.random.key(0), 160, 16, 2, noise=0.1)
    lifting, targets, _ = problem
    plain = jp.solve(jp.ap_rom(2), lifting, targets, KEY, 30)
    for inputs_exponent, targets_exponent in ((100, 0), (-100, 400), (0, -400)):
        inputs = lifting.inputs * 2.0**inputs_exponent
        other = jp.Lifting(inputs), targets * 2.0**targets_exponent
        solution = jp.solve(jp.ap_rom(2), *other, KEY, 30)
        exponent = targets_exponent - 2 * inputs_exponent
        found = unscaled(solution.value, 1.0, 2.0**exponent)
        assert_allclose(found, jp.to_dense(plain.value), rtol=0, atol=1e-11)
        assert_allclose(solution.relative_residual, plain.relative_residual, rtol=1e-9)
        assert solution.status == plain.status


@pytest.mark.parametrize("exponent", [40, slow(-40)])
def test_fixed_steps_ridges_and_the_trace_correction_keep_their_units(exponent):
    problem = jp.sample_problem(jax.random.key(0), 160, 16, 2, noise=0.1)
    unit = 2.0**exponent
    scaled_lifting = jp.Lifting(problem.lifting.inputs * unit)
    for build in (
        lambda fourth: jp.ep_rom(2, step_size=0.25 * fourth**-1, debias="none"),
        lambda fourth: jp.gauss_newton(2, ridge=0.01 * fourth),
    ):
        plain = jp.solve(build(1.0), problem.lifting, problem.targets, KEY, 20)
        solution = jp.solve(build(unit**4), scaled_lifting, problem.targets, KEY, 20)
        found = unscaled(solution.value, unit, 1.0)
        assert_allclose(found, jp.to_dense(plain.value), rtol=0, atol=1e-10)
    # The correction is for inputs of unit variance; its identity does not scale with them.
    solver = jp.ep_rom(2, debias="trace")
    residual = np.asarray(problem.targets)
    gradient = np.asarray(jp.dense_gradient(scaled_lifting, residual, "trace"))
    step = jp.trajectory(solver, scaled_lifting, -residual, KEY, 1)[1]
    kept = jp.lowrank.truncate_matrix(-gradient * step.step_size[0], 2)
    first = jax.tree.map(lambda leaf: leaf[0], step.estimate)
    assert_allclose(unscaled(first, unit, 1.0), unscaled(kept, unit, 1.0), atol=1e-8)


def test_trajectories_and_runs_in_pieces_are_in_the_units_of_the_data():
    problem = jp.sample_problem(jax.random.key(0), 160, 16, 2)
    inputs_scale, targets_scale = 1e120, 1e-50
    lifting, targets = jp.Lifting(problem.lifting.inputs * inputs_scale), problem.targets * 1e-50
    solver = jp.ap_rom(2)
    truth = problem.truth
    start = jp.LowRank(truth.factor, truth.diagonal * targets_scale / inputs_scale**2)
    start = jp.LowRank(start.factor, 1.5 * start.diagonal)
    shifted = jp.LowRank(truth.factor, 1.5 * truth.diagonal)
    plain_state, plain = jp.trajectory(solver, *problem[:2], KEY, 8, shifted)
    state, record = jp.trajectory(solver, lifting, targets, KEY, 8, start)
    assert_allclose(record.relative_residual, plain.relative_residual, rtol=1e-6)
    assert_allclose(record.loss, plain.loss * targets_scale**2, rtol=1e-6)
    assert_allclose(record.estimate.diagonal[-1] * 1e240 / 1e-50, plain.estimate.diagonal[-1])
    assert_allclose(state.residual / targets_scale, plain_state.residual, atol=1e-8)

    whole = jp.solve(solver, lifting, targets, KEY)
    run = jp.init_run(solver, lifting, targets, KEY)
    run = jp.advance(solver, lifting, targets, jp.advance(solver, lifting, targets, run, 5), 500)
    assert jp.finish(run).status == whole.status == Status.CONVERGED
    found = unscaled(jp.finish(run).value, inputs_scale, targets_scale)
    assert_allclose(found, unscaled(whole.value, inputs_scale, targets_scale), atol=1e-11)


@pytest.mark.slow
def test_all_forms_of_the_inputs_take_extreme_scales():
    problem = jp.sample_problem(jax.random.key(0), 160, 16, 2, dtype=jnp.float32)
    truth = np.asarray(jp.to_dense(problem.truth))
    inputs = np.asarray(problem.lifting.inputs) * np.float32(1e20)
    targets = np.asarray(problem.targets) * np.float32(1e30)
    forms = {
        "half": (jp.HalfPrecision(jnp.asarray(inputs, jnp.bfloat16)), 2e-2),
        "streamed": (jp.StreamedRows(inputs, block_bytes=4096), 2e-4),
    }
    for name, (form, tolerance) in forms.items():
        solution = jp.solve(jp.gauss_newton(2), jp.Lifting(form), targets, KEY)
        error = unscaled(solution.value, 1e20, 1e30) - truth
        assert np.linalg.norm(error) < tolerance * np.linalg.norm(truth), name


def test_lanes_of_one_batch_have_units_of_their_own(planted_pair):
    problem, solve = planted_pair
    lanes = [scaled(problem, a, b, np.float32) for a, b, holds in SCALES[np.float32] if holds]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)
    statuses = jax.jit(jax.vmap(lambda data: solve(*data).status))(batch)
    assert statuses.tolist() == [Status.CONVERGED] * len(lanes)


@pytest.mark.parametrize(
    ("inputs_scale", "targets_scale"), [(1e-10, 1e-20), (1e-20, 1e-20), (1e9, 1e18), (1.0, 1e20)]
)
def test_derivatives_and_standard_errors_follow_the_units(inputs_scale, targets_scale):
    problem = jp.sample_problem(jax.random.key(4), 60, 5, 2, noise=0.2, capacity=64)
    solver, move = jp.gauss_newton(2), np.random.default_rng(0).normal(size=64)

    def answers(inputs_scale, targets_scale):
        lifting, targets = scaled(problem, inputs_scale, targets_scale, np.float32)
        solution = jp.solve(solver, lifting, targets, KEY)
        moved = jax.jvp(
            lambda targets: jp.implicit(solver, lifting, targets, solution).value.diagonal,
            (targets,),
            (jnp.asarray(targets_scale * move, np.float32),),
        )[1]
        errors = jp.standard_errors(solver, lifting, targets, solution, lifting.inputs[:3])
        of_matrix = np.array([moved, errors.eigenvalues], float)
        of_targets = np.array([errors.noise, *errors.predictions], float)
        unit = np.longdouble(inputs_scale) ** 2 / targets_scale
        return (of_matrix * unit).astype(float), of_targets / targets_scale

    for found, expected in zip(
        answers(inputs_scale, targets_scale), answers(1.0, 1.0), strict=True
    ):
        assert_allclose(found, expected, rtol=1e-3)


@pytest.fixture
def planted_pair():
    problem = jp.sample_problem(jax.random.key(1), 160, 16, 2, capacity=200)
    return problem, partial(jp.solve, jp.gauss_newton(2), key=KEY)


@pytest.mark.parametrize("weight", [1e30, 1e-30, 1e38])
def test_float32_weights_of_any_size_are_relative(planted_pair, weight):
    problem, solve = planted_pair
    lifting, targets = scaled(problem, 1.0, 1.0, np.float32)
    weighted = dataclasses.replace(lifting, sample_weight=lifting.sample_weight * weight)
    solution = solve(weighted, targets)
    assert solution.status == Status.CONVERGED
    assert jp.relative_error(solution.value, solve(lifting, targets).value) < 1e-5


def test_rows_of_zero_weight_set_no_unit(planted_pair):
    problem, solve = planted_pair
    lifting, targets = scaled(problem, 1.0, 1.0, np.float32)
    off = lifting.sample_weight == 0
    inputs = np.where(off[:, None], np.float32(1e10), lifting.inputs)
    targets = np.where(off, np.float32(1e15), targets)
    solution = solve(jp.Lifting(inputs, lifting.sample_weight), targets)
    assert solution.status == Status.CONVERGED


@pytest.mark.slow
def test_columns_of_very_different_scales_are_never_a_false_success(planted_pair):
    problem, solve = planted_pair
    columns = 10.0 ** np.linspace(-8, 8, 16)
    for dtype in (np.float32, np.float64):
        inputs = (np.asarray(problem.lifting.inputs)[:160] * columns).astype(dtype)
        truth = jp.LowRank(problem.truth.factor / columns[:, None], problem.truth.diagonal)
        targets = np.asarray(problem.targets)[:160].astype(dtype)
        solution = solve(jp.Lifting(inputs), targets)
        wide = inputs.astype(np.longdouble) @ np.asarray(solution.value.factor, np.longdouble)
        residual = wide**2 @ np.asarray(solution.value.diagonal, np.longdouble) - targets
        relative = float(np.std(residual) / np.std(targets))
        converged = solution.status == Status.CONVERGED
        assert not converged or relative < 100 * jnp.finfo(dtype).eps
        recovered = jp.recover(inputs, targets, 2, key=KEY)
        assert recovered.status == Status.CONVERGED
        found = columns[:, None] * np.asarray(jp.to_dense(recovered.value)) * columns
        expected = columns[:, None] * np.asarray(jp.to_dense(truth)) * columns
        assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
