"""At the ends of the range of a dtype: L, c or y that it cannot hold are told."""

import jax
import numpy as np
import pytest

import jaxpoly as jp
from jaxpoly import Status
from jaxpoly.estimator import QuadraticNetworkClassifier, QuadraticNetworkRegressor
from jaxpoly.estimator_table import prepare

M, P = 60, 8
KEY = jax.random.key(0)
PROBLEM = jp.sample_problem(jax.random.key(1), M, P, 2)
INPUTS, TARGETS = np.asarray(PROBLEM.lifting.inputs), np.asarray(PROBLEM.targets)


@pytest.mark.parametrize("scale", [1e-200, 1e200, 1e300])
def test_a_recovery_whose_matrix_is_not_representable_diverged(scale):
    solution = jp.recover(INPUTS * scale, TARGETS, 2, key=KEY)
    assert solution.status == Status.DIVERGED
    assert solution.relative_residual == 1
    np.testing.assert_array_equal(solution.value.diagonal, 0)
    np.testing.assert_allclose(solution.intercept, TARGETS.mean())


@pytest.mark.parametrize("scale", [1e-100, 1e100, 1e140])
def test_a_recovery_at_other_extreme_scales_is_right(scale):
    solution = jp.recover(INPUTS * scale, TARGETS, 2, key=KEY)
    assert solution.status == Status.CONVERGED
    scaled = jp.LowRank(solution.value.factor, solution.value.diagonal * scale**2)
    assert jp.relative_error(scaled, PROBLEM.truth) < 1e-9


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_unusable_input(bad):
    weight = np.ones(M)
    weight[5] = bad
    solution = jp.recover(INPUTS, TARGETS, 2, key=KEY, sample_weight=weight)
    assert solution.status == Status.NONFINITE_INPUT


@pytest.mark.parametrize("scale", [1e-200, 1e300])
def test_an_estimator_whose_weights_are_not_representable_is_refused(scale):
    with pytest.raises(ValueError, match="do not fit into float64; scale them first"):
        QuadraticNetworkRegressor(2, ridge=0.1).fit(INPUTS * scale, TARGETS)
    with pytest.raises(ValueError, match="do not fit into float64"):
        QuadraticNetworkClassifier(2, ridge=0.1).fit(INPUTS * scale, TARGETS > 0)
    with pytest.raises(ValueError, match="do not fit into float32"):
        QuadraticNetworkRegressor(2).fit(np.float32(1e-25 * INPUTS), np.float32(TARGETS))


def test_targets_too_small_for_their_squares_are_not_taken_for_constant():
    weight = np.ones(M)
    usual = prepare(INPUTS, TARGETS[None], weight, centred=True)
    for scale in (2.0**-900, 2.0**900):
        table = prepare(INPUTS, scale * TARGETS[None], weight, centred=True)
        np.testing.assert_array_equal(table.spread, usual.spread * scale)
        np.testing.assert_array_equal(table.targets, usual.targets)
    with pytest.raises(ValueError, match=r"targets of .*e-309 have a network"):
        prepare(INPUTS, 1e-310 * TARGETS[None], weight, centred=True)


def test_weights_below_the_smallest_normal_number_are_no_weights():
    solution = jp.recover(INPUTS, TARGETS, 2, key=KEY, sample_weight=np.full(M, 1e-310))
    assert solution.status == Status.DEGENERATE


@pytest.mark.parametrize("weight", [1e-300, 1e308])
def test_an_estimator_takes_weights_whose_sum_is_not_representable(weight):
    plain = QuadraticNetworkRegressor(2, ridge=0.1).fit(INPUTS, TARGETS)
    model = QuadraticNetworkRegressor(2, ridge=0.1).fit(INPUTS, TARGETS, np.full(M, weight))
    np.testing.assert_allclose(model.predict(INPUTS), plain.predict(INPUTS), rtol=1e-8)


def solve_with_linear_terms(inputs, targets, rank):
    lifting = jp.with_linear_terms(jp.Lifting(inputs))
    return jp.solve(jp.gauss_newton(rank), lifting, targets, KEY)


ENTRANCES = {
    "linear terms": solve_with_linear_terms,
    "solve": lambda inputs, targets, rank: jp.solve(
        jp.gauss_newton(rank), jp.Lifting(inputs), targets, KEY
    ),
    "recover": lambda inputs, targets, rank: jp.recover(inputs, targets, rank, key=KEY),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_an_intercept_beyond_the_dtype_is_no_success(entrance):
    inputs = np.linspace(1, 1.4, 80, dtype=np.float32).reshape(40, 2)
    inputs[:, 1] = 0.1 * np.random.default_rng(0).normal(size=40)
    targets = np.float32(3e38) * (2 - inputs[:, 0] ** 2)
    assert np.isfinite(targets).all()
    found = ENTRANCES[entrance](inputs, targets, 1)
    assert found.status == Status.DIVERGED
    assert np.isfinite(found.intercept)
    assert np.isfinite(found.relative_residual)
    assert np.isfinite(np.asarray(found.value.diagonal)).all()


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("units_of_tiny", [0.5, 3, 100])
def test_targets_that_are_partly_flushed_to_zero_are_degenerate(entrance, units_of_tiny):
    inputs = np.random.default_rng(0).normal(size=(60, 4))
    targets = inputs[:, 0] ** 2 + 0.3 * inputs[:, 1] ** 2 - 1
    targets = (targets * units_of_tiny * np.finfo(np.float32).tiny).astype(np.float32)
    found = ENTRANCES[entrance]((1e-12 * inputs).astype(np.float32), targets, 2)
    assert found.status == Status.DEGENERATE
    assert not np.asarray(found.value.diagonal).any()
