"""The experiments that are sweeps, at their smallest size, and the tutorial."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from experiments import noise, phase_transition, registry, results
from experiments.session import Session

ROOT = Path(__file__).parents[1]
NAMES = ("noise", "conditioning", "input-laws", "throughput")


@pytest.fixture(
    scope="module",
    params=["phase-transition", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES)],
)
def smoke(request, tmp_path_factory):
    """Name, module, saved results and folder of an experiment that was run and drawn."""
    folder = tmp_path_factory.mktemp(request.param)
    module = registry.experiment(request.param)
    config = module.PRESETS["smoke"]
    found = module.run(config, Session())
    path = results.path_of(found, folder, request.param)
    results.write(
        path, found, results.provenance([results.fingerprint(request.param, config)], 1.0)
    )
    saved = results.read(path)
    module.draw(saved, folder)
    return request.param, module, saved, folder


def test_the_figure_is_a_picture_in_both_formats(smoke):
    name, _, _, folder = smoke
    with Image.open(folder / f"{name}.png") as picture:
        assert picture.width > 500
        assert np.asarray(picture.convert("L")).std() > 10
    assert (folder / f"{name}.svg").stat().st_size > 5000


def test_the_table_has_a_line_for_every_solver_and_no_missing_number(smoke):
    name, module, saved, _ = smoke
    text = module.table(saved)
    assert "nan" not in text
    config = results.provenance_of(saved)["config"]
    for solver in config.get("solvers", ()):
        assert solver in text
    assert name != "throughput" or "refilled lanes" in text


def test_many_samples_are_solved_and_less_than_the_unknowns_never():
    rates = phase_transition.rates(phase_transition.run(phase_transition.PRESETS["smoke"]), 1e-4)
    assert (rates.rate[rates.ratio < 1] == 0).all()
    assert (rates.rate[rates.ratio > 3] >= 0.75).all()


def test_the_error_follows_the_theory_of_noise():
    config = replace(noise.PRESETS["smoke"], trials=30, ratios=(8.0,), sigmas=(0.01, 0.1))
    saved = noise.run(config)
    over = noise.typical(saved) / noise.theory(saved)
    np.testing.assert_allclose(over, 1, atol=0.2)
    slope = np.log(noise.typical(saved)[1] / noise.typical(saved)[0]) / np.log(10)
    assert float(slope) == pytest.approx(1, abs=0.1)


def test_the_half_way_point_is_interpolated_after_the_last_rate_below_half():
    ratios = np.array([1.0, 2.0, 3.0, 4.0])
    assert phase_transition.half_way(ratios, np.array([0.6, 0.4, 0.4, 0.9])) == pytest.approx(3.2)
    assert phase_transition.half_way(ratios, np.ones(4)) == 1
    assert np.isnan(phase_transition.half_way(ratios, np.zeros(4)))


def test_a_phase_diagram_over_both_dims_and_ranks_is_refused():
    config = replace(phase_transition.PRESETS["smoke"], dims=(5, 10))
    with pytest.raises(ValueError, match="one of them"):
        phase_transition.run(config)


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tutorial.py", "--small"])
    monkeypatch.chdir(tmp_path)
    with matplotlib.rc_context():
        runpy.run_path(str(ROOT / "docs" / "tutorial.py"))
    for name in ("steps", "transition"):
        assert (tmp_path / "results" / f"tutorial-{name}.png").stat().st_size > 10_000
