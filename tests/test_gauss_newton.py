"""Gauss-Newton takes the step it claims, converges quadratically and minimises what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxpoly as jp
from jaxpoly.solvers import gauss_newton as module

KEY = jax.random.key(7)
DIM, RANK = 8, 2


def problem(seed: int = 0, num_samples: int = 60, noise: float = 0.0, **options) -> jp.Problem:
    key = jax.random.key(seed)
    return jp.sample_problem(key, num_samples, DIM, RANK, noise=noise, **options)


def weighted(lifting: jp.Lifting, seed: int = 0) -> jp.Lifting:
    weight = np.random.default_rng(seed).uniform(0.1, 2.0, lifting.inputs.shape[0])
    return jp.Lifting(lifting.inputs, jnp.asarray(weight))


def truncate(matrix: np.ndarray, rank: int, positive: bool = False) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    kept = np.argsort(-values if positive else -np.abs(values))[:rank]
    values = np.maximum(values, 0) if positive else values
    return (vectors[:, kept] * values[kept]) @ vectors[:, kept].T


def tangent_least_squares(lifting, targets, basis, ridge, affine_columns) -> np.ndarray:
    """The penalised least-squares matrix on the tangent space, by numpy's lstsq."""
    inputs = np.asarray(lifting.inputs)
    given = lifting.sample_weight
    weight = np.ones(len(inputs)) if given is None else np.asarray(given)
    root = np.sqrt(weight / weight.sum())[:, None]
    units = np.eye(basis.size).reshape(-1, *basis.shape)
    tangents = np.array([basis @ unit.T + unit @ basis.T for unit in units])
    columns = np.einsum("ia,kab,ib->ik", inputs, tangents, inputs)
    penalty = np.sqrt(ridge) * tangents.reshape(len(tangents), -1).T
    design = np.hstack([root * columns, root * affine_columns])
    penalty = np.hstack([penalty, np.zeros((len(penalty), affine_columns.shape[1]))])
    goal = np.concatenate([root[:, 0] * np.asarray(targets), np.zeros(len(penalty))])
    fitted = np.linalg.lstsq(np.vstack([design, penalty]), goal, rcond=None)[0]
    return np.einsum("k,kab->ab", fitted[: len(tangents)], tangents)


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9])
def test_no_digits_are_computed_that_nobody_asked_for(rtol):
    lifting, targets, _ = jp.sample_problem(jax.random.key(3), num_samples=1000, dim=40, rank=2)
    solution = jp.solve(jp.gauss_newton(2), lifting, targets, KEY, rtol=rtol)
    assert solution.status == jp.Status.CONVERGED
    assert rtol / 20 < solution.relative_residual <= rtol


@pytest.mark.parametrize("affine", ["none", "centre", "linear"])
def test_a_step_whose_inner_problem_is_solved_is_dense_gauss_newton(affine, monkeypatch):
    monkeypatch.setattr(module, "FORCING", 1e-13)
    step = jax.jit(lambda solver, *arguments: solver.step(*arguments))
    debias = "none" if affine == "none" else "centre"
    for seed, ridge in ((0, 0.0), (1, 0.3), (2, 3.0)):
        lifting, targets, _ = problem(seed, noise=1.0)
        lifting = weighted(lifting, seed)
        ones = np.ones((60, 1))
        columns = {
            "none": ones[:, :0],
            "centre": ones,
            "linear": np.hstack([ones, lifting.inputs]),
        }[affine]
        if affine == "linear":
            lifting = jp.with_linear_terms(lifting)
        for positive in (False, True):
            solver = jp.gauss_newton(RANK, debias, positive, jnp.asarray(ridge), inner_steps=500)
            start = jp.sample_truth(jax.random.key(seed + 50), DIM, RANK, "positive")
            state = solver.init(lifting, targets, KEY, start)
            basis = np.asarray(state.estimate.factor)
            matrix = tangent_least_squares(lifting, targets, basis, ridge, columns)
            expected = truncate(matrix, RANK, positive)
            state = step(solver, lifting, targets, state)
            assert state.step_size == 1
            size = np.linalg.norm(matrix)
            assert_allclose(jp.to_dense(state.estimate), expected, atol=1e-8 * size)


