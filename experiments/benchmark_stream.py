"""Inputs on disk: seconds to solve beside those of a plain read, and the memory it takes.

The file is drawn block by block in the process that solves, which is a fresh one: its
anonymous memory is the kernel's count of it, without the pages of the map.
"""

import json
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxpoly as jp
from experiments.benchmark_children import measured
from experiments.benchmark_passes import Counting
from experiments.session import Session

BLOCK_BYTES = 64 * 2**20
SOLVERS: dict[str, tuple[Any, int | None]] = {
    "AP-ROM": (jp.ap_rom, 2),
    "factored descent": (jp.factored_descent, 2),
    "Gauss-Newton": (jp.gauss_newton, None),
}


@dataclass(frozen=True)
class Config:
    """The file and what is run on it."""

    gigabytes: float = 8.0
    """Size of X on disk, in units of 2^30 bytes."""
    dim: int = 1000
    """Inputs p."""
    rank: int = 5
    """Neurons r."""
    dtype: str = "float32"
    """Type of the numbers on disk, and of the computation."""
    steps: int = 4
    """Steps of AP-ROM and of factored descent; Gauss-Newton runs to its end."""


def run(config: Config, session: Session, seed: int) -> dict[str, Any]:
    """Return seconds, reads and memory of every solver."""

    def compute() -> dict[str, Any]:
        request = json.dumps(asdict(config) | {"seed": seed})
        return measured("experiments.benchmark_stream", request)

    return session.ledger.recall("benchmark/stream", compute)


def solved(config: Config, seed: int, folder: Path) -> dict[str, Any]:
    """Write the file, read it plainly, and let every solver run on it."""
    generator = np.random.default_rng(seed)
    num_bytes = int(config.gigabytes * 2**30)
    num_samples = num_bytes // (config.dim * np.dtype(config.dtype).itemsize)
    shape = num_samples, config.dim
    path = folder / "inputs.npy"
    inputs = np.lib.format.open_memmap(path, "w+", config.dtype, shape)
    dtype = jnp.dtype(config.dtype)
    truth = jp.sample_truth(jax.random.key(seed), config.dim, config.rank, dtype=dtype)
    factor, signs = np.asarray(truth.factor), np.asarray(truth.diagonal)
    targets = np.empty(num_samples, config.dtype)
    block = max(1, BLOCK_BYTES // (config.dim * inputs.itemsize))
    for start in range(0, num_samples, block):
        rows = slice(start, start + block)
        inputs[rows] = generator.standard_normal(inputs[rows].shape, np.float32)
        targets[rows] = (inputs[rows] @ factor) ** 2 @ signs
    inputs.flush()
    del inputs
    source = np.load(path, mmap_mode="r")
    plain = [_read_seconds(source, block) for _ in range(2)]
    found = {}
    with Peak() as peak:
        for name, (build, reads) in SOLVERS.items():
            found[name] = _timed(build(config.rank), source, targets, truth, config, reads, seed)
            found[name]["read_again_seconds"] = _read_seconds(source, block)
    return {
        "num_samples": num_samples,
        "dim": config.dim,
        "num_bytes": path.stat().st_size,
        "read_seconds": plain,
        "peak_anonymous_bytes": peak.highest,
        "solvers": found,
    }


def _read_seconds(source: np.ndarray, block: int) -> float:
    """Return the seconds to copy all rows into memory, block by block."""
    began = time.perf_counter()
    for start in range(0, len(source), block):
        np.array(source[start : start + block])
    return time.perf_counter() - began


def _timed(
    solver: jp.Solver,
    source: np.ndarray,
    targets: np.ndarray,
    truth: jp.LowRank,
    config: Config,
    reads: int | None,
    seed: int,
) -> dict[str, Any]:
    lifting = jp.Lifting(jp.StreamedRows(Counting(source)))
    counter = lifting.inputs.source
    key = jax.random.key(seed + 1)
    run = jp.init_run(solver, lifting, targets, key)
    # One step to compile everything.
    run = jp.advance(solver, lifting, targets, run, 1)
    before, seconds, num_steps = counter.reads, 0.0, 0
    while run.best.status == jp.Status.MAX_STEPS and (reads is None or num_steps < config.steps):
        began = time.perf_counter()
        run = jax.block_until_ready(jp.advance(solver, lifting, targets, run, 1))
        seconds += time.perf_counter() - began
        num_steps += 1
    return {
        "seconds": seconds,
        "steps": num_steps,
        "reads": counter.reads - before,
        "status": jp.Status(int(run.best.status)).name,
        "error": float(jp.relative_error(run.best.value, truth)),
    }


class Peak:
    """The most anonymous memory of this process while it is open, in bytes; 0 if not told."""

    def __enter__(self) -> "Peak":
        self.highest = 0
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()

    def _look(self) -> None:
        status = Path("/proc/self/status")
        while not self._ended.wait(0.02) and status.exists():
            lines = status.read_text().splitlines()
            now = next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
            self.highest = max(self.highest, 1024 * now)


def table(found: dict[str, Any]) -> str:
    """Return seconds for a read of X, beside those of a plain read, and the memory."""
    size = found["num_bytes"]
    lines = [
        f"X on disk: {size / 2**30:.1f} GiB ({found['num_samples']} x {found['dim']}); "
        f"plain read {size / found['read_seconds'][-1] / 1e9:.2f} GB/s; most anonymous memory "
        f"{found['peak_anonymous_bytes'] / 2**30:.2f} GiB",
        f"{'solver':<24}{'steps':>7}{'reads':>7}{'s a read':>10}{'GB/s':>7}{'of plain':>10}"
        f"{'error':>10}  status",
    ]
    for name, row in found["solvers"].items():
        a_read = row["seconds"] / row["reads"]
        lines.append(
            f"{name:<24}{row['steps']:>7}{row['reads']:>7.0f}{a_read:>10.2f}"
            f"{size / a_read / 1e9:>7.2f}{row['read_again_seconds'] / a_read:>10.2f}"
            f"{row['error']:>10.1e}  {row['status']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    seed = request.pop("seed")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(solved(Config(**request), seed, Path(folder))))
