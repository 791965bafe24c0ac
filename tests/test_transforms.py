"""Everything composes with JAX: derivatives, batches, checkpoints, export and donated buffers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from numpy.testing import assert_allclose

import jaxpoly as jp

KEY = jax.random.key(7)
DIM, RANK, NUM_SAMPLES = 8, 2, 80
SOLVER = jp.gauss_newton(RANK)
NEW = jax.random.normal(jax.random.key(5), (7, DIM))


def problem(seed=0):
    drawn = jp.sample_problem(jax.random.key(seed), NUM_SAMPLES, DIM, RANK, noise=0.3)
    return jp.Lifting(drawn.lifting.inputs, jnp.ones(NUM_SAMPLES)), drawn.targets


def loss(targets, lifting):
    """Solve and differentiate, in one function of the data."""
    fixed = lax.stop_gradient((lifting, targets))
    solution = jp.implicit(SOLVER, lifting, targets, jp.solve(SOLVER, *fixed, KEY))
    return jnp.sum((jp.measure(jp.Lifting(NEW), solution.value) + solution.intercept) ** 2)


slope = jax.jit(jax.grad(loss))


@pytest.fixture(scope="module")
def batch():
    drawn = [problem(seed) for seed in range(3)]
    lifting, targets = jax.tree.map(lambda *parts: jnp.stack(parts), *drawn)
    return targets, lifting, jnp.stack([slope(*pair[::-1]) for pair in drawn])


def test_jvp_and_vjp_agree(batch):
    slopes = batch[2]
    lifting, targets = problem()
    solution = jp.solve(SOLVER, lifting, targets, KEY)

    def fitted(targets):
        value = jp.implicit(SOLVER, lifting, targets, solution)
        return jp.measure(jp.Lifting(NEW), value.value) + value.intercept

    move = jax.random.normal(KEY, targets.shape)
    predictions, ahead = jax.jvp(fitted, (targets,), (move,))
    again, pull = jax.vjp(fitted, targets)
    (back,) = pull(2 * predictions)
    assert_allclose(predictions, again)
    assert_allclose(back @ move, 2 * predictions @ ahead, rtol=1e-8)
    assert_allclose(back, slopes[0], rtol=1e-6, atol=1e-9 * np.abs(back).max())


def test_a_batch_of_gradients_jitted_equals_the_gradients_of_the_batch(batch):
    targets, lifting, slopes = batch
    found = jax.jit(jax.vmap(jax.grad(loss)))(targets, lifting)
    assert_allclose(found, slopes, rtol=1e-6, atol=1e-7 * np.abs(slopes).max())


@pytest.mark.slow
def test_a_batch_of_gradients_without_jit_equals_them_too(batch):
    targets, lifting, slopes = batch
    solve = partial(jp.solve, SOLVER)
    solutions = jax.vmap(solve, in_axes=(0, 0, None))(lifting, targets, KEY)

    def wrapped(targets, lifting, solution):
        solution = jp.implicit(SOLVER, lifting, targets, solution)
        return jnp.sum((jp.measure(jp.Lifting(NEW), solution.value) + solution.intercept) ** 2)

    found = jax.vmap(jax.grad(wrapped))(targets, lifting, solutions)
    assert_allclose(found, slopes, rtol=1e-6, atol=1e-7 * np.abs(slopes).max())


@pytest.mark.slow
def test_a_checkpoint_around_solve_and_derivative_changes_nothing(batch):
    slopes = batch[2]
    found = jax.jit(jax.grad(jax.checkpoint(loss)))(*problem()[::-1])
    assert_allclose(found, slopes[0], rtol=1e-8, atol=1e-9 * np.abs(slopes[0]).max())


def fit(lifting, targets, key):
    return jp.solve(SOLVER, lifting, targets, key)


def exported(function, *arguments):
    """Call what is left of a function after it was written to bytes."""
    pytest.importorskip("flatbuffers", reason="jax.export writes bytes with flatbuffers")
    data = export.export(function)(*arguments).serialize()
    return export.deserialize(data).call(*arguments)


def test_an_exported_solve_survives_as_bytes():
    lifting, targets = problem()
    found = exported(jax.jit(fit), lifting, targets, KEY)
    assert isinstance(found, jp.Solution)
    expected = fit(lifting, targets, KEY)
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert got.dtype == wanted.dtype
        assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_an_exported_derivative_of_a_solve_survives_as_bytes(batch):
    lifting, targets = problem()
    found = exported(slope, targets, lifting)
    assert_allclose(found, batch[2][0], rtol=1e-8, atol=1e-9 * np.abs(found).max())


def test_donated_data_are_used_up_and_the_result_is_the_same():
    lifting, targets = problem()

    def refit(inputs, targets):
        lifting = jp.Lifting(inputs, jnp.ones(NUM_SAMPLES))
        solution = fit(lifting, targets, KEY)
        residual = jp.measure(lifting, solution.value) + solution.intercept - targets
        return solution, 2 * inputs, residual

    expected = refit(lifting.inputs, targets)
    given = jnp.array(lifting.inputs), jnp.array(targets)
    found = jax.jit(refit, donate_argnums=(0, 1))(*given)
    assert all(array.is_deleted() for array in given)
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


# More than two blocks of 4 MB: the kernels then go through X in a loop.
SIZES = {"in one": (50, 6), "in blocks": (20_000, 60)}


def measured(inputs, weight, values, block):
    return jp.measure(jp.Lifting(inputs, weight), jp.LowRank(block, jnp.array([1.0, -2.0])))


def back_projected(inputs, weight, values, block):
    return jp.backproject(jp.Lifting(inputs, weight), values, block)


def gradient(debias, inputs, weight, values, block):
    return jp.gradient_map(jp.Lifting(inputs, weight), values, debias)(block)


def network(inputs, weight, values, block):
    return jp.QuadraticNetwork(block.T, jnp.array([1.0, -2.0]), block[:, 0], weight[0])(inputs)


FUNCTIONS = {
    "measure": measured,
    "backproject": back_projected,
    "gradient_map centre": partial(gradient, "centre"),
    "gradient_map trace": partial(gradient, "trace"),
    "network": network,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_the_building_blocks_are_differentiable_in_all_data(function, size):
    num_samples, dim = SIZES[size]
    generator = np.random.default_rng(0)
    shapes = (num_samples, dim), (num_samples,), (num_samples,), (dim, 2)
    inputs, weight, *rest = (jnp.asarray(generator.normal(size=shape)) for shape in shapes)
    data = inputs, jnp.abs(weight).at[:5].set(0), *rest
    moves = tuple(jnp.asarray(generator.normal(size=shape)) for shape in shapes)
    size = num_samples**0.5

    def total(*data):
        out = function(*data)
        return jnp.sum(out**2) / out.size

    @jax.jit
    def along(data, moves, step):
        return total(*(a + step * b for a, b in zip(data, moves, strict=True)))

    @jax.jit
    def slopes(data, moves):
        return jax.grad(total, argnums=(0, 1, 2, 3))(*data), jax.jvp(total, data, moves)[1]

    back, ahead = slopes(data, moves)
    step = 1e-4 / size
    near, far = (
        (along(data, moves, h) - along(data, moves, -h)) / (2 * h) for h in (step, 2 * step)
    )
    expected = (4 * near - far) / 3
    found = sum(jnp.vdot(a, b) for a, b in zip(back, moves, strict=True))
    assert_allclose(found, expected, rtol=1e-6)
    assert_allclose(ahead, found, rtol=1e-10)
