"""The experiments run at their smallest size and write what they print."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import quickstart, recovery, results
from experiments.cli import main

SMALL = "--dim 12 --rank 2 --digits-rank 2 --digits-components 8 --digits-steps 20 --repeats 1"


@pytest.fixture(scope="module")
def quickstart_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    main(["quickstart", *SMALL.split(), "--out", str(folder)])
    return folder


def test_quickstart_learns_the_planted_network_with_all_three_algorithms(quickstart_folder):
    saved = results.read(quickstart_folder / "quickstart.json")
    rows = saved["planted"]["solvers"]
    assert list(rows) == ["EP-ROM", "AP-ROM", "factored descent"]
    for row in rows.values():
        assert row["status"] == "CONVERGED"
        assert row["error"] < 1e-11
        assert len(row["errors"]) == row["steps"]
        assert row["errors"][-1] == pytest.approx(row["error"], rel=1e-3, abs=1e-13)


def test_quickstart_reads_digits_better_than_chance_even_when_tiny(quickstart_folder):
    digits = results.read(quickstart_folder / "quickstart.json")["digits"]
    assert digits["accuracy"]["quadratic networks"] > 0.7
    assert digits["accuracy"]["ridge classifier"] > 0.85
    assert np.shape(digits["patterns"]) == (10, 2, 8, 8)
    assert digits["num_train"] + digits["num_test"] == 1797


def test_quickstart_prints_the_saved_numbers(quickstart_folder):
    saved = results.read(quickstart_folder / "quickstart.json")
    text = quickstart.report(saved)
    assert f"{saved['digits']['accuracy']['quadratic networks']:.3f}" in text
    assert "CONVERGED" in text


def test_quickstart_figures_are_pictures_with_content(quickstart_folder):
    for name in ("convergence", "neurons"):
        with Image.open(quickstart_folder / f"quickstart-{name}.png") as picture:
            assert picture.width > 600
            assert np.asarray(picture.convert("L")).std() > 10


def test_results_carry_their_provenance(quickstart_folder):
    provenance = results.read(quickstart_folder / "quickstart.json")["provenance"]
    assert provenance["config"]["dim"] == 12
    assert provenance["dtype"] == "float64"
    assert {"jax", "jaxpoly", "python"} <= set(provenance["versions"])


def test_an_interrupted_write_leaves_the_former_file_whole(tmp_path):
    path = tmp_path / "table.json"
    results.write(path, {"value": 1})
    with pytest.raises(TypeError, match="cannot write"):
        results.write(path, {"value": object()})
    assert json.loads(path.read_text()) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_whitened_components_are_white_and_map_back():
    images = np.random.default_rng(0).normal(size=(50, 6)) @ np.diag([5.0, 4, 3, 2, 1, 0])
    mean, whiten, unwhiten = quickstart.principal_components(images, 6)
    white = (images - mean) @ whiten
    assert whiten.shape == (6, 5)
    np.testing.assert_allclose(white.T @ white / 50, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(white @ unwhiten + mean, images, atol=1e-12)


def test_recovery_counts_successes_of_a_solver_that_finds_all():
    setting = recovery.default_settings()[-3]
    assert int(recovery.successes(setting, trials=3, seed=0).sum()) == 3


def test_recovery_counts_no_success_of_a_solver_that_diverges():
    setting = recovery.paper_settings()[-1]._replace(num_samples=300)
    assert int(recovery.successes(setting, trials=2, seed=0).sum()) == 0


def test_wilson_interval_is_the_textbook_one():
    low, high = recovery.wilson_interval(8, 10)
    assert (low, high) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert recovery.wilson_interval(0, 10)[0] == 0
