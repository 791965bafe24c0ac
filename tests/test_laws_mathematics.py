"""Laws of the mathematics that every solver obeys: symmetry, fixed points, honesty, formulas."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxpoly as jp

only = partial(pytest.mark.parametrize, "solver", indirect=True)
slow = partial(pytest.param, marks=pytest.mark.slow)
DEFAULTS = ["ep_rom", "ap_rom", "factored", "gauss_newton"]
FLOAT32 = ["ap_rom", "factored", "gauss_newton", slow("ep_rom"), slow("ap_rom krylov")]
# Adam treats coordinates apart, so that its iterates depend on the axes; the random
# columns of ap_rom's default head are not rotated.
ROTATABLE = ["ep_rom", "ep_rom fixed", "ep_rom positive", "factored", slow("factored momentum")]
SCALABLE = [*DEFAULTS, "ap_rom krylov", "factored adam"]
SCALABLE += [slow("ap_rom positive"), slow("factored momentum")]


def solve(solver, problem: jp.Problem, max_steps: int = 600, rtol: float | None = 1e-7):
    return jp.solve(solver, *problem[:2], jax.random.key(7), max_steps, rtol)


def with_inputs(problem: jp.Problem, inputs: jax.Array, scale: float = 1.0) -> jp.Problem:
    weight = problem.lifting.sample_weight
    return problem._replace(lifting=jp.Lifting(inputs, weight), targets=scale * problem.targets)


def _uses_adam(solver) -> bool:
    return isinstance(solver, jp.FactoredDescent) and solver.optimizer is optax.adam


def distance(left: jp.LowRank, right: jp.LowRank) -> float:
    return float(jp.relative_error(left, right))


@pytest.mark.parametrize("seed", [0, 1])
@only([*ROTATABLE, "gauss_newton", "ap_rom", "ap_rom krylov"])
def test_rotating_the_inputs_rotates_the_estimate(solver, planted, seed):
    problem = planted(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(16, 16)))[0]
    rotated = with_inputs(problem, problem.lifting.inputs @ rotation.T)

    def difference(max_steps: int) -> float:
        plain, turned = (solve(solver, each, max_steps) for each in (problem, rotated))
        back = jp.LowRank(rotation.T @ turned.value.factor, turned.value.diagonal)
        assert turned.status == plain.status
        np.testing.assert_allclose(turned.intercept, plain.intercept, atol=1e-5)
        return distance(back, plain.value)

    assert difference(600) < 1e-5
    if not isinstance(solver, jp.ApRom):
        assert difference(5) < 1e-8


@only(SCALABLE)
def test_scaling_the_targets_or_the_inputs_scales_the_estimate(solver, planted):
    assert_scales(solver, planted(), rtol=1e-7)


@only(FLOAT32)
def test_scaling_the_targets_or_the_inputs_scales_the_estimate_in_float32(solver, planted):
    assert_scales(solver, planted(dtype=jnp.float32), rtol=1e-4)


def assert_scales(solver, problem: jp.Problem, rtol: float) -> None:
    inputs = problem.lifting.inputs
    early, converged = solve(solver, problem, 5, rtol), solve(solver, problem, 600, rtol)
    assert converged.status == jp.Status.CONVERGED
    for target_scale, input_scale in ((1e-6, 1), (1e6, 1), (1, 1e-3), (1, 1e3), (1e6, 1e-3)):
        scaled = with_inputs(problem, input_scale * inputs, target_scale)
        factor = input_scale**2 / target_scale
        step_five, end = solve(solver, scaled, 5, rtol), solve(solver, scaled, 600, rtol)
        assert end.status == jp.Status.CONVERGED
        assert distance(jp.lowrank.scale(step_five.value, factor), early.value) < rtol / 10
        assert distance(jp.lowrank.scale(end.value, factor), converged.value) < 20 * rtol


@only(["ep_rom fixed"])
def test_a_fixed_step_is_equivariant_to_the_scale_of_the_targets(solver, planted):
    problem = planted()
    plain = solve(solver, problem, 5)
    for scale in (1e-6, 1e6):
        scaled = solve(solver, with_inputs(problem, problem.lifting.inputs, scale), 5)
        assert distance(jp.lowrank.scale(scaled.value, 1 / scale), plain.value) < 1e-9


@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_from_the_truth_stays_at_the_truth(solver, planted, jit_step, seed):
    lifting, targets, truth = planted(seed)
    state = solver.init(lifting, targets, jax.random.key(7), truth)
    assert distance(state.estimate, truth) < 1e-13
    # Adam divides by the size of the gradient, so that it blows up rounding of 1e-16.
    num_steps, tolerance = (1, 1e-7) if _uses_adam(solver) else (3, 1e-12)
    for _ in range(num_steps):
        state = jit_step(solver, lifting, targets, state)
        assert distance(state.estimate, truth) < tolerance


@only(DEFAULTS)
def test_a_run_that_starts_at_the_truth_has_converged_in_no_steps(solver, planted):
    # In float32, where the truth has a residual.
    lifting, targets, truth = planted(dtype=jnp.float32)
    run = jp.init_run(solver, lifting, targets, jax.random.key(7), start=truth)
    assert run.best.status == jp.Status.CONVERGED
    assert run.best.num_steps == 0
    assert distance(run.best.value, truth) < 1e-6


def recomputed_residual(solver, problem: jp.Problem, solution: jp.Solution) -> float:
    """The relative residual as `Solution` defines it, by numpy in float64."""
    data = problem.lifting.inputs, problem.lifting.sample_weight, problem.targets
    inputs, weight, targets = (np.asarray(array, np.float64) for array in data)
    factor = np.asarray(solution.value.factor, np.float64)
    diagonal = np.asarray(solution.value.diagonal, np.float64)
    residual = (inputs @ factor) ** 2 @ diagonal + float(solution.intercept) - targets
    mean = np.average(targets, weights=weight) if solver.debias == "centre" else 0.0
    norm_of_targets = np.sqrt(np.average((targets - mean) ** 2, weights=weight))
    return np.sqrt(np.average(residual**2, weights=weight)) / norm_of_targets


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_converged_means_that_the_recomputed_residual_is_below_rtol(solver, planted, offset):
    slack = 1 + 1e-6
    few_steps = 2 if isinstance(solver, jp.GaussNewton) else 7
    for seed in range(3):
        problem = planted(seed)
        if solver.debias == "centre":
            problem = problem._replace(targets=problem.targets + offset)
        for max_steps, rtol in ((600, 1e-3), (600, 1e-6), (few_steps, 1e-6), (600, None)):
            solution = solve(solver, problem, max_steps, rtol)
            residual = recomputed_residual(solver, problem, solution)
            tolerance = 20 * np.finfo(float).eps * 16**0.25 if rtol is None else rtol
            np.testing.assert_allclose(solution.relative_residual, residual, rtol=1e-6, atol=1e-15)
            if solution.status == jp.Status.CONVERGED:
                assert residual <= tolerance * slack + 1e-15
            else:
                assert residual > tolerance
        assert solve(solver, problem, 600, 1e-3).status == jp.Status.CONVERGED
        assert solve(solver, problem, few_steps, 1e-6).status == jp.Status.MAX_STEPS


@only(FLOAT32)
def test_converged_is_honest_in_float32(solver, planted):
    num_converged = 0
    for seed in range(4):
        problem = planted(seed, dtype=jnp.float32)
        for rtol in (1e-3, None):
            solution = solve(solver, problem, 600, rtol)
            residual = recomputed_residual(solver, problem, solution)
            tolerance = 20 * np.finfo(np.float32).eps * 16**0.25 if rtol is None else rtol
            converged = solution.status == jp.Status.CONVERGED
            assert residual <= 1.1 * tolerance if converged else residual > 0.9 * tolerance
            num_converged += int(converged)
    # The start of factored descent has the wrong signs now and then.
    assert num_converged >= 6


def numpy_gradient(problem: jp.Problem, residual: np.ndarray, debias: str) -> np.ndarray:
    inputs, weight = (np.asarray(array) for array in jax.tree.leaves(problem.lifting))
    weight = weight / weight.sum()
    mean = weight @ residual
    if debias == "centre":
        residual = residual - mean
    gradient = (inputs.T * (weight * residual)) @ inputs
    return (gradient - mean * np.eye(16) if debias == "trace" else gradient) / 2


def numpy_natural_step(problem: jp.Problem, gradient, basis, debias: str) -> float:
    """The step that minimises the loss along the tangent part of the gradient."""
    inputs, weight = (np.asarray(array) for array in jax.tree.leaves(problem.lifting))
    projection = basis @ basis.T
    tangent = projection @ gradient + gradient @ projection - projection @ gradient @ projection
    measured = np.einsum("ij,jk,ik->i", inputs, tangent, inputs)
    if debias == "centre":
        measured = measured - np.average(measured, weights=weight)
    return 2 * np.sum(tangent**2) / np.average(measured**2, weights=weight)


def numpy_truncate(matrix: np.ndarray, rank: int, positive: bool) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(matrix)
    kept = np.argsort(-values if positive else -np.abs(values))[:rank]
    values = np.maximum(values, 0) if positive else values
    return (vectors[:, kept] * values[kept]) @ vectors[:, kept].T, vectors[:, kept]


@pytest.mark.parametrize("debias", ["centre", "trace", "none"])
@pytest.mark.parametrize("step_size", [None, 0.3])
@only(["ep_rom", "ep_rom positive"])
def test_ep_rom_is_a_gradient_step_and_an_exact_projection(solver, planted, step_size, debias):
    problem = planted(seed=2)
    lifting, targets, _ = problem
    solver = jp.ep_rom(2, step_size, debias, solver.positive)
    inputs = np.asarray(lifting.inputs)
    state = solver.init(lifting, targets, jax.random.key(7))
    estimate = np.zeros((16, 16))
    gradient = numpy_gradient(problem, -np.asarray(targets), debias)
    basis = numpy_truncate(-gradient, 2, solver.positive)[1]
    for _ in range(3):
        residual = np.einsum("ij,jk,ik->i", inputs, estimate, inputs) - np.asarray(targets)
        gradient = numpy_gradient(problem, residual, debias)
        step = step_size or numpy_natural_step(problem, gradient, basis, debias) / 2
        estimate, basis = numpy_truncate(estimate - step * gradient, 2, solver.positive)
        state = solver.step(lifting, targets, state)
        np.testing.assert_allclose(state.step_size, step, rtol=1e-9)
        np.testing.assert_allclose(jp.to_dense(state.estimate), estimate, atol=1e-9)


@pytest.mark.parametrize("debias", ["centre", "none"])
@only(["factored", "factored positive"])
def test_factored_descent_steps_along_the_gradient_of_its_loss(solver, planted, debias):
    problem = planted(seed=2)
    lifting, targets, _ = problem
    solver = jp.factored_descent(2, debias=debias, positive=solver.positive)
    state = solver.init(lifting, targets, jax.random.key(7))
    weight = lifting.sample_weight / jnp.sum(lifting.sample_weight)

    def loss(factor: jax.Array, signs: jax.Array) -> jax.Array:
        residual = (lifting.inputs @ factor) ** 2 @ signs - targets
        if debias == "centre":
            residual = residual - weight @ residual
        return weight @ residual**2 / 8

    for _ in range(3):
        factor, signs = state.estimate.factor, state.estimate.diagonal
        assert set(np.abs(signs).tolist()) == {1.0}
        gradient = numpy_gradient(problem, np.asarray(state.residual), debias)
        basis = np.linalg.qr(factor)[0]
        step = numpy_natural_step(problem, gradient, basis, debias) / 2
        step /= np.linalg.norm(factor, 2) ** 2
        state = solver.step(lifting, targets, state)
        expected = factor - step * jax.grad(loss)(factor, signs)
        np.testing.assert_allclose(state.estimate.factor, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
@only(["ep_rom", "ep_rom positive"])
def test_ap_rom_whose_krylov_space_is_everything_steps_as_ep_rom(solver, planted, jit_step, seed):
    key = jax.random.key(seed)
    lifting, targets, _ = planted(seed)
    targets = targets + 0.3 * jax.random.normal(key, targets.shape)
    # Three blocks of seven columns, in 16 dimensions.
    exact, approximate = solver, jp.ap_rom(2, positive=solver.positive, depth=2)
    state = exact.init(lifting, targets, key)
    first = approximate.init(lifting, targets, key)
    np.testing.assert_allclose(
        jit_step(approximate, lifting, targets, first).residual,
        jit_step(exact, lifting, targets, state).residual,
        atol=1e-9,
    )
    for _ in range(5):
        other = jit_step(approximate, lifting, targets, state)
        state = jit_step(exact, lifting, targets, state)
        assert distance(other.estimate, state.estimate) < 1e-11
        np.testing.assert_allclose(other.step_size, state.step_size, rtol=1e-10)
        np.testing.assert_allclose(other.stationarity, state.stationarity, rtol=1e-8)
