"""A problem of a sweep is the same whatever surrounds it, and nothing is computed twice."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial

import jax
import numpy as np
import pytest
import xarray as xr

import jaxpoly as jp
from experiments import executors
from experiments.problems import Cell, capacity
from experiments.session import Session
from experiments.sweep import sweep

CELLS = [
    Cell("EP-ROM", 8, 1, 40, max_steps=200),
    Cell("EP-ROM", 8, 1, 45, max_steps=200),
    Cell("Gauss-Newton", 8, 1, 40, max_steps=30),
]
TRIALS, SEED = 5, 3


def run(cells=CELLS, trials=TRIALS, **options) -> xr.Dataset:
    return sweep("test", list(cells), trials, SEED, Session(**options))


@pytest.fixture(scope="module")
def reference():
    return run()


def test_an_outcome_is_that_of_the_problem_drawn_and_solved_alone(reference):
    cell = CELLS[0]
    for trial in (0, 4):
        key = jax.random.key(SEED)
        point = cell.point(SEED, trial)
        for number in (point.kind, point.trial):
            key = jax.random.fold_in(key, number)
        problem_key, solver_key = jax.random.split(key)
        # The inputs of fewer rows are the first of those of more.
        lifting, targets, truth = jp.sample_problem(problem_key, 40, 8, 1)
        solution = jp.solve(jp.ep_rom(1), lifting, targets, solver_key, 200, cell.rtol)
        error = float(jp.relative_error(solution.value, truth))
        found = reference.isel(cell=0, trial=trial)
        assert float(found.relative_error) == pytest.approx(error, rel=1e-3, abs=1e-12)
        assert abs(int(found.num_steps) - int(solution.num_steps)) <= 5


@pytest.mark.fault(15)
def test_a_cell_alone_is_bitwise_that_of_the_grid_with_any_order_and_workers(reference):
    for number, cell in enumerate(CELLS):
        alone = run([cell], trials=TRIALS - 1, devices=1)
        for name in reference.data_vars:
            there = reference[name].values[number, : TRIALS - 1]
            np.testing.assert_array_equal(alone[name].values[0], there)
    backwards = run(CELLS[::-1])
    for name in reference.data_vars:
        np.testing.assert_array_equal(backwards[name].values[::-1], reference[name].values)


EIGHT_DEVICES = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
from experiments.problems import Cell
from experiments.session import Session
from experiments.sweep import sweep
name, cells, trials, seed, path = json.loads(sys.argv[1])
assert jax.device_count() == 8
table = sweep(name, [Cell(**cell) for cell in cells], trials, seed, Session())
table.to_netcdf(path, engine="scipy")
"""


@pytest.mark.fault(15)
def test_eight_devices_give_what_one_gives_to_rounding(reference, tmp_path):
    path = tmp_path / "table.nc"
    work = json.dumps(["test", [asdict(cell) for cell in CELLS], TRIALS, SEED, str(path)])
    subprocess.run([sys.executable, "-c", EIGHT_DEVICES, work], check=True, timeout=200)
    with xr.open_dataset(path, engine="scipy") as found:
        # With several devices the kernels take the plain products, as sharded inputs need.
        for name in reference.data_vars:
            floats = np.issubdtype(reference[name].dtype, np.floating)
            compare = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
            compare = compare if floats else np.testing.assert_array_equal
            compare(found[name].values, reference[name].values)


def test_all_solvers_meet_the_same_problems():
    one, other = CELLS[0], CELLS[2]
    assert one.point(0, 7)[:5] == other.point(0, 7)[:5]
    assert one.point(0, 7).kind != replace(one, num_samples=41).point(0, 7).kind
    assert one.name != other.name


@pytest.mark.fault(15)
@pytest.mark.parametrize("executor", ["vmap", "refill"])
def test_executors_agree_to_tolerance(reference, executor, monkeypatch):
    # Fewer lanes than problems, so that lanes are filled again and the last ones compacted.
    monkeypatch.setattr(executors, "CPU_LANES", 8)
    monkeypatch.setattr(executors, "VMAP_BATCH", 8)
    cells = [replace(CELLS[0], num_samples=m) for m in (35, 40, 45)]
    one, other = run(cells, trials=11), run(cells, trials=11, executor=executor)
    solved = one.relative_error < 1e-8
    assert float(solved.mean()) > 0.5
    np.testing.assert_array_equal(solved, other.relative_error < 1e-8)
    np.testing.assert_allclose(
        one.relative_error.where(solved, 0), other.relative_error.where(solved, 0), atol=1e-9
    )
    # Rounding differs, and slow problems make much of it.
    near = abs(one.num_steps - other.num_steps) <= 0.1 * one.num_steps
    assert float(near.where(solved, True).mean()) > 0.9


def test_what_the_ledger_has_is_not_computed_again(monkeypatch):
    session = Session()
    first = sweep("test", CELLS[:1], TRIALS, SEED, session)
    asked = []
    real = executors.solve_batch

    def counted(program, executor, points):
        asked.append(int((points.max_steps > 0).sum()))
        return real(program, executor, points)

    monkeypatch.setattr(executors, "solve_batch", counted)
    again = sweep("test", CELLS[:1], TRIALS, SEED, session)
    assert asked == []
    xr.testing.assert_identical(first, again)
    sweep("test", CELLS[:2], TRIALS, SEED, session)
    assert sum(asked) == TRIALS


def test_a_worker_that_fails_fails_the_sweep(monkeypatch):
    def broken(*_):
        raise RuntimeError("broken program")

    monkeypatch.setattr(executors, "solve_batch", broken)
    with pytest.raises(RuntimeError, match="broken program"):
        run()


@pytest.mark.parametrize(
    ("numbers", "error", "words"),
    [
        ({"rank": 2.0}, TypeError, "rank is 2.0 of type float"),
        ({"rank": True}, TypeError, "rank is True"),
        ({"dim": "8"}, TypeError, "dim is '8'"),
        ({"max_steps": 2.5}, TypeError, "max_steps is 2.5"),
        ({"max_steps": -1}, ValueError, "max_steps is -1"),
        ({"num_samples": 60.5}, ValueError, "num_samples is 60.5; expected an integer"),
        ({"num_samples": 0}, ValueError, "num_samples is 0"),
        ({"rtol": float("nan")}, ValueError, "rtol nan"),
    ],
)
def test_numbers_that_make_no_cell_are_refused(numbers, error, words):
    usual = {"solver": "EP-ROM", "dim": 8, "rank": 2, "num_samples": 60}
    with pytest.raises(error, match=words):
        Cell(**usual | numbers)


def test_a_cell_given_twice_is_refused():
    with pytest.raises(ValueError, match="same cell twice"):
        run([CELLS[0], CELLS[0]])


def test_capacities_waste_at_most_half():
    for num_samples in range(1, 3000):
        rows = capacity(num_samples)
        assert num_samples <= rows <= max(64, 1.5 * num_samples)


def test_the_queue_gives_every_task_once_and_spreads_workers_over_programs():
    programs = [cell.program for cell in CELLS[::2]]
    tasks = {program: list(range(10 * n, 10 * n + 5)) for n, program in enumerate(programs)}
    queue = executors.Queue((program, iter(tasks[program])) for program in programs)
    first, one = queue.take(None, 2)
    second, other = queue.take(None, 2)
    assert {first, second} == set(programs)
    given = [*one, *other]
    program = first
    while program is not None:
        program, batch = queue.take(program, 2)
        given += batch
    assert sorted(given) == sorted(tasks[programs[0]] + tasks[programs[1]])
    assert queue.more(programs[0], 3) == []
