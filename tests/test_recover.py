"""The front door: any inputs go in, and what comes out is right or says that it is not."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxpoly as jp

KEY = jax.random.key(1)
M, P, RANK = 120, 10, 2
Status = jp.Status


@pytest.fixture(scope="module")
def data() -> jp.Problem:
    return jp.sample_problem(jax.random.key(0), M, P, RANK)


def recover(inputs, targets, rank=RANK, **options) -> jp.Recovery:
    return jp.recover(inputs, targets, rank, key=KEY, **options)


def predict(solution: jp.Recovery, inputs) -> np.ndarray:
    inputs = np.asarray(inputs, np.float64)
    factor, diagonal = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(solution.value))
    quadratic = (inputs @ factor) ** 2 @ diagonal
    return quadratic + inputs @ np.asarray(solution.linear) + float(solution.intercept)


def assert_fits(solution: jp.Recovery, inputs, targets, tolerance: float = 1e-9) -> None:
    assert solution.status == Status.CONVERGED
    targets = np.asarray(targets)
    size = np.linalg.norm(targets)
    assert np.linalg.norm(predict(solution, inputs) - targets) <= tolerance * size


def test_a_recovery_is_a_solution_in_the_coordinates_of_the_inputs(data):
    inputs, targets = data.lifting.inputs, data.targets + 3.0
    solution = recover(inputs, targets)
    assert isinstance(solution, jp.Solution)
    jp.raise_if_failed(solution)
    assert jp.relative_error(solution.value, data.truth) < 1e-12
    assert_allclose(solution.intercept, 3.0, rtol=1e-10)
    assert_fits(solution, inputs, targets)
    assert_allclose(solution.sample_weight, np.full(M, 1 / M))
    assert solution.rank_curve is None
    assert solution.num_starts == 1
    assert not np.any(np.asarray(solution.constant_squares))
    again = recover(np.asarray(inputs).tolist(), np.asarray(targets).tolist())
    for one, other in zip(*map(jax.tree.leaves, (solution, again)), strict=True):
        assert jnp.array_equal(one, other)


@pytest.mark.parametrize("law", ["uniform", "laplace", "student", "rademacher", "gaussian"])
def test_every_input_law_is_recovered(law):
    lifting, targets, truth = jp.sample_problem(jax.random.key(2), M, P, RANK, inputs=law)
    solution = recover(lifting.inputs, targets)
    assert_fits(solution, lifting.inputs, targets)
    assert np.all(np.asarray(solution.constant_squares) == (law == "rademacher"))
    if law != "rademacher":
        assert jp.relative_error(solution.value, truth) < 1e-9


TABLES = {
    "correlated": lambda x: x @ np.random.default_rng(0).normal(size=(P, P)),
    "badly scaled": lambda x: x * 10.0 ** np.linspace(-8, 8, P),
    "tiny": lambda x: 1e-12 * x,
    "huge": lambda x: 1e12 * x,
    "shifted": lambda x: x + 2,
}


@pytest.mark.parametrize("change", TABLES.values(), ids=TABLES)
def test_inputs_may_be_correlated_scaled_or_shifted(data, change):
    inputs = change(np.asarray(data.lifting.inputs))
    unit = jnp.asarray(inputs / np.sqrt(np.mean(inputs**2, axis=0)))
    targets = jp.measure(jp.Lifting(unit), data.truth)
    assert_fits(recover(inputs, targets), inputs, targets, 1e-7)


@pytest.mark.parametrize(("scale", "input_scale"), [(1e-12, 1), (1e12, 1), (1, 1e-12), (1, 1e12)])
def test_scaling_targets_or_inputs_scales_the_matrix(data, scale, input_scale):
    inputs, targets = data.lifting.inputs, data.targets
    noisy = targets + jax.random.normal(KEY, (M,)) * 0.1
    plain = recover(inputs, noisy)
    scaled = recover(input_scale * inputs, scale * noisy)
    back = jp.lowrank.scale(scaled.value, input_scale**2 / scale)
    assert jp.relative_error(back, plain.value) < 1e-6
    assert scaled.status == plain.status == Status.STATIONARY


def test_neurons_along_an_axis_of_sign_inputs_are_invisible_and_flagged(data):
    inputs = jnp.sign(data.lifting.inputs)
    axis = jp.LowRank(jnp.eye(P, 1), jnp.ones(1))
    alone = recover(inputs, jp.measure(jp.Lifting(inputs), axis))
    assert alone.status == Status.DEGENERATE
    assert_allclose(alone.intercept, 1.0)
    first = jp.LowRank(data.truth.factor[:, :1], jnp.ones(1))
    targets = jp.measure(jp.Lifting(inputs), jp.lowrank.add(axis, first))
    solution = recover(inputs, targets)
    assert_fits(solution, inputs, targets)
    assert np.all(np.asarray(solution.constant_squares))


def test_data_that_no_start_can_mend_end_at_once(data):
    inputs, targets = data.lifting.inputs, data.targets
    for bad, y in (
        (inputs.at[3, 2].set(jnp.nan), targets),
        (inputs.at[3, 2].set(jnp.inf), targets),
        (inputs, targets.at[3].set(jnp.nan)),
    ):
        solution = recover(bad, y)
        assert solution.status == Status.NONFINITE_INPUT
        assert solution.num_starts == 1
        fit = solution.value, solution.linear, solution.intercept
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(fit))
    for constant in (0.0, 3.0):
        solution = recover(inputs, jnp.full(M, constant))
        assert solution.status == Status.DEGENERATE
        assert_allclose(predict(solution, inputs), constant, rtol=1e-14)
    assert recover(0 * inputs, targets).status == Status.DEGENERATE


def test_an_infinite_weight_is_an_unusable_input_and_no_lack_of_samples(data):
    weight = np.ones(M)
    weight[3] = np.inf
    solution = recover(data.lifting.inputs, data.targets, sample_weight=weight)
    assert solution.status == Status.NONFINITE_INPUT
    assert not solution.underdetermined


def test_pure_noise_is_not_said_to_be_converged(data):
    targets = jax.random.normal(jax.random.key(5), (M,))
    solution = recover(data.lifting.inputs, targets)
    assert solution.status != Status.CONVERGED
    assert solution.relative_residual > 0.5
    assert solution.num_starts <= 10


def test_fewer_samples_than_unknowns_are_flagged_and_end_after_few_starts(data):
    solution = recover(data.lifting.inputs[:12], data.targets[:12])
    assert solution.underdetermined
    assert solution.num_starts <= 3


def test_rows_of_zero_weight_may_hold_anything(data):
    inputs, targets = data.lifting.inputs, data.targets
    off = jnp.arange(M) < 15
    weight = jnp.where(off, 0.0, 1.0 + jnp.arange(M) % 3)
    noisy = targets + 0.3 * jax.random.normal(KEY, (M,))
    plain = recover(inputs, noisy, sample_weight=weight)
    for junk in (1e6, 1e30, 1e200, jnp.nan):
        spoilt = jnp.where(off[:, None], junk, inputs)
        found = recover(spoilt, jnp.where(off, junk, noisy), sample_weight=weight)
        assert jp.relative_error(found.value, plain.value) < 1e-9
        assert found.status == Status.STATIONARY


def test_linear_terms_are_found_on_shifted_inputs(data):
    inputs = 3 * data.lifting.inputs + 5
    targets = jp.measure(jp.Lifting(inputs), data.truth) - 4 * inputs[:, 1] + 11
    solution = recover(inputs, targets, affine=True)
    assert_fits(solution, inputs, targets)
    assert jp.relative_error(solution.value, data.truth) < 1e-9
    assert_allclose(solution.linear, -4 * jnp.eye(P)[1], atol=1e-5)
    lines = recover(inputs, inputs[:, 1] - 2, affine=True)
    assert lines.status == Status.DEGENERATE
    assert_allclose(predict(lines, inputs), inputs[:, 1] - 2, atol=1e-11)


@pytest.mark.parametrize("shift", [pytest.param(1e2, marks=pytest.mark.slow), 1e4])
def test_a_success_on_shifted_inputs_is_one_in_the_coordinates_of_the_inputs(data, shift):
    inputs = np.asarray(data.lifting.inputs + shift, np.float32)
    targets = np.asarray(data.targets, np.float32)
    solution = recover(inputs, targets, affine=True)
    size = np.std(targets.astype(float))
    left = np.sqrt(np.mean((predict(solution, inputs) - targets) ** 2)) / size
    assert left <= 1e-3 or solution.status > Status.STATIONARY
    assert solution.relative_residual >= 0.3 * left


def test_a_large_offset_of_the_targets_does_not_end_the_search(data):
    targets = np.asarray(data.targets + 1e6, np.float32)
    solution = recover(np.asarray(data.lifting.inputs, np.float32), targets)
    assert jp.relative_error(solution.value, data.truth) < 0.01


def test_a_small_sample_of_centred_inputs_is_not_taken_for_far_shifted(data, monkeypatch):
    module = sys.modules["jaxpoly.recover"]
    prepared = []

    def spy(lifting, targets, ridge, affine):
        prepared.append(affine)
        return module_prepare(lifting, targets, ridge, affine)

    class SearchedError(Exception):
        pass

    def no_search(*_):
        raise SearchedError

    module_prepare = module.prepare
    monkeypatch.setattr(module, "prepare", spy)
    # The decision has fallen then, and the starts would be compiled for these shapes alone.
    monkeypatch.setattr(module, "search", no_search)
    # The mean of so few samples has a squared norm of up to 1, as if far away.
    for seed in range(10):
        lifting, targets, _ = jp.sample_problem(jax.random.key(seed), 14, P, 1)
        with pytest.raises(SearchedError):
            recover(lifting.inputs, targets, 1)
    assert prepared == [False] * 10
    prepared.clear()
    with pytest.raises(SearchedError):
        recover(data.lifting.inputs + 100, data.targets)
    assert prepared == [False, True]


def test_a_ridge_shrinks_the_matrix(data):
    noisy = data.targets + jax.random.normal(KEY, (M,))
    norms = []
    for ridge in (0.0, 1.0, 100.0):
        solution = recover(data.lifting.inputs, noisy, ridge=ridge)
        assert solution.status == Status.STATIONARY
        norms.append(float(jp.lowrank.norm(solution.value)))
    assert norms[0] > 1.2 * norms[1] > 5 * norms[2] > 0


def test_positive_fits_are_semidefinite():
    lifting, targets, truth = jp.sample_problem(jax.random.key(3), M, P, RANK, "positive")
    solution = recover(lifting.inputs, targets, positive=True)
    assert jp.relative_error(solution.value, truth) < 1e-10
    assert np.all(np.asarray(solution.value.diagonal) >= 0)


def test_float32_stays_float32(data):
    inputs, targets = (np.asarray(a, np.float32) for a in (data.lifting.inputs, data.targets))
    solution = recover(inputs, targets)
    numeric = [
        leaf for leaf in jax.tree.leaves(solution) if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    assert {leaf.dtype for leaf in numeric} == {jnp.dtype("float32")}
    assert_fits(solution, inputs, targets, 1e-5)


@pytest.mark.parametrize("shape", [(M, 3, 3), (40, 1, 1), (1, 10, 2)])
def test_the_smallest_and_fullest_shapes_end_honestly(data, shape):
    num_samples, dim, rank = shape
    inputs = data.lifting.inputs[:num_samples, :dim]
    truth = jp.sample_truth(jax.random.key(4), dim, rank)
    targets = jp.measure(jp.Lifting(inputs), truth) + 1
    solution = recover(inputs, targets, rank)
    assert solution.status == (Status.DEGENERATE if num_samples == 1 else Status.CONVERGED)
    assert_allclose(predict(solution, inputs), targets, rtol=1e-10)


@pytest.fixture(scope="module")
def spoilt(data):
    off = jax.random.bernoulli(jax.random.key(9), 0.15, (M,))
    return off, jnp.where(off, 30 * jax.random.normal(jax.random.key(8), (M,)), data.targets)


def test_spoilt_targets_lose_their_weight(data, spoilt):
    off, targets = spoilt
    solution = recover(data.lifting.inputs, targets, robust=True)
    assert solution.status == Status.CONVERGED
    assert jp.relative_error(solution.value, data.truth) < 1e-10
    assert np.array_equal(np.asarray(solution.sample_weight == 0), np.asarray(off))
    for constant in (0.0, 3.0):
        still = recover(data.lifting.inputs, jnp.full(M, constant), robust=True)
        assert still.status == Status.DEGENERATE
