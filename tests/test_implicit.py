"""Derivatives of a fit equal central differences of refits, or are NaN; never silently wrong."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxpoly as jp

KEY = jax.random.key(7)
DIM, RANK, NUM_SAMPLES = 8, 2, 80
NEW = jax.random.normal(jax.random.key(5), (6, DIM))
PATTERN = jnp.cos(jnp.arange(DIM**2)).reshape(DIM, DIM)


def problem(seed=0, noise=0.5, **options):
    """Inputs, targets and weights, ten of them zero; misfit and offset where there is noise."""
    drawn = jp.sample_problem(jax.random.key(seed), NUM_SAMPLES, DIM, RANK, noise=noise, **options)
    weight = np.random.default_rng(seed).uniform(0.2, 2.0, NUM_SAMPLES)
    weight[:10] = 0
    misfit = 3 + 0.5 * drawn.lifting.inputs[:, 0]
    return drawn.lifting.inputs, drawn.targets + misfit * (noise > 0), jnp.asarray(weight)


def plain(inputs, weight):
    return jp.Lifting(inputs, weight)


def with_linear(inputs, weight):
    return jp.with_linear_terms(jp.Lifting(inputs, weight), 0.1)


def summaries(lifting, targets, solution):
    """Numbers that do not depend on the signs of eigenvectors."""
    net = jp.QuadraticNetwork.from_low_rank(solution.value, solution.linear, solution.intercept)
    residual = jp.measure(lifting, solution.value) + solution.intercept - targets
    residual += lifting.inputs @ solution.linear
    return {
        "predictions": jnp.sum(jnp.sin(net(NEW))),
        "dense": jnp.sum(jp.to_dense(solution.value) * PATTERN),
        "eigenvalues": jnp.sum(solution.value.diagonal * jnp.array([1.0, 3.0])),
        "eigenvector": solution.value.factor[0, 1] * solution.value.factor[2, 1],
        "loss": jnp.sum(lifting.sample_weight * residual**2),
        "relative residual": solution.relative_residual,
        "intercept": solution.intercept,
        "linear": jnp.sum(solution.linear[:3]),
    }


def differentiable(lift, solver, data, solution):
    inputs, targets, weight = data
    lifting = lift(inputs, weight)
    return summaries(lifting, targets, jp.implicit(solver, lifting, targets, solution))


backward = jax.jit(jax.jacrev(differentiable, argnums=(1, 2)), static_argnums=0)


@partial(jax.jit, static_argnums=0)
def forward(lift, solver, data, solution, moved):
    function = partial(differentiable, lift)
    still = jax.tree.map(lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0), solution)
    still = jax.tree.map(
        lambda zero, leaf: jnp.zeros_like(leaf) if leaf.dtype.kind == "f" else zero,
        still,
        solution,
    )
    return jax.jvp(function, (solver, data, solution), (*moved, still))[1]


@partial(jax.jit, static_argnums=0)
def refitted(lift, solver, data, start):
    """Fit to the last digit: 25 steps from a near optimum, without any test of the end."""
    inputs, targets, weight = data
    lifting, debias = lift(inputs, weight), solver.debias
    state, _ = jp.trajectory(solver, lifting, targets, KEY, num_steps=25, start=start)
    affine = jp.lifting.fitted_affine(lifting, state.residual, debias)
    sizes = [
        jp.lifting.weighted_norm(lifting, jp.lifting.centre(lifting, values, debias))
        for values in (state.residual, targets)
    ]
    zero = jnp.int32(0)
    solution = jp.Solution(state.estimate, *affine, zero, zero, sizes[0] / sizes[1], zero, zero)
    return summaries(lifting, targets, solution)


def solved(lift, solver, data, **options):
    return jp.solve(solver, lift(data[0], data[2]), data[1], KEY, **options)


def central_difference(lift, solver, data, moved, start, step=2e-4):
    """Of fourth order; of every summary along one direction in solver and data."""

    def along(size):
        at = jax.tree.map(lambda a, b: a + size * b, (solver, data), moved)
        return refitted(lift, *at, start)

    near, far = (
        jax.tree.map(lambda a, b, h=h: (a - b) / (2 * h), along(h), along(-h))
        for h in (step, 2 * step)
    )
    return jax.tree.map(lambda a, b: (4 * a - b) / 3, near, far)


def directions(solver, data, seed):
    """One in each of inputs, targets and weights, and in the ridge where there is one."""
    still = jax.tree.map(jnp.zeros_like, (solver, data))
    for index, part in enumerate(data):
        moved = list(still[1])
        moved[index] = 0.5 * jax.random.normal(jax.random.key(seed), part.shape)
        yield still[0], tuple(moved)
    if solver.ridge > 0:
        yield replace(solver, ridge=jnp.ones(())), still[1]


def compare(lift, solver, data, names=None, modes=("backward", "forward")):
    """Require relative agreement of 1e-6, against the slope along a typical direction."""
    solution = solved(lift, solver, data)
    assert solution.status <= jp.Status.STATIONARY
    rows = backward(lift, solver, data, solution)
    for moved in directions(solver, data, 20):
        expected = central_difference(lift, solver, data, moved, solution.value)
        ahead = forward(lift, solver, data, solution, moved) if "forward" in modes else None
        for name in names or expected:
            pairs = [
                (jnp.ravel(a), jnp.ravel(b))
                for a, b in zip(jax.tree.leaves(rows[name]), jax.tree.leaves(moved), strict=True)
            ]
            back = sum(a @ b for a, b in pairs)
            typical = sum(jnp.linalg.norm(a) * jnp.linalg.norm(b) / b.size**0.5 for a, b in pairs)
            allowed = 1e-6 * max(abs(float(expected[name])), float(typical), 1e-3)
            assert abs(back - expected[name]) <= allowed, name
            if ahead is not None:
                assert abs(ahead[name] - expected[name]) <= allowed, name


CENTRED = jp.gauss_newton(RANK, ridge=jnp.asarray(0.0))
NOISELESS = ("predictions", "dense", "eigenvalues", "eigenvector", "intercept")


def test_derivatives_in_both_modes_are_central_differences_on_noisy_data():
    compare(plain, CENTRED, problem(0))
    compare(plain, CENTRED, problem(1, noise=2.0))
    compare(plain, CENTRED, problem(3, signs="positive"))


def test_derivatives_in_both_modes_are_central_differences_on_noiseless_data():
    compare(plain, CENTRED, problem(2, noise=0.0), NOISELESS)
    compare(plain, CENTRED, problem(4, noise=0.0, signs="positive"), NOISELESS)


def test_the_loss_of_a_perfect_fit_has_no_slope():
    data = problem(2, noise=0.0)
    rows = backward(plain, CENTRED, data, solved(plain, CENTRED, data))
    for name in ("loss", "relative residual"):
        for slopes in jax.tree.leaves(rows[name]):
            assert_allclose(slopes, 0, atol=1e-9)


def test_a_ridge_is_part_of_the_optimum_and_can_be_differentiated():
    compare(plain, replace(CENTRED, ridge=jnp.asarray(0.3)), problem(0))


@pytest.mark.slow
def test_fits_with_linear_terms_have_derivatives_through_their_basis_too():
    solver = replace(CENTRED, ridge=jnp.asarray(0.1))
    compare(with_linear, solver, problem(0), modes=("backward",))


@pytest.mark.slow
def test_fits_without_an_intercept_have_derivatives():
    solver = jp.gauss_newton(RANK, "none", ridge=jnp.asarray(0.0))
    compare(plain, solver, problem(0), [n for n in (*NOISELESS, "loss") if n != "intercept"])
