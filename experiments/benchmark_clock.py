"""The clock of the benchmark: candidates in turn, warm, in rounds."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import jax
from threadpoolctl import ThreadpoolController

Seconds = Mapping[str, list[float]]

# What is shorter is called again and again, for about as long, and divided.
SAMPLE_SECONDS = 0.02
# OpenBLAS and XLA let their threads spin for a while after a product, on cores that the
# next candidate wants.
PAUSE_SECONDS = 0.03


@dataclass(frozen=True)
class Candidate:
    """A computation to be timed.

    Attributes:
        call: computes; jax arrays that it returns are waited for.
        blas_threads: threads that numpy's BLAS and LAPACK may use.
    """

    call: Callable[[], Any]
    blas_threads: int = 1


def interleaved(candidates: Mapping[str, Candidate], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of every candidate in each of `repeats` rounds.

    All have run before the first round, so that nothing compiles in one, and take turns
    in each: what else the machine does at a time falls on all of them.
    """
    controller = ThreadpoolController()

    def timed(candidate: Candidate, warm: bool, calls: int = 1) -> float:
        with controller.limit(limits=candidate.blas_threads, user_api="blas"):
            if warm:
                jax.block_until_ready(candidate.call())
            began = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(candidate.call())
            return (time.perf_counter() - began) / calls

    typical = {name: timed(candidate, warm=True) for name, candidate in candidates.items()}
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, candidate in candidates.items():
            time.sleep(PAUSE_SECONDS)
            short = typical[name] < SAMPLE_SECONDS
            calls = math.ceil(SAMPLE_SECONDS / typical[name]) if short else 1
            found[name].append(timed(candidate, short, calls))
    return found


def typical_ratio(seconds: Seconds, name: str, reference: str) -> float:
    """Return the median over the rounds of the seconds of one over those of the other.

    >>> typical_ratio({"a": [2.0, 4.0, 9.0], "b": [1.0, 2.0, 3.0]}, "a", "b")
    2.0
    """
    pairs = zip(seconds[name], seconds[reference], strict=True)
    return median(one / other for one, other in pairs)


def fastest(seconds: Seconds, prefix: str = "") -> str:
    """Return the name with the smallest median, of those that begin with the prefix.

    >>> fastest({"a": [2.0, 4.0, 9.0], "b, 1": [1.0, 2.0, 8.0], "b, 2": [3.0, 3.0, 3.0]}, "b")
    'b, 1'
    """
    names = [name for name in seconds if name.startswith(prefix)]
    return min(names, key=lambda name: median(seconds[name]))
