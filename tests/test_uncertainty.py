"""Standard errors are those of a dense Newton step on the tangent space, and intervals hold."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import jaxpoly as jp

KEY = jax.random.key(7)
DIM, RANK, NUM_SAMPLES = 8, 2, 80
NEW = jax.random.normal(jax.random.key(5), (5, DIM))
SOLVER = jp.gauss_newton(RANK)


def problem(seed=0):
    lifting, targets, _ = jp.sample_problem(jax.random.key(seed), NUM_SAMPLES, DIM, RANK, noise=0.5)
    weight = np.random.default_rng(seed).uniform(0.2, 2.0, NUM_SAMPLES)
    weight[:10] = 0
    return jp.Lifting(lifting.inputs, jnp.asarray(weight)), targets + 3


def dense_errors(lifting, targets, solution, linear):
    """Return noise, spare samples, and errors of eigenvalues and predictions, by numpy."""
    inputs, weight = np.asarray(lifting.inputs), np.asarray(lifting.sample_weight)
    form = jp.eigen_form(solution.value)
    vectors = np.asarray(form.factor)
    units = np.eye(DIM * RANK).reshape(-1, DIM, RANK)
    tangents = np.array([vectors @ unit.T + unit @ vectors.T for unit in units])

    def rows(points):
        quadratic = np.einsum("ia,kab,ib->ik", points, tangents, points)
        affine = [np.ones((len(points), 1)), points] if linear else [np.ones((len(points), 1))]
        return np.hstack([quadratic, *affine])

    design = rows(inputs)
    gram = design.T @ (weight[:, None] * design)
    fitted = jp.measure(lifting, form) + solution.intercept + inputs @ solution.linear
    residual = np.asarray(fitted - targets)
    gradient = inputs.T @ ((weight * residual)[:, None] * inputs)
    across = units - vectors @ (vectors.T @ units)
    bend = 2 * np.einsum("kaj,ab,lbj,j->kl", across, gradient, across, 1 / form.diagonal)
    bent = gram.copy()
    bent[: len(units), : len(units)] += bend
    inverse = np.linalg.pinv(bent, rcond=1e-10)
    covariance = inverse @ gram @ inverse
    spare = 70 - (DIM * RANK - 1) - 1 - DIM * linear
    noise = np.sqrt(np.sum(weight * residual**2) / spare)
    turned = np.einsum("aj,kab,bj->jk", vectors, tangents, vectors)
    turned = np.hstack([turned, np.zeros((RANK, design.shape[1] - turned.shape[1]))])
    spreads = [
        noise * np.sqrt(np.einsum("ik,kl,il->i", gradients, covariance, gradients))
        for gradients in (turned, rows(np.asarray(NEW)))
    ]
    return noise, spare, *spreads


@pytest.mark.parametrize("linear", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_errors_are_those_of_a_dense_newton_step_on_the_tangent_space(linear):
    lifting, targets = problem()
    lifting = jp.with_linear_terms(lifting) if linear else lifting
    solution = jp.solve(SOLVER, lifting, targets, KEY)
    errors = jp.standard_errors(SOLVER, lifting, targets, solution, NEW)
    expected = dense_errors(lifting, targets, solution, linear)
    for found, exact in zip(jax.tree.leaves(errors), expected, strict=True):
        assert_allclose(found, exact, rtol=1e-6)


def test_errors_follow_the_units_and_more_weight_everywhere_changes_no_error():
    lifting, targets = problem()
    solution = jp.solve(SOLVER, lifting, targets, KEY)
    errors = jp.standard_errors(SOLVER, lifting, targets, solution, NEW)
    heavy = jp.Lifting(lifting.inputs, 9 * lifting.sample_weight)
    other = jp.standard_errors(SOLVER, heavy, targets, solution, NEW)
    assert_allclose(other.noise, 3 * errors.noise)
    assert_allclose(other.eigenvalues, errors.eigenvalues)
    assert_allclose(other.predictions, errors.predictions)
    scaled = jp.solve(SOLVER, lifting, 5 * targets, KEY)
    other = jp.standard_errors(SOLVER, lifting, 5 * targets, scaled, NEW)
    for found, expected in ((other.noise, errors.noise), (other.predictions, errors.predictions)):
        assert_allclose(found, 5 * expected, rtol=1e-6)


def test_there_are_no_errors_where_there_is_no_optimum_or_no_sample_to_spare():
    lifting, targets = problem()
    early = jp.solve(SOLVER, lifting, targets, KEY, max_steps=1)
    errors = jp.standard_errors(SOLVER, lifting, targets, early, NEW)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(errors))
    few = jp.Lifting(lifting.inputs, (jnp.arange(NUM_SAMPLES) < 12).astype(float))
    solution = jp.solve(SOLVER, few, targets, KEY)
    errors = jp.standard_errors(SOLVER, few, targets, solution, NEW)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(errors))


def test_inputs_that_do_not_fit_are_refused():
    lifting, targets = problem()
    solution = jp.solve(SOLVER, lifting, targets, KEY)
    with pytest.raises(ValueError, match=r"inputs has shape \(2, 3\); expected 8 columns"):
        jp.standard_errors(SOLVER, lifting, targets, solution, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="debias='trace'"):
        jp.standard_errors(jp.ep_rom(RANK, debias="trace"), lifting, targets, solution)


class Setting(NamedTuple):
    """Planted problems: `ratio` samples an unknown, noise relative to the signal."""

    dim: int
    rank: int
    ratio: float
    noise: float
    signs: str = "mixed"
    weighted: bool = False
    linear: bool = False


def cover(setting, num_trials):
    """Return how many 95 % intervals hold the truth: of eigenvalues, (r,), and of predictions."""
    dim, rank = setting.dim, setting.rank
    unknowns = dim * rank - rank * (rank - 1) // 2 + 1 + dim * setting.linear
    num_samples = round(setting.ratio * unknowns)
    solver = jp.gauss_newton(rank)
    truth = jp.eigen_form(jp.sample_truth(jax.random.key(0), dim, rank, setting.signs))
    noise = setting.noise * 2**0.5 * jnp.linalg.norm(truth.diagonal)

    def trial(key):
        keys = jax.random.split(key, 4)
        low = 0.2 if setting.weighted else 1.0
        weight = jax.random.uniform(keys[0], (num_samples,), minval=low, maxval=1.0)
        lifting = jp.Lifting(jax.random.normal(keys[1], (num_samples, dim)), weight)
        errors = noise * jax.random.normal(keys[2], (num_samples,)) / jnp.sqrt(weight)
        targets = jp.measure(lifting, truth) + errors
        lifting = jp.with_linear_terms(lifting) if setting.linear else lifting
        solution = jp.solve(solver, lifting, targets, key, start=truth)
        new = jax.random.normal(keys[3], (4, dim))
        found = jp.standard_errors(solver, lifting, targets, solution, new)
        predictions = jp.measure(jp.Lifting(new), solution.value) + solution.intercept
        predictions += new @ solution.linear
        wrong = predictions - jp.measure(jp.Lifting(new), truth)
        return found, jp.eigen_form(solution.value).diagonal - truth.diagonal, wrong

    trials = jax.jit(partial(jax.lax.map, trial, batch_size=50))
    found, eigenvalues, predictions = trials(jax.random.split(jax.random.key(1), num_trials))
    quantile = stats.t.ppf(0.975, num_samples - unknowns)
    return (
        np.mean(np.abs(eigenvalues) <= quantile * found.eigenvalues, axis=0),
        np.mean(np.abs(predictions) <= quantile * found.predictions),
        float(jnp.sqrt(jnp.nanmean(found.noise**2)) / noise),
    )


def test_nineteen_of_twenty_intervals_hold_the_truth():
    eigenvalues, predictions, noise = cover(Setting(6, 2, ratio=6, noise=0.1), num_trials=200)
    assert 0.93 <= eigenvalues.mean() <= 0.97
    assert 0.93 <= predictions <= 0.97
    assert 0.98 <= noise <= 1.02


SETTINGS = [
    Setting(6, 1, 4, 0.3),
    Setting(20, 3, 4, 0.1),
    Setting(10, 2, 6, 0.3),
    Setting(10, 2, 10, 0.3, "positive"),
    Setting(8, 3, 6, 0.03),
    Setting(10, 2, 4, 0.01, weighted=True),
    Setting(6, 2, 6, 0.1, linear=True),
    Setting(10, 2, 4, 0.3),
]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_intervals_hold_at_every_size_and_noise(setting):
    eigenvalues, predictions, noise = cover(setting, num_trials=1000)
    print(f"held: eigenvalues {eigenvalues.mean():.3f}, predictions {predictions:.3f}")
    assert 0.93 <= eigenvalues.mean() <= 0.97
    assert 0.93 <= predictions <= 0.97
    assert 0.98 <= noise <= 1.02


@pytest.mark.slow
def test_intervals_miss_where_the_docstring_says_so():
    eigenvalues, predictions, _ = cover(Setting(10, 2, ratio=2, noise=1.0), num_trials=400)
    assert eigenvalues.mean() < 0.93
    assert predictions < 0.93
