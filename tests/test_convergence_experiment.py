"""Convergence and running time at their smallest sizes: straight lines, floors, plateaus."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxpoly as jp
from experiments import convergence, running_time
from experiments.ledger import plain
from experiments.session import Session


def through_json(payload):
    return json.loads(json.dumps(payload, default=plain))


@pytest.fixture(scope="module")
def converged():
    return through_json(convergence.run(convergence.PRESETS["smoke"]))


@pytest.fixture(scope="module")
def raced():
    session = Session()
    payload = running_time.run(running_time.PRESETS["smoke"], session)
    assert payload == running_time.run(running_time.PRESETS["smoke"], session)
    return through_json(payload)


def check_picture(path):
    with Image.open(path) as picture:
        assert picture.width > 600
        assert np.asarray(picture.convert("L")).std() > 10
    assert path.with_suffix(".svg").stat().st_size > 10000


def test_without_noise_errors_fall_on_a_straight_line_to_rounding(converged):
    row = converged["exact"]["solvers"]["EP-ROM"]
    assert len(row["fits"]) == len(row["errors"]) == 2
    for errors, fit in zip(row["errors"], row["fits"], strict=True):
        assert fit["r_squared"] >= 0.98
        assert -0.3 < fit["slope"] < -0.03
        assert errors[0] == pytest.approx(1)
        assert errors[-1] < 1e-10


def test_gauss_newton_more_than_doubles_its_digits_near_the_end_and_has_no_rate(converged):
    row = converged["exact"]["solvers"]["Gauss-Newton"]
    assert row["order"] == "quadratic"
    assert row["fits"] == []
    for errors in row["errors"]:
        assert errors[-1] < 1e-10
        digits = -np.log10(errors)
        assert np.max(digits[1:] - digits[:-1]) > 4


def test_with_noise_the_loss_falls_to_that_of_a_least_squares_fit(converged):
    noisy = converged["noisy"]
    assert noisy["noise_loss"] == pytest.approx(0.005)
    for row in noisy["solvers"].values():
        assert row["floor"] == pytest.approx(noisy["expected_loss"], rel=0.1)
        assert row["error_floor"] == pytest.approx(noisy["expected_error"], rel=0.5)
        losses = row["losses"]
        assert losses[row["floor_step"]] <= 1.05 * row["floor"] < losses[row["floor_step"] - 1]
    steps = {name: row["floor_step"] for name, row in noisy["solvers"].items()}
    assert steps["Gauss-Newton"] < steps["EP-ROM"] < steps["EP-ROM, paper"]


def test_a_fit_takes_only_what_lies_between_the_first_steps_and_rounding():
    errors = np.maximum(10.0 ** (-0.25 * np.arange(100)), 1e-15)
    errors[:4] = 1.0
    fit = convergence.linear_fit(errors)
    assert fit["slope"] == pytest.approx(-0.25)
    assert fit["r_squared"] == pytest.approx(1)
    assert convergence.linear_fit(errors[:30]) is None
    assert convergence.linear_fit(np.full(100, math.nan)) is None


def test_errors_of_ep_rom_fall_with_every_step_and_do_not_level_off(raced):
    errors = np.asarray(raced["sizes"][-1]["solvers"]["EP-ROM"]["errors"])
    assert len(errors) == 16
    assert np.all(np.diff(errors) < 0)
    assert errors[-1] < 0.5 * errors[-3] < 1e-2


def test_seconds_add_up(raced):
    for size in raced["sizes"]:
        for row in size["solvers"].values():
            assert len(row["elapsed"]) == len(row["errors"])
            steps = np.diff(row["elapsed"])
            assert np.all(steps > 0)
            assert row["step_seconds"] == pytest.approx(np.median(steps))
            assert row["total_seconds"] == row["elapsed"][-1]
            if row["goal_seconds"] is not None:
                first = row["elapsed"].index(row["goal_seconds"])
                assert row["errors"][first] <= raced["goal"] < row["errors"][first - 1]
    assert set(raced["exponents"]) == {"EP-ROM"}


def test_the_published_numbers_are_kept_beside_ours(raced):
    published = raced["published"]
    assert published["EP-ROM"] == {"seconds": 2445, "log10_error": -2.31}
    assert published["AP-ROM"] == {"seconds": 1191, "log10_error": -1.45}
    assert published["gFM"] == {"seconds": 4290, "log10_error": -2.19}
    assert published["convex"]["seconds"] == 4246
    text = running_time.table(raced)
    for number in ("2445", "1191", "4290", "4246", "-2.31", "-1.45", "-2.19"):
        assert number in text


def test_a_one_sided_head_leaves_an_antisymmetric_error_that_no_data_can_see():
    problem = jp.sample_problem(jax.random.key(0), 3000, 30, 2, signs="positive")
    solver = running_time.OneSidedApRom(2, depth=1)
    state = solver.init(problem.lifting, problem.targets, jax.random.key(1))
    step, errors_of = jax.jit(solver.step), jax.jit(running_time.errors_of)
    curve = []
    for _ in range(60):
        state = step(problem.lifting, problem.targets, state)
        curve.append(errors_of(state, problem.truth))
    whole, symmetric = np.asarray(curve).T
    assert 1e-3 < whole[-1] == pytest.approx(whole[-20], rel=0.1)
    # The rank couples the two parts, to second order.
    assert symmetric[-1] < 10 * whole[-1] ** 2
    left, right = state.memory
    truth, dense = jp.to_dense(problem.truth), left @ right.T
    assert whole[-1] == pytest.approx(jnp.linalg.norm(dense - truth) / jnp.linalg.norm(truth))
    np.testing.assert_allclose((dense + dense.T) / 2, jp.to_dense(state.estimate), atol=1e-10)


def test_a_head_of_the_same_depth_on_both_sides_does_not_level_off():
    problem = jp.sample_problem(jax.random.key(0), 3000, 30, 2, signs="positive")
    solver = jp.ap_rom(2, step_size=1.0, debias="trace", head="krylov", depth=1)
    data = problem.lifting, problem.targets, jax.random.key(1)
    _, record = jp.trajectory(solver, *data, num_steps=60)
    last = jax.tree.map(lambda values: values[-1], record.estimate)
    assert jp.relative_error(last, problem.truth) < 1e-8


def test_the_figures_are_pictures_with_content(converged, raced, tmp_path):
    convergence.draw(converged, tmp_path)
    running_time.draw(raced, tmp_path)
    names = "convergence-loss", "convergence-error", "running-time-error", "running-time-cost"
    for name in names:
        check_picture(tmp_path / f"{name}.png")
    assert "EP-ROM, paper" in convergence.table(converged)
