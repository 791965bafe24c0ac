"""Rows over eight devices: the answers of one device, and nothing moves but sums."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxpoly as jp

DIM, RANK, ROWS, EVEN, BATCH = 16, 2, 301, 296, 8
SOLVERS = {
    "ep_rom": jp.ep_rom(RANK),
    "ap_rom": jp.ap_rom(RANK),
    "factored": jp.factored_descent(RANK),
    "gauss_newton": jp.gauss_newton(RANK),
}


@pytest.fixture(scope="module")
def problem() -> jp.Problem:
    return jp.sample_problem(jax.random.key(0), ROWS, DIM, RANK)


@pytest.fixture(scope="module")
def truth(problem) -> jp.LowRank:
    return problem.truth


@pytest.fixture(scope="module")
def batch() -> jp.Problem:
    draw = jax.vmap(lambda key: jp.sample_problem(key, 140, DIM, RANK, capacity=150))
    return draw(jax.random.split(jax.random.key(2), BATCH))


@pytest.fixture(scope="module")
def data(problem, batch) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "inputs": np.asarray(problem.lifting.inputs),
        "targets": np.asarray(problem.targets),
        "noisy": np.asarray(problem.targets) + rng.normal(size=ROWS),
        "weight": rng.uniform(0.1, 2, size=ROWS),
        "batch_inputs": np.asarray(batch.lifting.inputs),
        "batch_weight": np.asarray(batch.lifting.sample_weight),
        "batch_targets": np.asarray(batch.targets),
    }


@pytest.fixture(scope="module")
def ask(data, tmp_path_factory) -> Callable[[str], tuple[Path, dict[str, np.ndarray]]]:
    """Ask a process with eight devices for a part of the answers; return its folder and them."""
    folder = tmp_path_factory.mktemp("sharding")
    np.savez(folder / "data.npz", **data)
    script = Path(__file__).with_name("sharding_child.py")

    def run(part: str) -> tuple[Path, dict[str, np.ndarray]]:
        # The machine code need not be good, it is compiled more often than run.
        environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
        command = [sys.executable, script, folder, part]
        subprocess.run(command, env=environment, check=True, timeout=240)
        with np.load(folder / f"{part}.npz") as file:
            return folder, dict(file)

    return run


@pytest.fixture(scope="module")
def most(ask) -> tuple[Path, dict[str, np.ndarray]]:
    return ask("most")


@pytest.fixture(scope="module")
def folder(most) -> Path:
    return most[0]


@pytest.fixture(scope="module")
def answers(most) -> dict[str, np.ndarray]:
    return most[1]


def error(answers: dict[str, np.ndarray], name: str, expected: jp.LowRank) -> float:
    value = jp.LowRank(answers[f"{name}/factor"], answers[f"{name}/diagonal"])
    return float(jp.relative_error(value, expected))


def collectives(folder: Path, name: str) -> list[tuple[str, int]]:
    """Return what a compiled program exchanges: operations and numbers of elements."""
    found = []
    kinds = (
        "all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter"
    )
    for line in (folder / f"{name}.hlo").read_text().splitlines():
        match = re.search(rf"= (.*?) ({kinds})(?:-start)?\(", line)
        if match:
            for shape in re.findall(r"\[([\d,]*)\]", match[1]):
                found.append((match[2], prod(int(n) for n in shape.split(",") if n)))
    return found


@pytest.mark.parametrize("name", SOLVERS)
def test_the_answer_is_that_of_one_device(name, data, answers):
    assert answers["num_devices"] == 8
    lifting = jp.Lifting(data["inputs"][:EVEN])
    expected = jp.solve(SOLVERS[name], lifting, data["targets"][:EVEN], jax.random.key(1))
    assert answers[f"{name}/status"] == expected.status == jp.Status.CONVERGED
    assert error(answers, name, expected.value) < 1e-10
    assert abs(int(answers[f"{name}/num_steps"]) - int(expected.num_steps)) <= 2


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solve_moves_nothing_but_sums_of_the_size_of_an_iterate(name, folder):
    found = collectives(folder, name)
    assert {kind for kind, _ in found} == {"all-reduce"}
    # A spectral start carries at least three more columns than the rank, to a multiple of four.
    width = {"ep_rom": DIM, "ap_rom": RANK + 5, "factored": 8, "gauss_newton": 8}[name]
    assert max(size for _, size in found) == DIM * width


@pytest.mark.parametrize("name", ["gradient", "backproject"])
def test_an_application_of_the_gradient_is_one_sum_of_the_size_of_the_block(
    name, data, folder, answers
):
    found = [size for _, size in collectives(folder, name) if size > 1]
    assert found == [DIM * 3]
    assert len(collectives(folder, name)) <= 2
    lifting, targets = jp.Lifting(data["inputs"][:EVEN]), data["targets"][:EVEN]
    block = np.ones((DIM, 3))
    expected = {
        "gradient": lambda: jp.gradient_map(lifting, targets)(block),
        "backproject": lambda: jp.backproject(lifting, targets, block),
    }[name]()
    np.testing.assert_allclose(answers[name], expected, rtol=1e-10, atol=1e-10)


def test_a_gather_would_be_noticed(folder):
    assert "all-gather" in {kind for kind, _ in collectives(folder, "gathering")}


def test_rows_that_divide_by_the_devices_are_left_without_weights(answers):
    assert not answers["even/weighted"]
    assert answers["even/shards"].tolist() == [[EVEN // 8, DIM]] * 8


@pytest.mark.fault(14)
def test_rows_that_do_not_are_filled_up_with_zeros_of_zero_weight(data, truth, answers):
    filling = np.zeros((304 - ROWS, DIM))
    np.testing.assert_array_equal(answers["filled/inputs"], [*data["inputs"], *filling])
    np.testing.assert_array_equal(answers["filled/targets"], [*data["targets"], 0, 0, 0])
    np.testing.assert_array_equal(answers["filled/weight"], [1] * ROWS + [0] * 3)
    assert answers["filled/status"] == jp.Status.CONVERGED
    assert error(answers, "filled", truth) < 1e-10


def test_rows_that_were_placed_already_are_refused_for_their_filling(answers):
    assert "over 8 devices, whose last rows may be filling" in str(answers["again"])


def test_weights_count_over_devices_too(data, answers):
    def solve(weight):
        lifting = jp.Lifting(data["inputs"], weight)
        solver = SOLVERS["gauss_newton"]
        return jp.solve(solver, lifting, data["noisy"], jax.random.key(1)).value

    assert answers["weighted/status"] == jp.Status.STATIONARY
    assert error(answers, "weighted", solve(data["weight"])) < 1e-9
    assert error(answers, "weighted", solve(np.ones(ROWS))) > 1e-3


@pytest.mark.slow
def test_recover_takes_sharded_rows(ask, truth):
    _, answers = ask("recover")
    for name in ("recover 2", "recover auto"):
        assert answers[f"{name}/status"] == jp.Status.CONVERGED
        assert error(answers, name, truth) < 1e-10


@pytest.mark.parametrize(("name", "devices"), [("part", {4, 5, 6}), ("square", set(range(8)))])
def test_rows_keep_their_order_on_any_mesh(name, devices, data, answers):
    assert set(answers[f"{name}/devices"]) == devices
    rows = -(-ROWS // len(devices)) * len(devices)
    for column in ("inputs", "targets"):
        found = answers[f"{name}/{column}"]
        assert len(found) == rows
        np.testing.assert_array_equal(found[:ROWS], data[column])
        assert not np.any(found[ROWS:])


def test_a_batch_of_problems_may_be_spread_instead_and_then_no_number_moves(batch, folder, answers):
    # What is exchanged is whether some problem goes on.
    assert {*collectives(folder, "batch")} == {("all-reduce", 1)}
    np.testing.assert_array_equal(answers["batch/status"], jp.Status.CONVERGED)
    value = jp.LowRank(answers["batch/factor"], answers["batch/diagonal"])
    assert float(jnp.max(jax.vmap(jp.relative_error)(value, batch.truth))) < 1e-10


def place(*arrays, **options):
    lifting, targets = jp.shard_rows(*arrays, **options)
    return lifting.inputs, targets, lifting.sample_weight


def test_numbers_are_converted_as_by_solve(data):
    table = (10 * data["inputs"]).astype(np.int8)
    inputs, targets, weight = place(table, np.arange(ROWS), [True] * ROWS)
    assert inputs.dtype == targets.dtype == weight.dtype == jnp.float64
    np.testing.assert_array_equal(inputs, table)
    half = place(data["inputs"].astype(np.float16), data["targets"])
    assert half[0].dtype == half[1].dtype == jnp.float32
    assert half[2] is None


def test_a_memory_map_is_read_and_the_source_may_change_afterwards(data, tmp_path):
    np.save(tmp_path / "inputs.npy", data["inputs"])
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    own = data["targets"].copy()
    inputs, targets, _ = place(mapped, own)
    own[:] = 0
    np.testing.assert_array_equal(inputs, data["inputs"])
    np.testing.assert_array_equal(targets, data["targets"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": np.ones(3)}, ValueError, r"inputs has shape \(3,\)"),
        (
            {"inputs": np.ones((0, 3)), "targets": np.ones(0)},
            ValueError,
            r"inputs has shape \(0, 3\)",
        ),
        ({"inputs": np.ones((3, 0))}, ValueError, r"inputs has shape \(3, 0\)"),
        ({"inputs": np.ones((3, 2), complex)}, TypeError, "complex"),
        ({"targets": np.ones((3, 1))}, ValueError, "ravel"),
        ({"targets": np.ones(4)}, ValueError, "targets has length 4"),
        ({"sample_weight": np.ones(2)}, ValueError, "sample_weight has length 2"),
    ],
)
def test_wrong_shapes_and_types_are_refused(change, error, message):
    arguments = {"inputs": np.ones((3, 2)), "targets": np.ones(3)} | change
    with pytest.raises(error, match=message):
        jp.shard_rows(**arguments)


def test_placing_under_jit_is_refused():
    with pytest.raises(TypeError, match="under jit"):
        jax.jit(lambda inputs: jp.shard_rows(inputs, np.ones(3))[1])(np.ones((3, 2)))


def test_a_mesh_with_explicit_axes_is_refused():
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Explicit,))
    with pytest.raises(ValueError, match=r"AxisType\.Auto"):
        jp.shard_rows(np.ones((3, 2)), np.ones(3), mesh=mesh)


def test_the_python_blocks_of_the_page_on_scaling_run(tmp_path, monkeypatch):
    # One block writes a file where it runs.
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(block, "scaling.md", "exec"), namespace)
    assert namespace["solution"].status == jp.Status.CONVERGED
    np.testing.assert_array_equal(namespace["solutions"].status, jp.Status.CONVERGED)
