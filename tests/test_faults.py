"""What goes wrong while a sweep runs costs no more than what was being computed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from experiments import results
from experiments.cli import main

ROOT = Path(__file__).parents[1]
SMALL = ["phase-transition", "--preset", "smoke", "--solvers", "EP-ROM", "--trials", "4"]

# What both children do before the limits hold: compile.
PREPARE = """
import sys
import jax
from experiments import executors, phase_transition, problems
from experiments.cli import main

def prepare(executor, sizes, **changes):
    jax.config.update("jax_enable_x64", True)
    cell = problems.Cell("EP-ROM", condition=1.0, max_steps=0, **changes)
    for size in sizes:
        points = executors.stack([cell.point(0, 0)], size)
        jax.block_until_ready(executors.solve_batch(cell.program, executor, points))
"""

# Compiled code that never returns: LAPACK's SVD of a matrix with one infinity (issue 1409 of
# Reference-LAPACK).  One problem of the grid falls into it, in whatever batch it is solved.
HANGING = f"""{PREPARE}
import jax.numpy as jnp

def solve_one(self, point, solve=problems.Program.solve):
    outcome = solve(self, point)
    unlucky = (point.trial == 2) & (point.num_samples == 12) & (point.max_steps > 0)
    matrix = jnp.eye(3).at[0, 0].set(jnp.where(unlucky, jnp.inf, 1.0))
    nothing = jnp.linalg.svd(matrix)[0].sum() * 0
    return outcome._replace(relative_error=outcome.relative_error + nothing)

problems.Program.solve = solve_one
for rank in (1, 2):
    prepare("map", [executors.MAP_BATCH], dim=8, rank=rank, num_samples=12)
sys.exit(main(sys.argv[1:]))
"""

# So much address space as the process has then, and some more.
STARVED = f"""{PREPARE}
import resource

executors.CPU_LANES, executors.LANE_BYTES = 512, 2**40
prepare("vmap", [4], dim=60, rank=1, num_samples=180)
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = taken + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""

# No file can grow beyond 300 kB, as on a disk that is full then.
FULL = """
import resource, sys
from experiments.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
sys.exit(main(sys.argv[1:]))
"""


def run(script: Path, *words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, script, *map(str, words)]
    # Each thread would set address space aside for itself, more on machines with more cores.
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=250, env=environment
    )


@pytest.mark.fault(10)
def test_a_problem_that_hangs_is_given_up_and_all_others_are_solved(tmp_path):
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    done = run(script, *SMALL, "--devices", "1", "--time-limit", "4", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("given up after 4 s") == 1
    found = xr.load_dataset(tmp_path / "phase-transition.nc", engine="scipy")
    hung = np.argwhere(found.status.values == -1)
    assert len(hung) == 1
    assert np.isnan(found.relative_error.values[*hung[0]])
    assert np.isfinite(found.relative_error.values).sum() == found.status.size - 1
    assert "given up" in json.loads(found.provenance)["notes"][0]


@pytest.mark.fault(9)
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited on Linux")
@pytest.mark.parametrize(
    ("executor", "megabytes"),
    # A batch of 256 takes 2524 MB in one piece, one of 128 half of that.  Where some hundred are
    # left, it is the compiler that runs out, and it aborts.
    [("vmap", 2300), pytest.param("refill", 2900, marks=pytest.mark.slow)],
)
def test_where_memory_runs_out_batches_are_halved_and_all_is_solved(tmp_path, executor, megabytes):
    script = tmp_path / "starved.py"
    script.write_text(STARVED)
    grid = ["--dims", "400", "--ranks", "1", "--ratios", "3", "--trials", "40", "--max-steps", "1"]
    words = [*SMALL, *grid, "--devices", "1", "--executor", executor, "--out", tmp_path]
    done = run(script, megabytes, *words)
    assert done.returncode == 0, done.stderr
    assert "out of memory" in done.stderr
    found = xr.load_dataset(tmp_path / "phase-transition.nc", engine="scipy")
    assert (found.status >= 0).all()
    assert "out of memory" in json.loads(found.provenance)["notes"][0]


@pytest.mark.fault(9)
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited on Linux")
@pytest.mark.slow
def test_a_problem_that_fits_no_memory_ends_the_run_with_a_message(tmp_path):
    script = tmp_path / "starved.py"
    script.write_text(STARVED)
    grid = ["--dims", "3000", "--ranks", "5", "--ratios", "3", "--trials", "2"]
    done = run(script, 800, *SMALL, *grid, "--devices", "1", "--out", tmp_path)
    assert done.returncode == 1
    assert "error: one problem does not fit into memory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.fault(3)
@pytest.mark.skipif(sys.platform != "linux", reason="the size of files is limited on Linux")
def test_a_full_disk_ends_the_run_with_a_message_and_the_run_goes_on_when_there_is_space(tmp_path):
    script = tmp_path / "full.py"
    script.write_text(FULL)
    words = [*SMALL, "--trials", "400", "--max-steps", "20"]
    done = run(script, *words, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "error: cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*.nc"))
    folders = ["--out", str(tmp_path / "out"), "--resume"], ["--out", str(tmp_path / "other")]
    for folder in folders:
        assert main([*words, "--quiet", *folder]) == 0
    one, other = (
        results.read(tmp_path / name / "phase-transition.nc") for name in ("out", "other")
    )
    xr.testing.assert_equal(one, other)


@pytest.mark.fault(4)
def test_damaged_results_are_written_anew_from_the_ledger(tmp_path, capsys):
    words = [*SMALL, "--quiet", "--out", str(tmp_path)]
    assert main(words) == 0
    path = tmp_path / "phase-transition.nc"
    whole = results.read(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert main(words) == 1
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert "was damaged and is written anew" in capsys.readouterr().err
    xr.testing.assert_equal(results.read(path), whole)
    (aside,) = tmp_path.glob("phase-transition-*.nc")
    assert aside.read_bytes() == content


def test_every_row_of_the_catalogue_of_faults_is_met():
    rows = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        rows |= set(map(int, re.findall(r"^@pytest\.mark\.fault\((\d+)\)", path.read_text(), re.M)))
    assert rows == set(range(1, 16))
