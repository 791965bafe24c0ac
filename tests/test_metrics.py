"""The metrics equal their dense definitions, down to tiny errors and angles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from numpy.testing import assert_allclose, assert_array_equal

from jaxpoly import (
    LowRank,
    QuadraticNetwork,
    lowrank,
    metrics,
)

# Compiled as a whole, which is much faster than operation by operation.
match_neurons = jax.jit(metrics.match_neurons)
relative_error = jax.jit(metrics.relative_error)
spectral_error = jax.jit(metrics.spectral_error)
subspace_angle = jax.jit(metrics.subspace_angle)
DIM = 9


def random_low_rank(seed, rank, dtype=jnp.float64):
    factor = np.random.default_rng(seed).normal(size=(DIM, rank))
    return LowRank(jnp.asarray(factor, dtype), jnp.asarray((-1.0) ** np.arange(rank), dtype))


def dense(low_rank):
    factor, diagonal = np.asarray(low_rank.factor), np.asarray(low_rank.diagonal)
    return np.einsum("ij,j,kj->ik", factor, diagonal, factor)


def random_network(seed, width=4, dim=7):
    generator = np.random.default_rng(seed)
    return QuadraticNetwork(
        jnp.asarray(generator.normal(size=(width, dim))),
        jnp.asarray(generator.normal(size=width)),
        jnp.zeros(dim),
        jnp.zeros(()),
    )


@pytest.mark.parametrize("ranks", [(1, 3), (4, 2), (6, 6)])
@pytest.mark.parametrize("seed", range(2))
def test_errors_equal_those_of_the_dense_matrices(seed, ranks):
    estimate, truth = random_low_rank(seed, ranks[0]), random_low_rank(seed + 10, ranks[1])
    difference, target = dense(estimate) - dense(truth), dense(truth)
    frobenius = np.linalg.norm(difference) / np.linalg.norm(target)
    spectral = np.linalg.norm(difference, 2) / np.linalg.norm(target, 2)
    assert_allclose(relative_error(estimate, truth), frobenius, rtol=1e-12)
    assert_allclose(spectral_error(estimate, truth), spectral, rtol=1e-12)


@pytest.mark.parametrize("distance", [1e-5, 1e-10, 1e-13])
def test_tiny_errors_keep_their_leading_digits(distance):
    truth = random_low_rank(0, 3)
    near = lowrank.scale(truth, 1 + distance)
    assert_allclose(relative_error(near, truth), distance, rtol=1e-15 / distance + 1e-10)
    assert_allclose(spectral_error(near, truth), distance, rtol=1e-15 / distance + 1e-10)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_equal_matrices_have_no_error_beyond_rounding(dtype):
    truth = random_low_rank(0, 3, dtype)
    eps = jnp.finfo(dtype).eps
    for found in (relative_error(truth, truth), spectral_error(truth, truth)):
        assert found.dtype == dtype
        assert found < 10 * eps
    assert subspace_angle(truth, truth).dtype == dtype
    assert subspace_angle(truth, truth) < 10 * eps


@pytest.mark.parametrize("scale", [1e-20, 1e-4, 1e4, 1e20])
def test_errors_do_not_depend_on_the_scale_of_the_problem_in_float32(scale):
    estimate, truth = random_low_rank(0, 2, jnp.float32), random_low_rank(1, 2, jnp.float32)
    pair = lowrank.scale(estimate, scale), lowrank.scale(truth, scale)
    assert_allclose(spectral_error(*pair), spectral_error(estimate, truth), rtol=1e-5)
    assert_allclose(relative_error(*pair), relative_error(estimate, truth), rtol=1e-5)


@pytest.mark.parametrize("ranks", [(1, 3), (4, 2), (6, 6)])
@pytest.mark.parametrize("seed", range(2))
def test_subspace_angle_equals_the_largest_principal_angle(seed, ranks):
    estimate, truth = random_low_rank(seed, ranks[0]), random_low_rank(seed + 10, ranks[1])
    expected = scipy.linalg.subspace_angles(estimate.factor, truth.factor).max()
    # Near a right angle the sine holds half of the digits only.
    assert_allclose(subspace_angle(estimate, truth), expected, rtol=1e-7)
    assert_allclose(subspace_angle(truth, estimate), expected, rtol=1e-7)


@pytest.mark.parametrize("angle", [0.7, 1e-5, 1e-10, 1e-13])
def test_tiny_angles_are_accurate_to_rounding(angle):
    factor = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, 3)))[0]
    turned = factor[:, :2].copy()
    turned[:, 1] = np.cos(angle) * factor[:, 1] + np.sin(angle) * factor[:, 2]
    pair = (LowRank(jnp.asarray(f), jnp.ones(2)) for f in (turned, factor[:, :2]))
    assert_allclose(subspace_angle(*pair), angle, rtol=1e-9, atol=3e-16)


def test_ranges_decide_the_angle_and_not_the_weights():
    truth = random_low_rank(0, 3)
    mixing = np.random.default_rng(1).normal(size=(3, 3)) + 3 * np.eye(3)
    same_range = LowRank(truth.factor @ mixing, jnp.asarray([-5.0, 1e-3, 2.0]))
    assert subspace_angle(same_range, truth) < 1e-13
    inside = LowRank(truth.factor[:, :1], jnp.ones(1))
    assert subspace_angle(inside, truth) < 1e-13
    assert subspace_angle(truth, inside) < 1e-13


def test_metrics_work_under_jit_and_vmap():
    pairs = [(random_low_rank(seed, 2), random_low_rank(seed + 10, 2)) for seed in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)
    for metric in (relative_error, spectral_error, subspace_angle):
        alone = [metric(*pair) for pair in pairs]
        assert_allclose(jax.jit(jax.vmap(metric))(*batch), alone, rtol=1e-12)


@pytest.mark.parametrize("metric", [relative_error, spectral_error, subspace_angle])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_estimate_that_is_not_finite_is_never_close(metric, bad):
    truth = random_low_rank(0, 2)
    spoilt = LowRank(truth.factor.at[3, 1].set(bad), truth.diagonal)
    assert not np.isfinite(metric(spoilt, truth))


def disguise(network, seed):
    """Return the network with its neurons permuted and flipped, and both."""
    generator = np.random.default_rng(seed)
    width = network.neurons.shape[0]
    order, sign = generator.permutation(width), generator.choice([-1.0, 1.0], width)
    disguised = QuadraticNetwork(
        network.neurons[order] * jnp.asarray(sign)[:, None],
        network.output_weights[order],
        network.linear,
        network.intercept,
    )
    return disguised, order, sign


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_matching_undoes_a_permutation_and_sign_flips_exactly(seed, width):
    truth = random_network(seed, width)
    disguised, order, sign = disguise(truth, seed)
    match = match_neurons(disguised, truth)
    assert_array_equal(order[np.asarray(match.order)], np.arange(width))
    assert_array_equal(match.sign, sign[np.asarray(match.order)])
    assert_array_equal(disguised.neurons[match.order] * match.sign[:, None], truth.neurons)
    assert_allclose(match.cosine, np.ones(width), rtol=1e-14)
    assert np.all(np.asarray(match.cosine) <= 1)
    assert_allclose(match.output_weight_error, np.zeros(width), atol=1e-14)


def test_matching_works_under_jit_and_vmap():
    truths = [random_network(seed) for seed in range(4)]
    disguised = [disguise(truth, seed)[0] for seed, truth in enumerate(truths)]
    stacked = [jax.tree.map(lambda *x: jnp.stack(x), *group) for group in (disguised, truths)]
    match = jax.jit(jax.vmap(match_neurons))(*stacked)
    for i, pair in enumerate(zip(disguised, truths, strict=True)):
        alone = match_neurons(*pair)
        assert_array_equal(match.order[i], alone.order)
        assert_array_equal(match.sign[i], alone.sign)
        assert_allclose(match.cosine[i], alone.cosine, rtol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_matching_minimises_the_total_distance_between_the_terms(seed):
    estimate, truth = random_network(seed, 3), random_network(seed + 10, 3)

    def terms(network):
        neurons = np.asarray(network.neurons)
        return np.einsum("j,ja,jb->jab", network.output_weights, neurons, neurons)

    cost = np.sum((terms(truth)[:, None] - terms(estimate)[None]) ** 2, axis=(2, 3))
    _, expected = scipy.optimize.linear_sum_assignment(cost)
    match = match_neurons(estimate, truth)
    assert_array_equal(match.order, expected)
    paired = np.asarray(estimate.neurons)[expected]
    cosine = np.sum(paired * truth.neurons, axis=1) / (
        np.linalg.norm(paired, axis=1) * np.linalg.norm(truth.neurons, axis=1)
    )
    assert_allclose(match.cosine, np.abs(cosine), rtol=1e-12)
    assert_array_equal(match.sign, np.where(cosine < 0, -1, 1))
    strengths = [np.einsum("jaa->j", terms(network)) for network in (estimate, truth)]
    error = np.abs(strengths[0][expected] - strengths[1])
    assert_allclose(match.output_weight_error, error, rtol=1e-12)


def test_matching_sees_the_weight_of_a_term_and_not_how_it_is_split():
    truth = random_network(0)
    split = QuadraticNetwork(
        2.0 * truth.neurons, truth.output_weights / 4, truth.linear, truth.intercept
    )
    match = match_neurons(split, truth)
    assert_array_equal(match.order, np.arange(4))
    assert_allclose(match.output_weight_error, np.zeros(4), atol=1e-14)


def test_a_dead_neuron_is_matched_without_nan():
    truth = random_network(0)
    dead = QuadraticNetwork(
        truth.neurons.at[1].set(0.0), truth.output_weights, truth.linear, truth.intercept
    )
    match = match_neurons(dead, truth)
    assert_array_equal(match.order, np.arange(4))
    assert_allclose(match.cosine, [1.0, 0.0, 1.0, 1.0], atol=1e-14)


@pytest.mark.parametrize("other", [random_network(0, 3), random_network(0, 4, 6)])
def test_networks_of_different_shapes_are_refused(other):
    with pytest.raises(ValueError, match=r"estimate.*truth.*\(4, 7\).*expected the same"):
        match_neurons(other, random_network(0))