def errors_of_trajectory(seed: int, distance: float) -> np.ndarray:
    lifting, targets, truth = problem(seed)
    scale = float(jp.lowrank.norm(truth)) ** 0.5
    shift = jax.random.normal(jax.random.key(seed + 9), truth.factor.shape)
    start = jp.LowRank(truth.factor + distance * scale * shift / 4, truth.diagonal)
    first = float(jp.relative_error(start, truth))
    solver = jp.gauss_newton(RANK)
    _, record = jp.trajectory(solver, lifting, targets, KEY, num_steps=8, start=start)
    iterates = jax.vmap(jp.relative_error, in_axes=(0, None))(record.estimate, truth)
    return np.concatenate([[first], np.asarray(iterates)])


def test_errors_square_from_step_to_step_near_the_truth():
    for seed in range(5):
        errors = errors_of_trajectory(seed, 0.1)
        falling = errors[:-1] > 1e-7
        assert 0.005 < errors[0] < 0.3, errors
        assert np.all(errors[1:][falling] <= 10 * errors[:-1][falling] ** 2)
        assert errors[-1] < 1e-14


LINEAR_RIDGE = 0.2


def penalised_loss(parameters, signs, lifting, targets, ridge):
    """`E[(x^T L x + b . x + c - y)^2] + ridge |L|_F^2 + ridge' b^T Cov b`."""
    factor, linear, intercept = parameters
    inputs, weight = lifting.inputs, lifting.sample_weight / jnp.sum(lifting.sample_weight)
    residual = (inputs @ factor) ** 2 @ signs + inputs @ linear + intercept - targets
    matrix = (factor * signs[None, :]) @ factor.T
    slopes = (inputs - (weight @ inputs)[None, :]) @ linear
    penalty = ridge * jnp.sum(matrix**2) + LINEAR_RIDGE * jnp.sum(weight * slopes**2)
    return jnp.sum(weight * residual**2) + penalty


@pytest.fixture(scope="module")
def ridge_problem():
    lifting, targets, _ = problem(3, noise=1.0)
    targets = targets + 4 * lifting.inputs[:, 0] + 10
    return jp.with_linear_terms(weighted(lifting), LINEAR_RIDGE), targets


@pytest.mark.parametrize("ridge", [0.0, 0.1, 2.0])
def test_the_solution_with_a_ridge_is_a_stationary_point_of_the_penalised_loss(
    ridge, ridge_problem
):
    lifting, targets = ridge_problem
    unpenalised = jp.solve(jp.gauss_newton(RANK, ridge=0.0), lifting, targets, KEY)
    # Also from where the residual can only rise.
    for start in (None, unpenalised.value):
        solver = jp.gauss_newton(RANK, ridge=ridge)
        solution = jp.solve(solver, lifting, targets, KEY, start=start)
        assert solution.status == jp.Status.STATIONARY
        assert solution.num_steps < 30
        form = jp.eigen_form(solution.value)
        factor, signs = (
            form.factor * jnp.sqrt(jnp.abs(form.diagonal))[None],
            jnp.sign(form.diagonal),
        )
        parameters = factor, solution.linear, solution.intercept
        gradient = jax.grad(penalised_loss)(parameters, signs, lifting, targets, ridge)
        size = float(jnp.sum(targets**2)) / 60
        for part in gradient:
            assert_allclose(part, 0, atol=1e-6 * size)


def test_a_step_never_raises_the_penalised_loss_and_a_refused_one_changes_nothing():
    ridge, num_refused = 0.1, 0
    solver = jp.gauss_newton(RANK, ridge=ridge)
    for seed in range(8):
        # With so few samples a full step often overshoots.
        lifting, targets, _ = problem(seed, num_samples=26, noise=1.0)
        start = jp.sample_truth(jax.random.key(seed + 20), DIM, RANK)
        _, record = jp.trajectory(solver, lifting, targets, KEY, num_steps=25, start=start)
        norms = jnp.linalg.norm(record.estimate.diagonal, axis=1)
        losses = np.asarray(2 * record.loss + ridge * norms**2)
        assert np.all(np.diff(losses) <= 1e-12 * float(jnp.mean(targets**2)))
        refused = np.asarray(record.step_size) == 0
        same = np.all(np.diff(np.asarray(record.estimate.diagonal), axis=0) == 0, axis=1)
        assert np.all(same[refused[1:]])
        num_refused += int(refused.sum())
    assert num_refused > 0


