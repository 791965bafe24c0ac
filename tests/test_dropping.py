"""Rows that are not finite are given no weight where that is asked for, and counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpoly as jp
from jaxpoly.estimator import QuadraticNetworkClassifier, QuadraticNetworkRegressor

M, P = 60, 8
KEY = jax.random.key(0)
LIFTING, TARGETS, _ = jp.sample_problem(jax.random.key(1), M, P, 2)
INPUTS, TARGETS = np.asarray(LIFTING.inputs), np.asarray(TARGETS)
GOOD = np.ones(M, bool)
GOOD[[3, 7, 11, 20]] = False


@pytest.fixture
def holed():
    """Inputs, targets and weights, each not finite in rows of its own, four in all."""
    inputs, targets, weight = INPUTS.copy(), TARGETS.copy(), np.ones(M)
    inputs[3, 2], inputs[7], targets[11], weight[20] = np.nan, -np.inf, np.nan, np.inf
    return inputs, targets, weight


def test_cleaned_data_are_those_of_the_finite_rows(holed):
    inputs, targets, weight = holed
    lifting, cleaned, dropped = jp.drop_nonfinite_rows(jp.Lifting(inputs, weight), targets)
    assert dropped == 4
    np.testing.assert_array_equal(lifting.sample_weight, GOOD.astype(float))
    np.testing.assert_array_equal(lifting.inputs, np.where(GOOD[:, None], INPUTS, 0))
    np.testing.assert_array_equal(cleaned, np.where(GOOD, TARGETS, 0))


def test_a_row_that_had_no_weight_is_not_counted_as_dropped(holed):
    inputs, targets, _ = holed
    weight = np.ones(M)
    weight[[3, 4]] = 0
    lifting, _, dropped = jax.jit(jp.drop_nonfinite_rows)(jp.Lifting(inputs, weight), targets)
    assert dropped == 2
    assert jnp.sum(lifting.sample_weight != 0) == M - 4


def test_a_recovery_without_the_rows_is_that_of_the_rest(holed):
    inputs, targets, weight = holed
    options = {"key": KEY, "sample_weight": weight}
    kept = jp.recover(inputs, targets, 2, **options)
    assert kept.status == jp.Status.NONFINITE_INPUT
    dropped = jp.recover(inputs, targets, 2, drop_nonfinite=True, **options)
    assert dropped.status == jp.Status.CONVERGED
    assert (kept.num_dropped, dropped.num_dropped) == (0, 4)
    error = np.abs(np.asarray(jp.measure(LIFTING, dropped.value)) + dropped.intercept - TARGETS)
    assert error.max() < 1e-9
    np.testing.assert_array_equal(dropped.sample_weight != 0, GOOD)


def test_a_recovery_of_no_finite_row_is_refused():
    with pytest.raises(ValueError, match="no sample is left: drop_nonfinite took 60 of 60"):
        jp.recover(INPUTS * np.nan, TARGETS, 2, key=KEY, drop_nonfinite=True)
    with pytest.raises(TypeError, match="drop_nonfinite is 1"):
        jp.recover(INPUTS, TARGETS, 2, key=KEY, drop_nonfinite=1)


def test_an_estimator_without_the_rows_is_that_of_the_rest(holed):
    inputs, targets, weight = holed
    model = QuadraticNetworkRegressor(2, ridge=0.1, random_state=0)
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        model.fit(inputs, targets, weight)
    model.set_params(drop_nonfinite=True).fit(inputs, targets, weight)
    rest = QuadraticNetworkRegressor(2, ridge=0.1, random_state=0).fit(INPUTS[GOOD], TARGETS[GOOD])
    assert (model.n_dropped_, rest.n_dropped_) == (4, 0)
    np.testing.assert_array_equal(model.predict(INPUTS), rest.predict(INPUTS))
    np.testing.assert_array_equal(model.sample_weight_ != 0, GOOD)


def test_a_classifier_drops_rows_and_keeps_the_names_of_columns(holed):
    pandas = pytest.importorskip("pandas")
    names = [f"x{i}" for i in range(P)]
    table = pandas.DataFrame(holed[0], columns=names)
    labels = np.where(TARGETS > 0, "high", "low")
    model = QuadraticNetworkClassifier(1, ridge=0.1, drop_nonfinite=True).fit(table, labels)
    assert model.n_dropped_ == 2
    assert list(model.feature_names_in_) == names
    assert set(model.predict(table[GOOD])) <= {"high", "low"}
    with pytest.raises(ValueError, match="NaN"):
        model.predict(table)


def test_an_estimator_of_no_finite_row_is_refused():
    model = QuadraticNetworkRegressor(2, drop_nonfinite=True)
    with pytest.raises(ValueError, match="all 60 samples hold NaN or infinity"):
        model.fit(INPUTS * np.nan, TARGETS)
