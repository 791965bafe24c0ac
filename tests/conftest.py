"""Strict numerics for all tests, and the option for slow statistical checks."""

import atexit
import gc
import os
import shutil
import sys
import tempfile
from importlib.metadata import version

# Several workers share the cores: LAPACK's own threads would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Both workers compile at once: parts of a program side by side would only cost time.  Without
# optimisation, and by the plainer of XLA's two code generators while it had two, programs are
# compiled in a third of the time; what the slow run compiles is what users run.  Workers inherit.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _flags = [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_parallel_codegen_split_count=1"]
    if "--slow" not in sys.argv:
        _flags.append("--xla_backend_optimization_level=0")
        if version("jaxlib").startswith("0.10."):
            _flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join(_flags).strip()
# What one process of a run has compiled serves the others: both workers, and the commands that
# tests start.  The first process makes the folder, and takes it away at the end.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="jaxpoly-compiled-")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxpoly as jp
from experiments import memory_maps

jax.config.update("jax_enable_x64", True)
# Tracing makes millions of objects that live as long as the programs.
gc.set_threshold(100_000, 50, 100)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow statistical checks too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties += [("fault", mark.args[0]) for mark in item.iter_markers("fault")]
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Count the run-time faults of docs/trust.md: a row is survived if all its tests pass."""
    rows: dict[str, set[int]] = {
        outcome: {
            number
            for report in terminalreporter.stats.get(outcome, [])
            for name, number in getattr(report, "user_properties", [])
            if name == "fault"
        }
        for outcome in ("passed", "failed", "error")
    }
    met, lost = rows["passed"], rows["failed"] | rows["error"]
    if met | lost:
        terminalreporter.write_line(
            f"run-time faults survived: {len(met - lost)} of {len(met | lost)}"
        )


def _alternating(magnitudes: np.ndarray) -> np.ndarray:
    return magnitudes * np.where(np.arange(len(magnitudes)) % 2 == 0, 1.0, -1.0)


SPECTRA: dict[str, Callable[[int], np.ndarray]] = {
    "even": lambda n: _alternating(np.arange(n, 0.0, -1.0)),
    "geometric": lambda n: _alternating(10.0 ** -np.linspace(0, 6, n)),
    "clustered": lambda n: np.where(np.arange(n) < (n + 1) // 2, 1 + 1e-10 * np.arange(n), -0.1),
    "repeated": lambda n: np.where(np.arange(n) < 3, 3.0, -1.0),
    "rank deficient": lambda n: np.concatenate([[2.0, -1.0], np.zeros(n)])[:n],
    "zero": np.zeros,
    "identity": np.ones,
    "pairs": lambda n: _alternating((n - np.arange(n)) // 2 + 1.0),
}


@pytest.fixture(params=SPECTRA)
def spectrum(request: pytest.FixtureRequest) -> Callable[[int], np.ndarray]:
    """Eigenvalues as a function of their number; a test that asks for it runs on every kind."""
    return SPECTRA[request.param]


@pytest.fixture
def symmetric() -> Callable[..., np.ndarray]:
    """Build a symmetric matrix with the given eigenvalues and random eigenvectors."""

    def build(eigenvalues: np.ndarray, seed: int = 0) -> np.ndarray:
        normal = np.random.default_rng(seed).normal(size=(len(eigenvalues), len(eigenvalues)))
        vectors = np.linalg.qr(normal)[0]
        return (vectors * eigenvalues) @ vectors.T

    return build


@pytest.fixture
def best_error() -> Callable[..., float]:
    """Frobenius distance to the nearest matrix of rank r (semidefinite for `positive`)."""

    def compute(eigenvalues: np.ndarray, rank: int, positive: bool = False) -> float:
        eligible = np.maximum(eigenvalues, 0) if positive else np.abs(eigenvalues)
        kept = np.argsort(-eligible)[:rank]
        remainder = eigenvalues.copy()
        remainder[kept] -= eligible[kept] if positive else eigenvalues[kept]
        return float(np.linalg.norm(remainder))

    return compute


# One object, since optimisers are compared by identity.
_MOMENTUM = partial(optax.sgd, momentum=0.5)

SOLVERS: dict[str, Any] = {
    "ep_rom": jp.ep_rom(2),
    "ep_rom fixed": jp.ep_rom(2, step_size=0.25, debias="trace"),
    "ep_rom positive": jp.ep_rom(2, positive=True),
    "ap_rom": jp.ap_rom(2),
    "ap_rom krylov": jp.ap_rom(2, head="krylov"),
    "ap_rom positive": jp.ap_rom(2, positive=True),
    "factored": jp.factored_descent(2),
    "factored adam": jp.factored_descent(2, step_size=0.05, optimizer=optax.adam),
    "factored momentum": jp.factored_descent(2, step_size=0.1, optimizer=_MOMENTUM),
    "factored positive": jp.factored_descent(2, positive=True),
    "gauss_newton": jp.gauss_newton(2),
    "gauss_newton positive": jp.gauss_newton(2, positive=True),
}


# Variants of others, left to the slow run because each compiles for seconds.
VARIANTS = {"ap_rom positive", "factored momentum", "gauss_newton positive"}


@pytest.fixture(
    params=[pytest.param(n, marks=pytest.mark.slow) if n in VARIANTS else n for n in SOLVERS]
)
def solver(request: pytest.FixtureRequest) -> Any:
    """A solver of rank 2; a test that asks for it runs on the whole registry.

    `parametrize("solver", [names], indirect=True)` runs it on a part.
    """
    return SOLVERS[request.param]


@cache
def _planted(positive: bool, seed: int, num_samples: int, dtype: Any) -> jp.Problem:
    signs = "positive" if positive else "mixed"
    return jp.sample_problem(
        jax.random.key(seed), num_samples, dim=16, rank=2, signs=signs, capacity=200, dtype=dtype
    )


@jax.jit
def _jit_init(solver, lifting, targets, key):
    return solver.init(lifting, targets, key)


@jax.jit
def _jit_step(solver, lifting, targets, state):
    return solver.step(lifting, targets, state)


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
    """Drop compiled programs before a worker has too many of them."""
    yield
    memory_maps.keep_few()


@pytest.fixture
def jit_init() -> Callable[..., jp.State]:
    """Call `solver.init(lifting, targets, key)` jitted, compiled once for all tests."""
    return _jit_init


@pytest.fixture
def jit_step() -> Callable[..., jp.State]:
    """Call `solver.step(lifting, targets, state)` jitted, compiled once for all tests."""
    return _jit_step


@pytest.fixture
def planted(solver: Any) -> Callable[..., jp.Problem]:
    """Draw a noiseless problem that suits the solver, all of one shape."""

    def draw(seed: int = 0, num_samples: int = 160, dtype: Any = jnp.float64) -> jp.Problem:
        return _planted(solver.positive, seed, num_samples, dtype)

    return draw