def test_an_active_rank_of_k_equals_a_solver_of_rank_k():
    lifting, targets, _ = problem(4, noise=2.0)
    start = jp.sample_truth(jax.random.key(2), DIM, 3)
    limits = {"max_steps": 20, "start": jp.eigen_form(start, 2)}
    whole = jp.solve(jp.gauss_newton(2), lifting, targets, KEY, **limits)
    part = jp.solve(jp.gauss_newton(3, active_rank=2), lifting, targets, KEY, **limits)
    assert part.value.diagonal[2] == 0
    assert_allclose(jp.to_dense(part.value), jp.to_dense(whole.value), rtol=0, atol=1e-6)
    assert part.status == whole.status
    one = jp.solve(jp.gauss_newton(3, active_rank=1), lifting, targets, KEY, **limits)
    assert np.count_nonzero(one.value.diagonal) == 1


def test_the_error_under_noise_is_that_of_an_oracle_that_knows_the_tangent_space():
    ratios = []
    for seed in range(10):
        lifting, targets, truth = problem(seed, num_samples=90, noise=0.05)
        solution = jp.solve(jp.gauss_newton(RANK), lifting, targets, KEY)
        assert solution.status == jp.Status.STATIONARY
        basis = np.asarray(jp.eigen_form(truth).factor)
        columns = np.ones((90, 1))
        known = np.asarray(jp.to_dense(truth))
        oracle = tangent_least_squares(lifting, targets, basis, 0.0, columns)
        found = np.linalg.norm(np.asarray(jp.to_dense(solution.value)) - known)
        ratios.append(found / np.linalg.norm(oracle - known))
    assert 0.97 < np.sqrt(np.mean(np.square(ratios))) < 1.03


def test_only_a_fitted_intercept_absorbs_an_offset():
    lifting, targets, truth = problem(5)
    start = {"start": jp.lowrank.scale(truth, 1.1)}
    centred = jp.solve(jp.gauss_newton(RANK), lifting, targets + 50, KEY, **start)
    plain = jp.solve(jp.gauss_newton(RANK, "none"), lifting, targets + 50, KEY, **start)
    assert centred.status == jp.Status.CONVERGED
    assert_allclose(centred.intercept, 50, rtol=1e-12)
    assert plain.status != jp.Status.CONVERGED
    assert plain.intercept == 0
    exact = jp.solve(jp.gauss_newton(RANK, "none"), lifting, targets, KEY, **start)
    assert jp.relative_error(exact.value, truth) < 1e-12


def test_a_semidefinite_fit_stays_semidefinite_where_the_truth_is_not():
    lifting, targets, _ = problem(6)
    solver = jp.gauss_newton(RANK, positive=True)
    solution = jp.solve(solver, lifting, targets, KEY, 30)
    assert solution.status != jp.Status.CONVERGED
    assert np.all(np.asarray(solution.value.diagonal) >= 0)
    assert solution.value.diagonal[0] > 0


REFUSED = {
    "trace": ({"debias": "trace"}, ValueError, "debias is 'trace'"),
    "negative ridge": ({"ridge": -1.0}, ValueError, "ridge is -1.0"),
    "NaN ridge": ({"ridge": jnp.nan}, ValueError, "ridge is nan"),
    "infinite ridge": ({"ridge": np.float32(np.inf)}, ValueError, "ridge is inf; .* finite"),
    "text as ridge": ({"ridge": "a"}, TypeError, "ridge is 'a'"),
    "two ridges": ({"ridge": np.ones(2)}, TypeError, "ridge is .*expected one real number"),
    "no rank": ({"rank": 0}, ValueError, "rank is 0"),
    "no active rank": ({"active_rank": 0}, ValueError, "active_rank is 0"),
    "half an active rank": ({"active_rank": 1.5}, TypeError, "active_rank is 1.5"),
    "active rank above rank": ({"active_rank": 3}, ValueError, "active_rank is 3"),
    "no inner steps": ({"inner_steps": 0}, ValueError, "inner_steps is 0"),
    "positive as number": ({"positive": 1}, TypeError, "positive is 1"),
}


@pytest.mark.parametrize(("options", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_options_out_of_range_are_refused_by_name(options, error, words):
    with pytest.raises(error, match=words):
        jp.gauss_newton(**{"rank": 2, **options})


def test_a_large_linear_part_does_not_stop_the_last_digits():
    for seed in (10, 14):
        inputs = np.random.default_rng(seed).normal(size=(200, 4))
        square = 2 * (inputs[:, 0] + inputs[:, 1] + 5) ** 2 - (inputs[:, 3] - 3) ** 2
        targets = square + inputs[:, 2]
        targets = (targets - targets.mean()) / targets.std()
        lifting = jp.with_linear_terms(jp.Lifting(jnp.asarray(inputs)))
        solution = jp.solve(jp.gauss_newton(2), lifting, targets, jax.random.key(0), 30)
        assert solution.relative_residual < 1e-13
