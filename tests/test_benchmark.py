"""The benchmark at its smallest size: what is measured is what it is said to be."""

import re
from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from PIL import Image

import jaxpoly as jp
from experiments import (
    benchmark,
    benchmark_batch,
    benchmark_devices,
    benchmark_growth,
    benchmark_kernels,
    results,
)
from experiments.benchmark_children import printed
from experiments.benchmark_clock import Candidate, interleaved
from experiments.benchmark_kernels import Size
from experiments.session import Session

# These parts measure processes of their own, which takes long; peers have their own tests.
CHILDREN = ("devices", "startup")
HERE = tuple(part for part in benchmark.PARTS if part not in (*CHILDREN, "peers"))
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


@pytest.mark.slow
def test_every_part_is_there_with_finite_numbers(saved):
    for part in HERE:
        values = list(numbers(saved[part]))
        assert values
        assert np.isfinite(values).all()


@pytest.mark.slow
def test_nothing_finished_is_measured_again(found, session):
    # Seconds would differ.
    assert benchmark.run(SMOKE, session) == found


@pytest.mark.slow
def test_the_table_tells_every_part_and_the_machine(saved):
    text = benchmark.table(saved)
    assert "nan" not in text
    assert saved["provenance"]["cpu_model"] in text
    for title in ("gradient", "Problems per", "Temporary"):
        assert title in text
    for row in saved["kernels"]:
        assert f"{row['size']['num_samples']:>8}" in text


@pytest.mark.slow
def test_the_figures_are_pictures_with_content(saved, tmp_path):
    benchmark.draw(saved, tmp_path)
    for part in ("kernels", "growth"):
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_kit_was_compared_where_it_agrees_with_numpy(saved):
    for row in saved["kernels"]:
        assert row["difference"] < 30 * np.finfo(row["size"]["dtype"]).eps


def test_operations_and_bytes_of_the_gradient_are_counted():
    size = Size(3, 50, 6, 2, "float32")
    assert size.operations == 4 * 3 * 50 * 6 * 2
    assert size.num_bytes == 4 * 3 * 50 * 6


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
