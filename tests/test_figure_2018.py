"""Convergence and running time at their smallest sizes: straight lines, floors, plateaus."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxpoly as jp
from experiments import convergence, figure_2018, results, running_time
from experiments.ledger import plain
from experiments.session import Session


@pytest.fixture(scope="module")
def saved():
    """The three panels; one run serves all tests of this file."""
    config = figure_2018.PRESETS["smoke"]
    session = Session()
    found = figure_2018.run(config, session)
    assert found == figure_2018.run(config, session)
    marks = results.provenance([results.fingerprint("figure-2018", config)], 1.0)
    return json.loads(json.dumps(found | {"provenance": marks}, default=plain))


def check_picture(path):
    with Image.open(path) as picture:
        assert picture.width > 600
        assert np.asarray(picture.convert("L")).std() > 10
    assert path.with_suffix(".svg").stat().st_size > 10000


def test_the_published_numbers_stand_beside_ours(saved, tmp_path):
    figure_2018.draw(saved, tmp_path)
    check_picture(tmp_path / "figure-2018.png")
    text = figure_2018.table(saved)
    for part in ("(a) share of 6", "(b) Noise of sd 0.1", "(c) p = 48", "2445", "-1.45"):
        assert part in text
    rows = {
        (row["solver"], row["num_samples"]): row["wins"]
        for row in saved["phase_transition"]["rows"]
    }
    assert rows["EP-ROM, paper", 190] >= 4
    assert rows["Gauss-Newton", 40] >= 5
    published = saved["phase_transition"]["published"]
    assert list(published["EP-ROM"].values()) == [0.0, 0.0, 0.4, 1.0]
    assert list(published["AP-ROM"].values()) == [0.0, 0.0, 0.2, 0.98]


def test_convergence_is_linear_without_noise_and_ends_at_the_noise_with_it(saved, tmp_path):
    saved = figure_2018.inner(saved, "convergence")
    check_straight_lines(saved)
    check_gauss_newton(saved)
    check_floors(saved)
    convergence.draw(saved, tmp_path)
    for name in ("convergence-loss", "convergence-error"):
        check_picture(tmp_path / f"{name}.png")
    assert "EP-ROM, paper" in convergence.table(saved)


def check_straight_lines(saved):
    row = saved["exact"]["solvers"]["EP-ROM"]
    assert len(row["fits"]) == len(row["errors"]) == 2
    for errors, fit in zip(row["errors"], row["fits"], strict=True):
        assert fit["r_squared"] >= 0.98
        assert -0.3 < fit["slope"] < -0.03
        assert errors[0] == pytest.approx(1)
        assert errors[-1] < 1e-10


def check_gauss_newton(saved):
    row = saved["exact"]["solvers"]["Gauss-Newton"]
    assert row["order"] == "quadratic"
    assert row["fits"] == []
    for errors in row["errors"]:
        assert errors[-1] < 1e-10
        digits = -np.log10(errors)
        assert np.max(digits[1:] - digits[:-1]) > 4


def check_floors(saved):
    noisy = saved["noisy"]
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


def test_running_time_tells_errors_that_fall_and_seconds_that_add_up(saved, tmp_path):
    saved = figure_2018.inner(saved, "running_time")
    check_errors(saved)
    check_seconds(saved)
    check_published(saved)
    running_time.draw(saved, tmp_path)
    for name in ("running-time-error", "running-time-cost"):
        check_picture(tmp_path / f"{name}.png")


def check_errors(saved):
    errors = np.asarray(saved["sizes"][-1]["solvers"]["EP-ROM"]["errors"])
    assert len(errors) == 16
    assert np.all(np.diff(errors) < 0)
    assert errors[-1] < 0.5 * errors[-3] < 1e-2


def check_seconds(saved):
    for size in saved["sizes"]:
        for row in size["solvers"].values():
            assert len(row["elapsed"]) == len(row["errors"])
            steps = np.diff(row["elapsed"])
            assert np.all(steps > 0)
            assert row["step_seconds"] == pytest.approx(np.median(steps))
            assert row["total_seconds"] == row["elapsed"][-1]
            if row["goal_seconds"] is not None:
                first = row["elapsed"].index(row["goal_seconds"])
                assert row["errors"][first] <= saved["goal"] < row["errors"][first - 1]
    assert set(saved["exponents"]) == {"EP-ROM"}


def check_published(saved):
    published = saved["published"]
    assert published["EP-ROM"] == {"seconds": 2445, "log10_error": -2.31}
    assert published["AP-ROM"] == {"seconds": 1191, "log10_error": -1.45}
    assert published["gFM"] == {"seconds": 4290, "log10_error": -2.19}
    assert published["convex"]["seconds"] == 4246
    text = running_time.table(saved)
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
