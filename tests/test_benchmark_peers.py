"""Peers solve the problems they are timed on, and are timed at the least effort that does."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

import jaxpoly as jp
from experiments import benchmark, benchmark_goal, benchmark_peers, results
from experiments.session import Session

SMOKE = replace(benchmark.PRESETS["smoke"], parts=("peers",))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    found = benchmark.run(SMOKE, Session())
    path = tmp_path_factory.mktemp("results") / "benchmark.json"
    results.write(path, found, results.provenance([results.fingerprint("benchmark", SMOKE)], 0.0))
    return results.read(path)


@pytest.mark.slow
def test_the_table_and_the_figure_tell_every_method(saved, tmp_path):
    text = benchmark.table(saved)
    assert "relative error of 1e-06" in text
    assert "nan" not in text
    benchmark.draw(saved, tmp_path)
    with Image.open(tmp_path / "benchmark-peers.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10


@pytest.mark.slow
def test_methods_reach_the_goal_they_are_said_to_reach(saved):
    (row,) = saved["peers"]
    (problem,) = row["problems"]
    case = benchmark_goal.Case(**row["case"])
    task = benchmark_goal.draw_task(case, seed=SMOKE.seed)
    truth = task.problem.truth
    exact = np.einsum("aj,j,bj->ab", truth.factor, truth.diagonal, truth.factor)
    assert len(problem["efforts"]) == 6
    for name, told in problem["efforts"].items():
        assert told["reached"], name
        run = benchmark_goal.METHODS[name].prepare(task)
        assert relative_error(run(told["effort"]), exact) <= SMOKE.peers.goal
        if told["effort"] > 1:
            assert relative_error(run(told["effort"] // 2), exact) > SMOKE.peers.goal, name
    assert set(problem["seconds"]) == set(problem["efforts"])


def relative_error(estimate, exact):
    """Return the relative error of L, computed densely in numpy."""
    if isinstance(estimate, jp.LowRank):
        factor, diagonal = map(np.asarray, (estimate.factor, estimate.diagonal))
        estimate = (factor * diagonal) @ factor.T
    assert np.allclose(estimate, estimate.T)
    return np.linalg.norm(estimate - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("beta_rule", ["HestenesStiefel", "PolakRibiere"])
def test_pymanopt_is_given_the_gradient_on_the_positive_matrices_too(beta_rule):
    task = benchmark_goal.draw_task(benchmark_goal.Case(8, 2, 120, "positive"), seed=0)
    exact = np.asarray(jp.to_dense(task.problem.truth))
    assert relative_error(benchmark_peers.pymanopt_descent(beta_rule, task)(60), exact) < 1e-6


def test_numpy_ep_rom_takes_the_steps_of_the_kit():
    case = benchmark_goal.Case(8, 2, 120, "mixed")
    task = benchmark_goal.draw_task(case, seed=3)
    fixed = partial(jp.ep_rom, step_size=0.5)
    for steps in (1, 7):
        dense = benchmark_peers.numpy_ep_rom(0.5, task)(steps)
        kit = benchmark_goal.solver_run(fixed, task)(steps)
        np.testing.assert_allclose(dense, jp.to_dense(kit), atol=1e-12 * np.abs(dense).max())


def test_least_effort_is_found_refused_or_given_up():
    truth = jp.LowRank(np.eye(3)[:, :1], np.ones(1))
    task = benchmark_peers.Task(jp.Problem(None, None, truth), 1, False, None)
    exact = np.asarray(jp.to_dense(truth))

    def find(run, **options):
        method = benchmark_goal.Method(lambda task: run, **options)
        return benchmark_goal.least_effort(SMOKE.peers, method, case, lambda: task)

    case = benchmark_goal.Case(3, 1, 10, "mixed")
    reaching = find(lambda effort: exact * (1 + 0.5**effort))
    assert reaching["reached"]
    assert reaching["effort"] == 20  # The first with 2^-effort below 1e-6.
    never = find(lambda effort: 2 * exact, most=5)
    assert (never["reached"], never["reason"]) == (False, "error 1e+00")
    refused = find(None, refusal=lambda num_samples, dim: f"{num_samples} x {dim} is too much")
    assert refused == {"reached": False, "reason": "10 x 3 is too much"}


def test_degree_two_is_refused_where_it_would_not_fit():
    assert benchmark_peers.degree_two_refusal(1500, 50) is None
    assert "120 GB" in benchmark_peers.degree_two_refusal(29_940, 1000)


def test_the_ratio_is_of_the_best_that_solve_all_problems():
    def problem(**seconds):
        efforts = {
            name: {"reached": name in seconds, "effort": 3, "reason": "error 1"}
            for name in (
                "EP-ROM",
                "AP-ROM",
                "optax L-BFGS, fixed signs",
                "optax L-BFGS, free weights",
            )
        }
        return {"efforts": efforts, "seconds": {name: [t, t, t] for name, t in seconds.items()}}

    fixed = {"optax L-BFGS, fixed signs": 4.0, "optax L-BFGS, free weights": 8.0}
    problems = [
        problem(**{"EP-ROM": 1.0, "AP-ROM": 2.0} | fixed),
        problem(**{"AP-ROM": 2.0} | fixed),
    ]
    summary = benchmark_goal.summary({"case": None, "problems": problems})
    assert (summary["best_kit"], summary["best_peer"]) == ("AP-ROM", "optax L-BFGS")
    assert summary["ratio"] == 0.5
    assert summary["methods"]["optax L-BFGS"]["setting"] == "fixed signs"
    assert summary["methods"]["EP-ROM"]["reached"] == 1


@pytest.mark.slow
def test_methods_that_all_fail_have_no_ratio_and_are_told_and_drawn(saved, tmp_path):
    efforts = {"numpy EP-ROM, step 1": {"reached": False, "reason": "error 3e-01"}}
    row = saved["peers"][0] | {"problems": [{"efforts": efforts, "seconds": {}}]}
    assert benchmark_goal.summary(row)["ratio"] is None
    assert "failing: error 3e-01" in benchmark_goal.table([row])
    benchmark.draw({"peers": [row]}, tmp_path)
