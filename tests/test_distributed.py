"""Several processes with rows of their own give the answer of one, and end together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxpoly as jp

ROOT = Path(__file__).parents[1]
LAUNCH = [sys.executable, str(ROOT / "docs" / "launch.py")]
# The machine code need not be good, it is compiled more often than run.
ENVIRONMENT = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
DIM, RANK, ROWS = 16, 2, 301


def launch(*words: object, timeout: float = 200) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*LAUNCH, *map(str, words)],
        env=ENVIRONMENT,
        timeout=timeout,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def problem() -> jp.Problem:
    return jp.sample_problem(jax.random.key(0), ROWS, DIM, RANK)


@pytest.fixture(scope="module")
def folder(problem, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    inputs, targets = np.asarray(problem.lifting.inputs), np.asarray(problem.targets)
    np.savez(
        folder / "data.npz",
        inputs=inputs,
        targets=targets,
        weight=np.random.default_rng(0).uniform(0.1, 2, size=ROWS),
        factor=problem.truth.factor,
        diagonal=problem.truth.diagonal,
    )
    np.save(folder / "X.npy", inputs)
    np.save(folder / "y.npy", targets)
    return folder


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((1, (100, 201)), id="two"),
        pytest.param((2, (50, 81, 70, 100)), id="four", marks=pytest.mark.slow),
    ],
)
def job(request, folder):
    """Rows of each process, rows of each shard, and what each process found."""
    devices, counts = request.param
    script = ROOT / "tests" / "distributed_child.py"
    done = launch("--processes", len(counts), "--devices", devices, script, folder, *counts)
    assert done.returncode == 0, done.stderr
    found = [json.loads((folder / f"{n}.json").read_text()) for n in range(len(counts))]
    return counts, devices, found


def test_the_answer_is_that_of_one_process_in_every_process(job, folder):
    counts, _, found = job
    data = np.load(folder / "data.npz")
    lifting = jp.Lifting(data["inputs"], data["weight"])
    expected = jp.solve(jp.gauss_newton(RANK), lifting, data["targets"], jax.random.key(1))
    for process in found:
        assert process["processes"] == len(counts)
        assert process["status"] == jp.Status.CONVERGED
        assert process["num_steps"] == expected.num_steps
        assert process["error"] < 1e-12
        assert process["factor"] == found[0]["factor"]
        assert process.get("recover_error", 0) < 1e-12


def test_every_process_holds_its_rows_and_no_others(job):
    counts, devices, found = job
    shard = max(-(-count // devices) for count in counts)
    for count, process in zip(counts, found, strict=True):
        assert process["shape"] == [shard * devices * len(counts), DIM]
        assert process["shards"] == [shard] * devices
        assert process["rows_here"] == count < ROWS


def test_all_processes_have_weights_where_one_is_filled_up_and_none_where_none_is(job):
    for process in job[2]:
        assert process["uneven_weighted"]
        assert not process["even_weighted"]


def test_a_negative_weight_in_one_process_becomes_the_status_in_all(job):
    for process in job[2]:
        assert process["negative_weight"] == jp.Status.NONFINITE_INPUT


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("columns", "columns"),
        ("dtype", "bits a number"),
        ("weights", "weights"),
        ("mesh", "devices of the processes"),
        ("twice", "several processes"),
    ],
)
def test_what_one_process_has_wrong_is_refused_in_all(name, message, job):
    texts = {process[name] for process in job[2]}
    assert len(texts) == 1
    assert message in texts.pop()


def test_the_example_reads_its_rows_and_writes_the_network(folder, problem):
    words = [folder / "X.npy", folder / "y.npy", "--rank", RANK, "--out", folder / "network.npz"]
    done = launch("--processes", 2, "--devices", 2, ROOT / "docs" / "fit_rows.py", *words)
    assert done.returncode == 0, done.stderr
    assert "process 0 has rows 0 to 150 of 301" in done.stdout
    assert "process 1 has rows 150 to 301 of 301" in done.stdout
    assert done.stdout.count("Converged") == 1
    network = np.load(folder / "network.npz")
    value = jp.LowRank(network["factor"], network["diagonal"])
    assert float(jp.relative_error(value, problem.truth)) < 1e-12


WAITING = """
import jax, os, pathlib, signal, sys, time
from jax.experimental import multihost_utils
process = jax.process_index()
multihost_utils.sync_global_devices("started")
pathlib.Path(sys.argv[1], f"{process}.pid").write_text(str(os.getpid()))
if process == 1:
    %s
multihost_utils.sync_global_devices("never reached by process 1")
"""


def script_of(tmp_path: Path, ending: str) -> Path:
    script = tmp_path / "script.py"
    script.write_text(WAITING % ending)
    return script


def assert_ended(tmp_path: Path) -> None:
    for process in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"{process}.pid").read_text()), 0)


@pytest.mark.fault(11)
@pytest.mark.fault(12)
@pytest.mark.parametrize(
    ("ending", "code", "text"),
    [
        ("raise RuntimeError('broken rows')", 1, "RuntimeError: broken rows"),
        ("sys.exit(7)", 7, ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL, ""),
    ],
    ids=["raises", "exits", "is killed"],
)
def test_a_process_that_fails_ends_the_job_with_its_code(ending, code, text, tmp_path):
    start = time.monotonic()
    done = launch("--processes", 2, "--devices", 1, script_of(tmp_path, ending), tmp_path)
    assert done.returncode == code
    assert text in done.stderr
    assert_ended(tmp_path)
    # The others would wait for 15 seconds.
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_ends_all(number, tmp_path):
    script = script_of(tmp_path, "time.sleep(300)")
    words = ["--processes", "2", "--devices", "1", str(script), str(tmp_path)]
    launcher = subprocess.Popen([*LAUNCH, *words], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 100
        while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        launcher.send_signal(number)
        assert launcher.wait(30) == 128 + number
        assert_ended(tmp_path)
    finally:
        launcher.kill()
        launcher.wait()


@pytest.mark.fault(13)
@pytest.mark.parametrize(("process", "text"), [(0, "cannot listen"), (1, "no coordinator")])
def test_a_coordinator_that_cannot_be_ends_the_process_with_a_message(process, text):
    with socket.socket() as taken:
        # Nobody listens: for process 0 the port is busy, for process 1 it does not answer.
        taken.bind(("127.0.0.1", 0))
        address = "127.0.0.1:{1}".format(*taken.getsockname())
        words = ["--coordinator", address, "--processes", "2", "--process", str(process)]
        done = launch(*words, "--patience", "1", "script.py")
    assert done.returncode == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr


WRONG = {
    "no processes": ["--processes", "0", "script.py"],
    "no script": [],
    "a process of no job": ["--processes", "2", "--process", "1", "script.py"],
    "no port": ["--coordinator", "host", "--processes", "2", "--process", "0", "script.py"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG)
def test_wrong_usage_is_code_2(words):
    done = launch(*words)
    assert done.returncode == 2
    assert "launch.py: error" in done.stderr
