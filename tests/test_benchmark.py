"""The benchmark at its smallest size: what is measured is what it is said to be."""

import re
from dataclasses import replace
from functools import cache, partial

import jax
import numpy as np
import pytest
from PIL import Image

import jaxpoly as jp
from experiments import (
    benchmark,
    benchmark_batch,
    benchmark_devices,
    benchmark_goal,
    benchmark_growth,
    benchmark_kernels,
    benchmark_peers,
    results,
)
from experiments.benchmark_children import printed
from experiments.benchmark_clock import Candidate, interleaved
from experiments.benchmark_kernels import Size
from experiments.session import Session

# These parts measure processes of their own, which takes long.
CHILDREN = ("devices", "startup")
HERE = tuple(part for part in benchmark.PARTS if part not in CHILDREN)
SMOKE = replace(benchmark.PRESETS["smoke"], parts=HERE)


@pytest.fixture(scope="module")
def session():
    return Session()


@pytest.fixture(scope="module")
def found(session):
    return benchmark.run(SMOKE, session)


@pytest.fixture(scope="module")
def saved(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "benchmark.json"
    marks = results.provenance([results.fingerprint("benchmark", SMOKE)], 0.0)
    results.write(path, found, marks)
    return results.read(path)


def numbers(value):
    """Yield all numbers in nested lists and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for entry in value:
            yield from numbers(entry)
    elif isinstance(value, int | float):
        yield value


def test_every_part_is_there_with_finite_numbers(saved):
    for part in HERE:
        values = list(numbers(saved[part]))
        assert values
        assert np.isfinite(values).all()


def test_nothing_finished_is_measured_again(found, session):
    # Seconds would differ.
    assert benchmark.run(SMOKE, session) == found


def test_the_table_tells_every_part_and_the_machine(saved):
    text = benchmark.table(saved)
    assert "nan" not in text
    assert saved["provenance"]["cpu_model"] in text
    titles = (
        "gradient",
        "relative error of 1e-06",
        "Problems per",
        "Temporary",
    )
    for title in titles:
        assert title in text
    for row in saved["kernels"]:
        assert f"{row['size']['num_samples']:>8}" in text


def test_the_figures_are_pictures_with_content(saved, tmp_path):
    benchmark.draw(saved, tmp_path)
    for part in ("kernels", "peers", "growth"):
        assert (tmp_path / f"benchmark-{part}.svg").stat().st_size > 5000
        with Image.open(tmp_path / f"benchmark-{part}.png") as picture:
            assert picture.width > 600
            assert np.asarray(picture.convert("L")).std() > 10


@pytest.mark.slow
def test_processes_of_their_own_are_measured(session, tmp_path):
    config = replace(SMOKE, parts=CHILDREN)
    found = benchmark.run(config, session)
    path = tmp_path / "benchmark.json"
    results.write(path, found, results.provenance([results.fingerprint("benchmark", config)], 0.0))
    text = benchmark.table(results.read(path))
    assert "weak scaling" in text
    assert "import jax" in text
    assert all(np.isfinite(list(numbers(found[part]))).all() for part in CHILDREN)
    benchmark.draw(results.read(path), tmp_path)
    with Image.open(tmp_path / "benchmark-devices.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_parts_can_be_run_alone(saved, tmp_path):
    alone = {key: saved[key] for key in ("load_average", "versions", "provenance", "kernels")}
    assert "import jax" not in benchmark.table(alone)
    benchmark.draw(alone, tmp_path)
    assert [path.name for path in tmp_path.glob("*.png")] == ["benchmark-kernels.png"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 3])
def test_all_forms_of_the_gradient_are_that_of_the_formula(batch, dtype):
    data = benchmark_kernels.draw_data(Size(batch, 600, 11, 4, dtype), seed=0)
    forms = benchmark_kernels.candidates(Size(batch, 600, 11, 4, dtype), data, cores=2)
    exact = [
        np.asarray(array, np.float64).reshape(batch, *array.shape[batch > 1 :]) for array in data
    ]
    forms.pop("one read")
    for name, form in forms.items():
        found = np.asarray(form.call())
        assert found.dtype == dtype, name
        for gradient, x, u, d, y in zip(found.reshape(batch, 11, 4), *exact, strict=True):
            matrix = np.einsum("aj,j,bj->ab", u, d, u)
            residual = np.einsum("ia,ab,ib->i", x, matrix, x) - y
            expected = np.einsum("i,ia,ib,bj->aj", residual, x, x, u, optimize=True)
            error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
            assert error < 30 * np.finfo(dtype).eps, name


def test_the_kit_was_compared_where_it_agrees_with_numpy(saved):
    for row in saved["kernels"]:
        assert row["difference"] < 30 * np.finfo(row["size"]["dtype"]).eps


def test_operations_and_bytes_of_the_gradient_are_counted():
    size = Size(3, 50, 6, 2, "float32")
    assert size.operations == 4 * 3 * 50 * 6 * 2
    assert size.num_bytes == 4 * 3 * 50 * 6


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


def test_methods_that_all_fail_have_no_ratio_and_are_told_and_drawn(saved, tmp_path):
    efforts = {"numpy EP-ROM, step 1": {"reached": False, "reason": "error 3e-01"}}
    row = saved["peers"][0] | {"problems": [{"efforts": efforts, "seconds": {}}]}
    assert benchmark_goal.summary(row)["ratio"] is None
    assert "failing: error 3e-01" in benchmark_goal.table([row])
    benchmark.draw({"peers": [row]}, tmp_path)


@pytest.mark.parametrize("shared", [False, True])
def test_all_ways_to_solve_a_batch_solve_it(shared):
    config = SMOKE.batch
    lifting, targets = benchmark_batch.draw_batch(config, shared, seed=0)
    assert lifting.inputs.ndim == (2 if shared else 3)
    assert targets.shape == (config.count, config.num_samples)
    keys = jax.random.split(jax.random.key(0), config.count)
    for solve_all in benchmark_batch.WAYS.values():
        statuses = np.asarray(solve_all(jp.ep_rom(1), lifting, targets, keys))
        assert (statuses == jp.Status.CONVERGED).all()


def test_exponents_are_the_slopes_of_power_laws():
    sizes = [500, 1000, 2000, 8000]
    for power in (0.0, 1.0, 2.5):
        assert benchmark_growth.exponent(sizes, [3e-9 * s**power for s in sizes]) == pytest.approx(
            power, abs=1e-9
        )
    assert benchmark_growth.exponent([500], [1.0]) is None


def test_near_the_solution_gauss_newton_takes_all_its_inner_steps():
    lifting, targets, start = benchmark_growth.draw_problem(400, 20, 2, seed=0)
    steps = {}
    for count in (benchmark_growth.INNER_STEPS, benchmark_growth.INNER_STEPS + 1):
        solver = jp.gauss_newton(2, inner_steps=count)
        data = lifting, targets
        state = benchmark_growth.first_state(solver, *data, jax.random.key(0), start)
        steps[count] = benchmark_growth.next_state(solver, *data, state).estimate.factor
    # One more would change nothing had it ended before.
    assert not np.array_equal(*steps.values())


def test_ideal_scaling_has_efficiency_one():
    strong = [{"devices": n, "seconds": {"AP-ROM": 6.0 / n}} for n in (1, 2, 4)]
    weak = [{"devices": n, "seconds": {"AP-ROM": 6.0}} for n in (2, 4)]
    assert benchmark_devices.efficiency("strong", strong, "AP-ROM") == pytest.approx([1, 1, 1])
    assert benchmark_devices.efficiency("weak", weak, "AP-ROM") == pytest.approx([1, 1])
    assert benchmark_devices.efficiency("strong", weak, "AP-ROM") == pytest.approx([1, 0.5])


def test_a_child_that_fails_says_why():
    with pytest.raises(RuntimeError, match=re.compile("ended with 1:.*no such thing", re.DOTALL)):
        printed("-c", "raise ValueError('no such thing')")


def test_candidates_take_turns_and_run_before_the_clock_starts():
    calls = []

    @cache
    def candidate(name):
        return Candidate(lambda: calls.append(name))

    seconds = interleaved({name: candidate(name) for name in "ab"}, repeats=2)
    order = "".join(name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name)
    assert order == "ababab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
