"""The estimators keep scikit-learn's conventions and learn what quadratic networks can."""

import pickle

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxpoly.estimator import QuadraticNetworkClassifier, QuadraticNetworkRegressor
from jaxpoly.estimator_plots import plot_neurons, plot_spectrum
from jaxpoly.estimator_table import merge_rows


@parametrize_with_checks([QuadraticNetworkRegressor()])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([QuadraticNetworkClassifier()])
def test_scikit_learn_conventions_of_classifiers(estimator, check):
    check(estimator)


def planted(num_rows: int = 200, dtype: type = np.float64, noise: float = 0.0):
    """Return inputs far from zero and in different units, targets, and neurons."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(num_rows, 4)) * [1, 10, 0.1, 1] + [5, 0, 0, -3]
    unit = inputs / [1, 10, 0.1, 1]
    targets = 2 * (unit[:, 0] + unit[:, 1]) ** 2 - unit[:, 3] ** 2 + unit[:, 2] + 7
    targets = targets + noise * rng.normal(size=num_rows)
    return inputs.astype(dtype), targets.astype(dtype)


def test_the_network_of_a_class_is_that_of_the_class_alone():
    inputs, digits = load_digits(n_class=3, return_X_y=True)
    options = {"rank": 2, "ridge": 0.1, "max_steps": 300, "random_state": 0}
    together = QuadraticNetworkClassifier(**options).fit(inputs, digits)
    for label in range(3):
        alone = QuadraticNetworkClassifier(**options).fit(inputs, digits == label)
        outputs = together.decision_function(inputs)[:, label]
        np.testing.assert_allclose(outputs, alone.decision_function(inputs), atol=1e-6)


@pytest.fixture(scope="module")
def diabetes():
    return load_diabetes(return_X_y=True, as_frame=True)


@pytest.fixture(scope="module")
def fitted(diabetes):
    return QuadraticNetworkRegressor(random_state=0).fit(*diabetes)


@pytest.fixture(scope="module")
def recovered():
    return QuadraticNetworkRegressor(random_state=0).fit(*planted())


def test_noiseless_network_is_found_exactly(recovered):
    model = recovered
    assert (model.rank_, model.ridge_) == (2, 0.0)
    held_out, expected = planted(300)
    np.testing.assert_allclose(model.predict(held_out[200:]), expected[200:], rtol=1e-8)
    np.testing.assert_allclose(model.neurons_ @ model.neurons_.T, np.eye(2), atol=1e-12)
    dense = (model.neurons_.T * model.output_weights_) @ model.neurons_
    unit = np.array([1, 1 / 10, 0, 0])
    truth = 2 * np.outer(unit, unit) - np.diag([0, 0, 0, 1.0])
    np.testing.assert_allclose(dense, truth, atol=1e-8)
    network = model.to_network()
    np.testing.assert_allclose(network(held_out), model.predict(held_out), rtol=1e-9)


def test_given_rank_without_ridge_is_recovered(recovered):
    inputs, targets = planted()
    model = QuadraticNetworkRegressor(rank=2, ridge=0.0, random_state=1).fit(inputs, targets)
    assert model.rank_curve_ is None
    np.testing.assert_allclose(model.predict(inputs), recovered.predict(inputs), rtol=1e-8)


def test_positive_network_has_no_negative_weight():
    inputs, targets = planted(noise=1.0)
    free, positive = (
        QuadraticNetworkRegressor(rank=2, ridge=1e-3, positive=flag).fit(inputs, targets)
        for flag in (False, True)
    )
    assert free.output_weights_[1] < 0
    assert (positive.output_weights_ >= 0).all()
    assert 0.9 < positive.score(inputs, targets) < free.score(inputs, targets)


def test_without_linear_terms_the_function_is_even():
    inputs, targets = planted(noise=1.0)
    model = QuadraticNetworkRegressor(rank=2, ridge=1e-3, affine=False).fit(inputs, targets)
    assert not model.coef_.any()
    np.testing.assert_allclose(model.predict(inputs), model.predict(-inputs))


def test_rank_zero_is_ridge_regression():
    inputs, targets = planted(noise=1.0)
    model = QuadraticNetworkRegressor(rank=0, ridge=0.1).fit(inputs, targets)
    ridge = Ridge(alpha=0.1 * 0.03 * len(targets))
    ridge.fit((inputs - inputs.mean(axis=0)) / inputs.std(axis=0), targets)
    np.testing.assert_allclose(model.coef_ * inputs.std(axis=0), ridge.coef_, rtol=1e-8)
    assert model.neurons_.shape == (0, 4)


def test_data_without_interactions_are_predicted_as_by_a_linear_model():
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(1200, 4))
    targets = inputs[:, 0] + 0.5 * rng.normal(size=1200)
    model = QuadraticNetworkRegressor(random_state=0).fit(inputs[:200], targets[:200])
    linear = Ridge().fit(inputs[:200], targets[:200])
    held_out = inputs[200:], targets[200:]
    assert model.score(*held_out) > linear.score(*held_out) - 0.01


def test_robust_fit_takes_gross_errors_out():
    inputs, targets = planted(noise=0.1)
    spoilt = targets.copy()
    spoilt[::10] += 500
    options = {"rank": 2, "ridge": 1e-6, "random_state": 0}
    robust = QuadraticNetworkRegressor(robust=True, **options).fit(inputs, spoilt)
    assert not robust.sample_weight_[::10].any()
    assert robust.score(inputs, targets) > 0.999
    assert QuadraticNetworkRegressor(**options).fit(inputs, spoilt).score(inputs, targets) < 0.99


@pytest.mark.parametrize("estimator", [QuadraticNetworkRegressor, QuadraticNetworkClassifier])
def test_float32_stays_float32_and_float64_needs_no_global_flag(estimator):
    inputs, targets = planted(noise=1.0)
    labels = (targets > np.median(targets)).astype(int)
    y = targets if estimator is QuadraticNetworkRegressor else labels
    for dtype in (np.float32, np.float64):
        outputs = []
        for flag in (False, True):
            with jax.enable_x64(flag):
                model = estimator(rank=2, ridge=0.01, random_state=0).fit(inputs.astype(dtype), y)
                assert model.neurons_.dtype == dtype
                values = getattr(model, "decision_function", model.predict)(inputs.astype(dtype))
                assert values.dtype == dtype
                assert jax.numpy.ones(1).dtype == (np.float64 if flag else np.float32)
                outputs.append(values)
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=0)


def test_weight_is_repetition_and_zero_weight_is_absence():
    inputs, targets = planted(60, noise=1.0)
    weight = np.arange(60) % 3
    model = QuadraticNetworkRegressor(random_state=0)
    weighted = clone(model).fit(inputs, targets, sample_weight=weight)
    index = np.random.default_rng(0).permutation(np.repeat(np.arange(60), weight))
    repeated = clone(model).fit(inputs[index], targets[index])
    np.testing.assert_allclose(weighted.predict(inputs), repeated.predict(inputs), rtol=1e-10)
    assert not weighted.sample_weight_[::3].any()


def test_merged_rows_are_distinct_and_keep_the_weight():
    inputs = np.array([[1.0, 0.0], [1.0, -0.0], [2.0, 0.0], [1.0, 0.0]])
    targets = np.array([[3.0, 3.0, 3.0, 4.0]])
    rows, outputs, weight = merge_rows(inputs, targets, np.array([1.0, 2.0, 0.0, 5.0]))
    assert sorted(zip(rows.tolist(), outputs[0], weight, strict=True)) == [
        ([1.0, 0.0], 3.0, 3.0),
        ([1.0, 0.0], 4.0, 5.0),
    ]


@pytest.mark.parametrize("weight", [-1.0, 0.0])
def test_useless_weights_are_refused(weight):
    inputs, targets = planted(20)
    with pytest.raises(ValueError, match=r"(?i)sample.weight"):
        QuadraticNetworkRegressor().fit(inputs, targets, np.full(20, weight))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rank": 5}, ValueError),
        ({"rank": -1}, ValueError),
        ({"rank": 1.0}, TypeError),
        ({"rank": "best"}, TypeError),
        ({"ridge": -1.0}, ValueError),
        ({"ridge": np.nan}, ValueError),
        ({"ridge": "none"}, TypeError),
    ],
)
def test_options_out_of_range_are_refused(options, error):
    with pytest.raises(error, match=f"{next(iter(options))} is"):
        QuadraticNetworkRegressor(**options).fit(*planted(20))


def test_unfinished_fit_warns():
    model = QuadraticNetworkRegressor(rank=2, ridge=1e-6, max_steps=1)
    with pytest.warns(ConvergenceWarning, match="max_steps"):
        model.fit(*planted(noise=1.0))
    assert model.status_ == "MAX_STEPS"


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7])
def test_few_rows_and_constant_targets_are_fitted(num_rows):
    inputs, targets = planted(num_rows)
    constant = QuadraticNetworkRegressor().fit(inputs, np.full(num_rows, 3.0))
    np.testing.assert_allclose(constant.predict(inputs), 3.0)
    assert np.isfinite(QuadraticNetworkRegressor().fit(inputs, targets).predict(inputs)).all()


def test_one_class_is_always_answered():
    inputs, _ = planted(20)
    model = QuadraticNetworkClassifier().fit(inputs, ["only"] * 20)
    assert set(model.predict(inputs)) == {"only"}


def test_pipeline_cross_validation_and_grid_search(diabetes):
    model = make_pipeline(StandardScaler(), QuadraticNetworkRegressor(random_state=0))
    assert cross_val_score(model, *diabetes, cv=3).mean() > 0.45
    grid = {"quadraticnetworkregressor__rank": [0, 1]}
    search = GridSearchCV(model, grid, cv=3).fit(*diabetes)
    assert search.best_params_ == {"quadraticnetworkregressor__rank": 1}


def test_pickled_model_predicts_the_same(fitted, diabetes):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(diabetes[0]), fitted.predict(diabetes[0]))
    assert not any(isinstance(value, jax.Array) for value in vars(fitted).values())


def test_feature_names_are_kept_and_checked(fitted, diabetes):
    table = diabetes[0]
    assert list(fitted.feature_names_in_) == list(table.columns)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(table[table.columns[::-1]])
    with pytest.raises(ValueError, match="contains NaN"):
        fitted.predict(pd.DataFrame(np.nan, index=[0], columns=table.columns))


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return images[::2], labels[::2], images[1::2], labels[1::2]


@pytest.fixture(scope="module")
def classifier(digits):
    return QuadraticNetworkClassifier(rank=4, ridge=1.0).fit(*digits[:2])


def test_classifier_of_digits_beats_logistic_regression(classifier, digits):
    images, labels, held_out, held_out_labels = digits
    logistic = make_pipeline(StandardScaler(), LogisticRegression()).fit(images, labels)
    score = classifier.score(held_out, held_out_labels)
    assert score > logistic.score(held_out, held_out_labels) + 0.01
    assert classifier.neurons_.shape == (10, 4, 64)
    outputs = classifier.decision_function(held_out)
    np.testing.assert_array_equal(
        classifier.classes_[outputs.argmax(1)], classifier.predict(held_out)
    )


def test_pictures_have_a_panel_a_neuron(classifier, fitted):
    assert len(plot_neurons(fitted)) == fitted.rank_
    names = [label.get_text() for label in plot_neurons(fitted)[0].get_yticklabels()]
    assert names == list(fitted.feature_names_in_)
    assert len(plot_spectrum(fitted)) == 2
    assert len(plot_neurons(classifier, output=9, image_shape=(8, 8))) == 4
    assert len(plot_spectrum(classifier, output=9)) == 1


def test_pictures_of_nothing_are_refused(classifier, diabetes):
    with pytest.raises(NotFittedError):
        plot_spectrum(QuadraticNetworkRegressor())
    with pytest.raises(ValueError, match="rank is 0"):
        plot_neurons(QuadraticNetworkRegressor(rank=0, ridge=0.1).fit(*diabetes))
    for options in ({"image_shape": (8, 7)}, {"feature_names": ["a"]}, {"output": 10}):
        with pytest.raises(ValueError, match=next(iter(options))):
            plot_neurons(classifier, **options)
    axes = plot_spectrum(classifier)
    with pytest.raises(ValueError, match="axes"):
        plot_neurons(classifier, axes=axes)
    with pytest.raises(ValueError, match="axes"):
        plot_spectrum(classifier, axes=[*axes, *axes])


@pytest.fixture(autouse=True)
def closed_figures():
    """Draw without a screen and leave no figure open."""
    import matplotlib
    from matplotlib import pyplot as plt

    matplotlib.use("Agg")
    yield
    plt.close("all")
