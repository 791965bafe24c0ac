"""The energy model: its cell, its estimators, and what it writes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxpoly as jp
from experiments import energy_model, results
from experiments import energy_model_estimators as estimators
from experiments.session import Session

SMOKE = energy_model.PRESETS["smoke"]


@pytest.fixture(scope="module")
def session():
    return Session()


@pytest.fixture(scope="module")
def saved(session, tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "energy-model.json"
    found = energy_model.run(SMOKE, session)
    results.write(
        path, found, results.provenance([results.fingerprint("energy-model", SMOKE)], 0.0)
    )
    return results.read(path)


def angles(saved, kind):
    rows = saved["stimuli"][kind]["estimators"]
    return {name: np.asarray(row["angle_degrees"])[:, -1] for name, row in rows.items()}


@pytest.mark.slow
def test_least_squares_is_nearer_to_the_filters_than_stc_in_every_experiment(saved):
    for kind in energy_model.KINDS:
        error = angles(saved, kind)
        assert (error["jaxpoly"] < 0.9 * error["whitened STC"]).all()
        assert (error["jaxpoly"] < 30).all()


@pytest.mark.slow
def test_stc_without_whitening_misses_the_filters_on_correlated_stimuli(saved):
    assert (angles(saved, "white")["STC"] < 30).all()
    assert (angles(saved, "1/f")["STC"] > 45).all()
    assert (angles(saved, "1/f")["jaxpoly"] < 0.6 * angles(saved, "1/f")["STC"]).all()


@pytest.mark.slow
def test_least_squares_predicts_the_rate_best(saved):
    for kind in energy_model.KINDS:
        rows = saved["stimuli"][kind]["estimators"]
        score = {name: np.asarray(row["r_squared"])[:, -1] for name, row in rows.items()}
        assert (score["jaxpoly"] > 0.8).all()
        assert (score["jaxpoly"] > score["whitened STC"] + 0.02).all()


def test_stc_finds_the_filters_blurred_by_the_covariance_of_the_stimuli():
    config = energy_model.Config(size=8)
    truth = energy_model.gabor_filters(8)
    covariance = energy_model.stimulus_covariance("1/f", truth)
    inputs = energy_model.sample_stimuli(jax.random.key(0), 20000, covariance)
    rates = energy_model.response(config, inputs, truth)
    estimate = estimators.spike_triggered_covariance(inputs, rates, np.eye(64))
    blurred = jp.LowRank(jnp.asarray(covariance @ truth.T), jnp.ones(3))
    sharp = jp.LowRank(jnp.asarray(truth.T), jnp.ones(3))
    assert np.degrees(jp.subspace_angle(estimate.value, blurred)) < 8
    assert np.degrees(jp.subspace_angle(estimate.value, sharp)) > 45


@pytest.mark.parametrize("size", [7, 12])
def test_the_filters_are_orthonormal(size):
    truth = energy_model.gabor_filters(size)
    np.testing.assert_allclose(truth @ truth.T, np.eye(3), atol=1e-12)


def test_correlated_stimuli_drive_the_excitatory_filters_like_white_ones():
    truth = energy_model.gabor_filters(8)
    covariance = energy_model.stimulus_covariance("1/f", truth)
    energies = np.diag(truth @ covariance @ truth.T)
    assert energies[:2].mean() == pytest.approx(1)
    inputs = energy_model.sample_stimuli(jax.random.key(1), 50000, covariance)
    np.testing.assert_allclose(inputs.T @ inputs / 50000, covariance, atol=0.03 * covariance.max())
    whiten = estimators.whitening(inputs)
    np.testing.assert_allclose(whiten @ np.cov(inputs.T) @ whiten, np.eye(64), atol=1e-10)


def test_both_kinds_of_noise_have_the_rate_as_mean_and_its_mean_as_variance():
    rates = np.tile([0.0, 1.0, 5.0], 20000)
    for noise in ("poisson", "gaussian"):
        missed = energy_model.add_noise(jax.random.key(2), rates, noise) - rates
        assert missed.mean() == pytest.approx(0, abs=0.03)
        assert missed.var() == pytest.approx(2, rel=0.03)


def test_alignment_undoes_order_sign_and_rotation_in_the_excitatory_plane():
    truth = energy_model.gabor_filters(8)
    turned = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, -1]]) @ truth
    aligned = estimators.align(turned[[2, 1, 0]], np.array([-2.0, 1.0, 1.1]), truth)
    np.testing.assert_allclose(aligned, truth, atol=1e-12)


def test_alignment_does_not_turn_the_suppressive_filter_into_the_plane():
    truth = energy_model.gabor_filters(8)
    aligned = estimators.align(truth, np.array([1.0, -1.0, 1.0]), truth)
    assert abs(aligned[2] @ truth[2]) < 1e-12


@pytest.mark.slow
def test_nothing_finished_is_computed_again(saved, session, monkeypatch):
    monkeypatch.delattr(energy_model, "learn")
    found = energy_model.run(SMOKE, session)
    assert found == {key: saved[key] for key in found}


@pytest.mark.slow
def test_the_table_prints_the_saved_medians(saved):
    text = energy_model.table(saved)
    assert f"{np.median(angles(saved, '1/f')['jaxpoly']):.3g}" in text
    assert "STATIONARY" in text


@pytest.mark.slow
def test_figures_are_pictures_with_content(saved, tmp_path):
    energy_model.draw(saved, tmp_path)
    for name in ("filters", "error"):
        assert (tmp_path / f"energy-model-{name}.svg").stat().st_size > 0
        with Image.open(tmp_path / f"energy-model-{name}.png") as picture:
            assert picture.width > 600
            assert np.asarray(picture.convert("L")).std() > 10
