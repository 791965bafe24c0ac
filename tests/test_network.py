"""The network predicts by its formula, and L and the canonical network determine one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxpoly import Lifting, LowRank, QuadraticNetwork, measure, relative_error, to_dense

# Compiled as a whole, which is much faster than operation by operation.
from_low_rank = jax.jit(QuadraticNetwork.from_low_rank)


def random_network(seed, width=3, dim=6, dtype=jnp.float64):
    generator = np.random.default_rng(seed)
    shapes = (width, dim), (width,), (dim,), ()
    return QuadraticNetwork(*(jnp.asarray(generator.normal(size=s), dtype) for s in shapes))


def formula(network, inputs):
    """`sum_j a_j (w_j . x)^2 + b . x + c` of one input, neuron by neuron."""
    terms = zip(np.asarray(network.output_weights), np.asarray(network.neurons), strict=True)
    quadratic = sum(weight * (neuron @ inputs) ** 2 for weight, neuron in terms)
    return quadratic + np.asarray(network.linear) @ inputs + float(network.intercept)


@pytest.mark.parametrize(("width", "dim"), [(1, 1), (3, 6), (5, 2)])
@pytest.mark.parametrize("seed", range(2))
def test_prediction_equals_the_formula(seed, width, dim):
    network = random_network(seed, width, dim)
    inputs = np.random.default_rng(seed).normal(size=(7, dim))
    expected = [formula(network, row) for row in inputs]
    found = network(jnp.asarray(inputs))
    assert found.shape == (7,)
    assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_one_input_gives_the_scalar_that_a_batch_gives():
    network = random_network(0)
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)))
    alone = network(inputs[2])
    assert alone.shape == ()
    assert_allclose(alone, network(inputs)[2], rtol=1e-13)
    assert_allclose(jax.vmap(network)(inputs), network(inputs), rtol=1e-13)


@pytest.mark.parametrize(
    "inputs", [[1, 2, 3], [1.0, 2.0, 3.0], (1, 2, 3), [[1, 2, 3], [0, 0, 1]], [[1.5, 2.0, 3.0]]]
)
def test_lists_of_numbers_are_predicted_as_arrays_are(inputs):
    network = random_network(0, 2, 3)
    assert_allclose(network(inputs), network(np.array(inputs, np.float64)), rtol=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.float16])
def test_inputs_of_any_real_dtype_are_cast_before_they_are_squared(dtype):
    network = QuadraticNetwork(jnp.eye(1, 3), jnp.ones(1), jnp.zeros(3), jnp.zeros(()))
    inputs = np.full((2, 3), 200).astype(dtype)
    assert_allclose(network(inputs), inputs[:, 0].astype(float) ** 2)


def test_an_empty_batch_gives_no_predictions():
    assert random_network(0)(np.zeros((0, 6))).shape == (0,)


@pytest.mark.parametrize("seed", range(3))
def test_lift_measures_what_the_quadratic_part_predicts(seed):
    network = random_network(seed)
    inputs = jnp.asarray(np.random.default_rng(seed).normal(size=(9, 6)))
    linear_part = inputs @ network.linear + network.intercept
    expected = network(inputs) - linear_part
    assert_allclose(measure(Lifting(inputs), network.lift()), expected, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize("seed", range(2))
def test_network_of_a_low_rank_matrix_lifts_back_to_it(seed, rank):
    low_rank = random_network(seed, rank).lift()
    network = from_low_rank(low_rank)
    assert_allclose(to_dense(network.lift()), to_dense(low_rank), atol=1e-12)
    assert_allclose(network.neurons @ network.neurons.T, np.eye(rank), atol=1e-14)
    assert not np.any(network.linear)
    assert network.intercept == 0


def test_linear_part_and_intercept_are_kept():
    low_rank = random_network(0).lift()
    network = from_low_rank(low_rank, linear=np.arange(6), intercept=2)
    assert_array_equal(network.linear, np.arange(6.0))
    assert network.intercept == 2.0
    assert network.linear.dtype == network.intercept.dtype == jnp.float64


@pytest.mark.parametrize("seed", range(3))
def test_canonical_neurons_descend_in_magnitude_with_a_positive_peak(seed):
    network = from_low_rank(random_network(seed).lift())
    assert np.all(np.diff(np.abs(network.output_weights)) <= 0)
    neurons = np.asarray(network.neurons)
    peaks = neurons[np.arange(3), np.abs(neurons).argmax(axis=1)]
    assert np.all(peaks > 0)


@pytest.mark.parametrize("seed", range(3))
def test_canonical_form_does_not_depend_on_order_sign_or_scale_of_the_neurons(seed):
    network = random_network(seed)
    order = np.random.default_rng(seed).permutation(3)
    factor = jnp.asarray([-1.0, 2.0, -0.5])
    disguised = QuadraticNetwork(
        network.neurons[order] * factor[:, None],
        network.output_weights[order] / factor**2,
        network.linear,
        network.intercept,
    )
    canonical = from_low_rank(network.lift())
    again = from_low_rank(disguised.lift())
    assert_allclose(again.neurons, canonical.neurons, atol=1e-11)
    assert_allclose(again.output_weights, canonical.output_weights, rtol=1e-11)


@pytest.mark.parametrize("seed", range(3))
def test_canonical_form_is_its_own_canonical_form(seed):
    canonical = from_low_rank(random_network(seed).lift())
    again = from_low_rank(canonical.lift())
    assert_allclose(again.neurons, canonical.neurons, atol=1e-12)
    assert_allclose(again.output_weights, canonical.output_weights, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_rotated_neurons_of_equal_weight_give_the_same_matrix(seed):
    generator = np.random.default_rng(seed)
    rotation = jnp.asarray(np.linalg.qr(generator.normal(size=(3, 3)))[0])
    network = random_network(seed)
    equal = jnp.full(3, -1.5)
    plain = QuadraticNetwork(network.neurons, equal, network.linear, network.intercept)
    rotated = QuadraticNetwork(rotation @ network.neurons, equal, network.linear, network.intercept)
    assert relative_error(rotated.lift(), plain.lift()) < 1e-14
    inputs = jnp.asarray(generator.normal(size=(5, 6)))
    assert_allclose(rotated(inputs), plain(inputs), rtol=1e-12)


def test_several_outputs_are_a_batch():
    networks = [random_network(seed) for seed in range(3)]
    lifted = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(net.lift() for net in networks))
    batch = jax.jit(jax.vmap(QuadraticNetwork.from_low_rank))(lifted)
    assert batch.neurons.shape == (3, 3, 6)
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6)))
    found = jax.vmap(lambda network: network(inputs))(batch)
    for row, network in zip(found, networks, strict=True):
        alone = from_low_rank(network.lift())
        assert_allclose(row, alone(inputs), rtol=1e-11, atol=1e-11)


def test_float32_network_predicts_in_float32():
    network = from_low_rank(random_network(0, dtype=jnp.float32).lift())
    assert {leaf.dtype for leaf in jax.tree.leaves(network)} == {jnp.dtype("float32")}
    assert network(np.ones((2, 6), np.float32)).dtype == jnp.float32


def test_prediction_is_differentiable_in_inputs_and_parameters():
    network = random_network(0)
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=6))
    symmetric = to_dense(network.lift())
    slope = jax.grad(network)(inputs)
    assert_allclose(slope, 2 * symmetric @ inputs + network.linear, atol=1e-12)
    by_weight = jax.grad(lambda net: net(inputs))(network).output_weights
    assert_allclose(by_weight, (network.neurons @ inputs) ** 2, rtol=1e-12)


def test_a_matrix_that_is_not_finite_gives_a_network_of_nan():
    low_rank = LowRank(jnp.eye(4, 2).at[1, 1].set(jnp.nan), jnp.ones(2))
    network = from_low_rank(low_rank)
    assert np.isnan(network.neurons).all()
    assert np.isnan(network.output_weights).all()
