"""Where a fit has no derivative, or none can be had, it is NaN; what it costs and refuses."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxpoly as jp
from jaxpoly.curvature import Objective, hessian, slope
from jaxpoly.solvers.conjugate_gradient import conjugate_gradient

KEY = jax.random.key(7)
DIM, RANK, NUM_SAMPLES = 8, 2, 80
PATTERN = jnp.cos(jnp.arange(DIM**2)).reshape(DIM, DIM)
SOLVER = jp.gauss_newton(RANK)


def problem(seed=0, noise=0.5, num_samples=NUM_SAMPLES, **options):
    key = jax.random.key(seed)
    options = {"capacity": NUM_SAMPLES, **options}
    return jp.sample_problem(key, num_samples, DIM, RANK, noise=noise, **options)


def solve(lifting, targets, **options):
    return jp.solve(SOLVER, lifting, targets, KEY, **options)


def summary(targets, lifting, solution, solver):
    value = jp.implicit(solver, lifting, targets, solution).value
    return jnp.sum(jp.to_dense(value) * PATTERN)


slopes = jax.jit(jax.grad(summary))


def slope_of(lifting, targets, solution, solver=SOLVER):
    return np.asarray(slopes(targets, lifting, solution, solver))


def test_a_run_that_was_stopped_early_has_no_derivative():
    lifting, targets, _ = problem()
    for steps in (0, 1, 2):
        solution = solve(lifting, targets, max_steps=steps)
        assert solution.status == jp.Status.MAX_STEPS
        assert np.isnan(slope_of(lifting, targets, solution)).all()


def test_the_place_counts_and_not_the_status():
    lifting, targets, _ = problem()
    arrived = solve(lifting, targets)
    unaware = solve(lifting, targets, max_steps=0, start=arrived.value)
    assert unaware.status == jp.Status.MAX_STEPS
    expected = slope_of(lifting, targets, arrived)
    assert_allclose(slope_of(lifting, targets, unaware), expected, rtol=1e-6, atol=1e-9)


def test_data_or_options_that_the_solution_does_not_belong_to_give_no_derivative():
    lifting, targets, _ = problem()
    solution = solve(lifting, targets)
    assert np.isfinite(slope_of(lifting, targets, solution)).all()
    other = problem(1).targets
    assert np.isnan(slope_of(lifting, other, solution)).all()
    assert np.isnan(slope_of(lifting, targets + 1e-3 * other, solution)).all()
    penalised = replace(SOLVER, ridge=0.1)
    assert np.isnan(slope_of(lifting, targets, solution, penalised)).all()


HOPELESS = {
    "a rank above that of noiseless data": {"noise": 0.0, "spectrum": [1.0, 0.0]},
    "fewer samples than unknowns": {"num_samples": 12},
    "targets without noise and fewer samples": {"noise": 0.0, "num_samples": 12},
}


@pytest.mark.parametrize("options", HOPELESS.values(), ids=HOPELESS)
def test_a_fit_that_data_do_not_determine_has_no_derivative(options):
    lifting, targets, _ = problem(**options)
    solution = solve(lifting, targets)
    assert np.isnan(slope_of(lifting, targets, solution)).all()


@pytest.mark.parametrize("change", ["nan", "zero"])
def test_a_failed_fit_has_no_derivative(change):
    lifting, targets, _ = problem()
    targets = targets.at[3].set(jnp.nan) if change == "nan" else 0 * targets
    solution = solve(lifting, targets)
    assert solution.status > jp.Status.STATIONARY
    assert np.isnan(slope_of(lifting, targets, solution)).all()


def test_a_diverged_fit_has_no_derivative():
    lifting, targets, _ = problem()
    solver = jp.factored_descent(RANK, step_size=10.0)
    solution = jp.solve(solver, lifting, targets, KEY)
    assert solution.status == jp.Status.DIVERGED
    assert np.isnan(slope_of(lifting, targets, solution)).all()


def test_the_derivative_does_not_depend_on_the_solver_that_found_the_fit():
    lifting, targets, _ = problem()
    expected = slope_of(lifting, targets, solve(lifting, targets))
    solution = jp.solve(jp.factored_descent(RANK), lifting, targets, KEY, max_steps=3000)
    assert solution.status == jp.Status.STATIONARY
    found = slope_of(lifting, targets, solution)
    assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_coinciding_eigenvalues_do_no_harm_to_functions_of_the_whole_matrix():
    for signs in ("positive", "mixed"):
        lifting, targets, _ = problem(5, 0.0, signs=signs, spectrum=[1.0, 1.0])
        solution = solve(lifting, targets)
        found = slope_of(lifting, targets, solution)
        move = jax.random.normal(KEY, targets.shape) * lifting.sample_weight

        def at(size, lifting=lifting, targets=targets, move=move, start=solution.value):
            return jnp.sum(
                jp.to_dense(solve(lifting, targets + size * move, rtol=0.0, start=start).value)
                * PATTERN
            )

        expected = (8 * (at(1e-4) - at(-1e-4)) - (at(2e-4) - at(-2e-4))) / 12e-4
        assert_allclose(found @ move, expected, rtol=1e-6)


def test_a_clipped_eigenvalue_stays_clipped():
    lifting, targets, _ = problem(6)
    solver = jp.gauss_newton(RANK, active_rank=1)
    solution = jp.solve(solver, lifting, targets, KEY)
    assert solution.status == jp.Status.STATIONARY
    assert solution.value.diagonal[1] == 0
    one = replace(solution, value=jp.eigen_form(solution.value, 1))
    expected = slope_of(lifting, targets, one, jp.gauss_newton(1))
    for same in (solver, jp.gauss_newton(RANK, positive=True)):
        found = slope_of(lifting, targets, solution, same)
        assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_single_precision_stays_so_and_is_accurate_to_it():
    lifting, targets, _ = problem()
    expected = slope_of(lifting, targets, solve(lifting, targets))
    single = jax.tree.map(lambda array: array.astype("float32"), (lifting, targets))
    solution = solve(*single)
    found = slope_of(*single, solution)
    assert found.dtype == np.float32
    assert_allclose(found, expected, rtol=0, atol=2e-3 * np.abs(expected).max())


def test_derivatives_have_derivatives():
    lifting, targets, _ = problem(0, 0.2)
    solution = solve(lifting, targets)
    move = jax.random.normal(KEY, targets.shape)

    def along(size, solution):
        return summary(targets + size * move, lifting, solution, SOLVER)

    curvature = jax.jit(jax.grad(jax.grad(along)))(0.0, solution)
    first = jax.jit(jax.grad(along))

    def at(size):
        return first(size, solve(lifting, targets + size * move, start=solution.value))

    assert_allclose(curvature, (at(1e-3) - at(-1e-3)) / 2e-3, rtol=1e-4)


def counted_loop(count, unfinished, body, carry):
    while unfinished(carry):
        carry = body(carry)
    count.append(int(carry[-1]))
    return carry


def test_a_derivative_takes_fewer_sweeps_than_a_solve():
    for noise in (0.0, 1.0):
        key = jax.random.key(1)
        lifting, targets, _ = jp.sample_problem(key, 400, dim=20, rank=3, noise=noise)
        solution = jp.solve(jp.gauss_newton(3), lifting, targets, KEY)
        count: list[int] = []
        loop = partial(counted_loop, count)
        objective = Objective(lifting, targets, jnp.zeros(()))
        value, zero = solution.value, jnp.zeros(())
        system = hessian(objective, value, jnp.ones(3))
        direction = jax.random.normal(KEY, value.factor.shape)
        target = system[0](direction)
        found, _, _ = conjugate_gradient(*system, target, zero, zero + 2.5e-9, 500, loop)
        conjugate_gradient(*system, slope(objective, value), zero, zero + 0.1, 50, loop)
        assert count[0] <= 40
        assert count[1] <= 10
        back = system[0](found)
        assert_allclose(back, target, rtol=0, atol=1e-7 * np.abs(target).max())


def test_a_solve_by_itself_refuses_reverse_mode_and_forward_mode_is_not_needed():
    lifting, targets, _ = problem()

    def through(targets):
        return solve(lifting, targets).value.diagonal[0]

    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(through)(targets)


def test_what_is_no_least_squares_problem_or_no_array_is_refused():
    lifting, targets, _ = problem()
    solution = solve(lifting, targets)
    with pytest.raises(ValueError, match="debias='trace'"):
        jp.implicit(jp.ep_rom(RANK, debias="trace"), lifting, targets, solution)
    rows = jp.StreamedRows(np.asarray(lifting.inputs))
    linear = jp.with_linear_terms(lifting)
    with pytest.raises(TypeError, match="read from disk"):
        jp.implicit(SOLVER, jp.Lifting(rows), targets, solution)
    with pytest.raises(ValueError, match="has linear terms"):
        jp.implicit(jp.gauss_newton(RANK, "none"), linear, targets, solution)
    with pytest.raises(ValueError, match="inner_steps is 0"):
        jp.implicit(SOLVER, lifting, targets, solution, inner_steps=0)
    with pytest.raises(ValueError, match=r"solution.value has factor"):
        jp.implicit(SOLVER, jp.Lifting(jnp.ones((80, 3))), targets, solution)
