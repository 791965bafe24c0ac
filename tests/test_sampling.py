"""Planted problems have the shapes, the spectrum, the laws and the noise they were asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxpoly import backproject, measure, sample_problem, sample_truth, to_dense

KEY = jax.random.key(0)
# Of each law: the excess kurtosis plus 2, which is the variance of x^2 for variance 1.
LAWS = {"gaussian": 2.0, "uniform": 0.8, "laplace": 5.0, "student": 5.0, "rademacher": 0.0}


def eigenvalues(truth):
    values = np.linalg.eigvalsh(to_dense(truth))
    return values[np.argsort(-np.abs(values))]


@pytest.mark.parametrize("dtype", [None, jnp.float32, jnp.float64])
def test_problem_has_the_shapes_and_the_dtype_asked(dtype):
    problem = sample_problem(KEY, 7, 5, 2, dtype=dtype, noise=0.1)
    assert problem.lifting.inputs.shape == (7, 5)
    assert problem.lifting.sample_weight is None
    assert problem.targets.shape == (7,)
    assert problem.truth.factor.shape == (5, 2)
    assert problem.truth.diagonal.shape == (2,)
    wanted = jnp.dtype(jnp.float64 if dtype is None else dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(problem)} == {wanted}


@pytest.mark.parametrize("law", ["uniform", "laplace", "rademacher"])
def test_float32_is_kept_with_every_option(law):
    problem = sample_problem(
        KEY, 7, 5, 2, "mixed", 0.1, condition=10, inputs=law, capacity=9, dtype=jnp.float32
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(problem)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("seed", range(2))
def test_targets_without_noise_are_the_measurements_of_the_truth(seed):
    problem = sample_problem(jax.random.key(seed), 7, 5, 2)
    x = np.asarray(problem.lifting.inputs)
    expected = np.einsum("ia,ab,ib->i", x, to_dense(problem.truth), x)
    assert_allclose(problem.targets, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noise", [0.1, 30.0])
@pytest.mark.parametrize("seed", range(2))
def test_noise_is_centred_gaussian_with_its_standard_deviation(seed, noise):
    m = 10_000
    problem = sample_problem(jax.random.key(seed), m, 4, 2, noise=noise)
    clean = measure(problem.lifting, problem.truth)
    errors = np.asarray(problem.targets - clean) / noise
    margin = 5 / np.sqrt(m)
    assert abs(errors.mean()) < margin
    assert abs(np.mean(errors**2) - 1) < np.sqrt(2) * margin
    assert abs(np.mean(errors**4) - 3) < np.sqrt(96) * margin
    for column in np.asarray(problem.lifting.inputs).T:
        assert abs(np.mean(errors * column)) < margin
    # Independent of the clean targets too, not only uncorrelated with the inputs.
    assert abs(np.corrcoef(errors**2, clean)[0, 1]) < margin


@pytest.mark.parametrize("options", [{}, {"condition": 3.0}, {"spectrum": [3.0, 2.0, 2.0, 1.0]}])
@pytest.mark.parametrize("seed", range(2))
def test_signs_are_the_inertia_of_the_truth(seed, options):
    positive = sample_truth(jax.random.key(seed), 6, 4, "positive", **options)
    mixed = sample_truth(jax.random.key(seed), 6, 4, "mixed", **options)
    assert np.sum(eigenvalues(positive) > 1e-8) == 4
    assert np.sum(eigenvalues(positive) < -1e-8) == 0
    assert np.sum(eigenvalues(mixed) > 1e-8) == 2
    assert np.sum(eigenvalues(mixed) < -1e-8) == 2
    assert_array_equal(np.sign(mixed.diagonal), [1, -1, 1, -1])


def test_signs_are_mixed_by_default_and_begin_with_plus():
    assert_array_equal(sample_truth(KEY, 6, 3).diagonal, [1, -1, 1])


@pytest.mark.parametrize("seed", range(2))
def test_spectrum_holds_the_magnitudes_of_the_eigenvalues(seed):
    truth = sample_truth(jax.random.key(seed), 8, 3, spectrum=[5, 2, 1])
    assert_allclose(eigenvalues(truth)[:3], [5.0, -2.0, 1.0], rtol=1e-13)
    assert_allclose(truth.factor.T @ truth.factor, np.eye(3), atol=1e-14)


@pytest.mark.parametrize("condition", [1.0, 100.0])
def test_condition_is_the_ratio_of_the_extreme_magnitudes(condition):
    truth = sample_truth(KEY, 8, 3, "positive", condition=condition)
    expected = [1.0, condition**-0.5, 1 / condition]
    assert_allclose(eigenvalues(truth)[:3], expected, rtol=1e-12)
    assert sample_truth(KEY, 8, 1, condition=condition).diagonal.tolist() == [1.0]


def test_default_truth_has_a_standard_gaussian_factor():
    factor = np.asarray(sample_truth(KEY, 200, 100).factor)
    margin = 5 / np.sqrt(factor.size)
    assert abs(factor.mean()) < margin
    assert abs(np.mean(factor**2) - 1) < np.sqrt(2) * margin


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("seed", range(2))
def test_inputs_of_every_law_have_mean_zero_and_variance_one(seed, law):
    inputs = sample_problem(jax.random.key(seed), 10_000, 4, 2, inputs=law).lifting.inputs
    x = np.asarray(inputs)
    margin = 5 / np.sqrt(x.size)
    assert abs(x.mean()) < margin
    assert abs(np.mean(x**2) - 1) <= np.sqrt(LAWS[law]) * margin + 1e-12
    off_diagonal = np.corrcoef(x.T) - np.eye(4)
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(len(x))


def test_laws_differ_in_their_tails():
    draws = {
        law: np.asarray(sample_problem(KEY, 10_000, 4, 2, inputs=law).lifting.inputs)
        for law in LAWS
    }
    assert set(np.unique(draws["rademacher"])) == {-1.0, 1.0}
    assert 1.73 < np.abs(draws["uniform"]).max() <= np.sqrt(3)
    kurtosis = {law: np.mean(draw**4) for law, draw in draws.items()}
    assert abs(kurtosis["gaussian"] - 3) < 0.3
    assert abs(kurtosis["laplace"] - 6) < 0.9
    assert 4 < kurtosis["student"] < 9


def test_a_function_can_draw_the_inputs():
    seen = []

    def law(key, shape, dtype):
        seen.append((shape, dtype))
        return jnp.full(shape, 3.0, dtype)

    problem = sample_problem(KEY, 7, 5, 2, inputs=law, dtype=jnp.float32)
    assert seen == [((7, 5), jnp.float32)]
    assert_array_equal(problem.lifting.inputs, np.full((7, 5), 3.0))
    assert_allclose(problem.targets, measure(problem.lifting, problem.truth))


def test_rows_from_num_samples_on_have_zero_weight():
    problem = sample_problem(KEY, 5, 4, 2, capacity=8)
    assert problem.lifting.inputs.shape == (8, 4)
    assert_array_equal(problem.lifting.sample_weight, [1, 1, 1, 1, 1, 0, 0, 0])
    full = sample_problem(KEY, 8, 4, 2, capacity=8)
    assert_array_equal(full.lifting.sample_weight, np.ones(8))
    assert_array_equal(full.lifting.inputs, problem.lifting.inputs)


def test_one_trace_serves_every_number_of_samples_up_to_the_capacity():
    traces = []

    @jax.jit
    def moment(num_samples):
        traces.append(num_samples)
        problem = sample_problem(KEY, num_samples, 4, 2, capacity=8)
        return backproject(problem.lifting, problem.targets, jnp.eye(4))

    whole = sample_problem(KEY, 8, 4, 2, capacity=8)
    x, y = np.asarray(whole.lifting.inputs), np.asarray(whole.targets)
    for m in (1, 5, 8):
        expected = np.einsum("i,ia,ib->ab", y[:m], x[:m], x[:m]) / m
        assert_allclose(moment(m), expected, rtol=1e-12, atol=1e-12)
    assert len(traces) == 1


def test_noise_and_condition_may_be_traced_and_batched():
    def draw(key, noise, condition):
        return sample_problem(key, 6, 4, 2, noise=noise, condition=condition)

    keys = jax.random.split(KEY, 3)
    noise, condition = jnp.array([0.0, 0.1, 1.0]), jnp.array([1.0, 2.0, 4.0])
    batch = jax.jit(jax.vmap(draw))(keys, noise, condition)
    alone = draw(keys[2], 1.0, 4.0)
    last = jax.tree.map(lambda leaf: leaf[2], batch)
    for found, expected in zip(jax.tree.leaves(last), jax.tree.leaves(alone), strict=True):
        assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_same_key_gives_the_same_problem_and_another_key_another():
    first, again, other = (
        sample_problem(key, 6, 4, 2, noise=0.1) for key in (KEY, KEY, jax.random.key(1))
    )
    for one, same, changed in zip(*map(jax.tree.leaves, (first, again, other)), strict=True):
        assert_array_equal(one, same)
        if one.shape != (2,):
            assert not np.any(one == changed)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_samples": 0}, ValueError, "num_samples is 0"),
        ({"num_samples": 2.5}, TypeError, "num_samples is 2.5"),
        ({"num_samples": True}, TypeError, "num_samples is True"),
        ({"dim": 0}, ValueError, "dim is 0"),
        ({"dim": 4.0}, TypeError, "dim is 4.0"),
        ({"rank": 0}, ValueError, "rank is 0"),
        ({"rank": -1}, ValueError, "rank is -1"),
        ({"rank": 5}, ValueError, "rank is 5, above the input dimension p = 4"),
        ({"rank": 2.0}, TypeError, "rank is 2.0"),
        ({"signs": "negative"}, ValueError, "signs is 'negative'.*'positive', 'mixed'"),
        ({"inputs": "cauchy"}, ValueError, "inputs is 'cauchy'.*'rademacher'"),
        ({"spectrum": [1.0]}, ValueError, r"spectrum has shape \(1,\)"),
        ({"spectrum": [1.0, 1.0], "condition": 2.0}, ValueError, "both spectrum and condition"),
        ({"capacity": 0}, ValueError, "capacity is 0"),
        ({"capacity": 5}, ValueError, "num_samples is 6, above the capacity 5"),
        ({"capacity": 8, "num_samples": 0}, ValueError, "num_samples is 0"),
        ({"key": 0}, TypeError, r"key is 0; expected a JAX key: jax.random.key\(0\)"),
    ],
)
def test_options_out_of_range_are_refused(options, error, words):
    valid = {"key": KEY, "num_samples": 6, "dim": 4, "rank": 2}
    with pytest.raises(error, match=words):
        sample_problem(**(valid | options))
