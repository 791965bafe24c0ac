"""The quickstart runs at its smallest size and writes what it prints."""

import numpy as np
import pytest
from PIL import Image

from experiments import quickstart, results
from experiments.cli import main
from experiments.ledger import Ledger
from experiments.session import Session

SMOKE = quickstart.PRESETS["smoke"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    assert main(["quickstart", "--preset", "smoke", "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def saved(folder):
    return results.read(folder / "quickstart.json")


def test_quickstart_learns_the_planted_network_with_all_three_algorithms(saved):
    rows = saved["planted"]["solvers"]
    assert list(rows) == ["EP-ROM", "AP-ROM", "factored descent"]
    for row in rows.values():
        assert row["status"] == "CONVERGED"
        assert row["error"] < 1e-11
        assert len(row["errors"]) == row["steps"]
        assert row["errors"][-1] == pytest.approx(row["error"], rel=1e-3, abs=1e-13)


def test_quickstart_reads_digits_better_than_chance_even_when_tiny(saved):
    digits = saved["digits"]
    assert digits["accuracy"]["quadratic networks"] > 0.7
    assert digits["accuracy"]["ridge classifier"] > 0.85
    assert np.shape(digits["patterns"]) == (10, 2, 8, 8)
    assert digits["num_train"] + digits["num_test"] == 1797


def test_quickstart_prints_the_saved_numbers(saved):
    text = quickstart.table(saved)
    assert f"{saved['digits']['accuracy']['quadratic networks']:.3f}" in text
    assert "CONVERGED" in text


def test_a_solver_that_ends_in_nan_is_told_as_such(saved, tmp_path):
    row = saved["planted"]["solvers"]["EP-ROM"] | {"error": None, "errors": [0.5, None]}
    planted = saved["planted"] | {"solvers": {"EP-ROM": row}}
    text = quickstart.table(saved | {"planted": planted})
    assert text.splitlines()[2].split()[1] == "nan"
    quickstart.draw(saved | {"planted": planted}, tmp_path)


def test_quickstart_goes_on_from_its_ledger(saved, folder):
    marks = results.provenance_of(saved)
    marks = {key: marks[key] for key in (*results.fingerprint("", SMOKE), "executor")}
    ledger = Ledger(folder / "quickstart.db", marks, resume=True)
    # Seconds would differ if anything were computed again.
    found = quickstart.run(SMOKE, Session(ledger))
    ledger.close()
    assert found == {key: saved[key] for key in found}


def test_quickstart_figures_are_pictures_with_content(folder):
    for name in ("convergence", "neurons"):
        assert (folder / f"quickstart-{name}.svg").stat().st_size > 0
        with Image.open(folder / f"quickstart-{name}.png") as picture:
            assert picture.width > 600
            assert np.asarray(picture.convert("L")).std() > 10


def test_results_carry_their_provenance(saved):
    provenance = saved["provenance"]
    assert provenance["config"]["dim"] == 12
    assert provenance["dtype"] == "float64"
    assert {"jax", "jaxpoly", "python"} <= set(provenance["versions"])


def test_an_interrupted_write_leaves_the_former_file_whole(tmp_path):
    path = tmp_path / "table.json"
    results.write(path, {"value": 1}, {"config": {}})
    with pytest.raises(TypeError, match="cannot write"):
        results.write(path, {"value": object()}, {"config": {}})
    assert results.read(path)["value"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_whitened_components_are_white_and_map_back():
    images = np.random.default_rng(0).normal(size=(50, 6)) @ np.diag([5.0, 4, 3, 2, 1, 0])
    mean, whiten, unwhiten = quickstart.principal_components(images, 6)
    white = (images - mean) @ whiten
    assert whiten.shape == (6, 5)
    np.testing.assert_allclose(white.T @ white / 50, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(white @ unwhiten + mean, images, atol=1e-12)
