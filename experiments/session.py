"""What an experiment is given to run with: where results go, and on what it computes."""

import os
from dataclasses import dataclass, field
from typing import Literal

import jax

from experiments.ledger import Ledger
from experiments.progress import Progress

Executor = Literal["auto", "map", "refill", "vmap"]


@dataclass(frozen=True)
class Session:
    """A ledger, an executor and a place to show progress; by default in memory and silent.

    Attributes:
        ledger: what is computed already, and where the rest goes.
        executor: "map" solves problem after problem in every worker; "refill" solves
            a batch at once and puts the next problems in the place of those that
            ended; "vmap" solves a batch until its slowest ends; "auto" is "map" on
            CPU and "refill" elsewhere.
        devices: devices to use, on CPU worker threads; None is all there are.
        quiet: show no progress.
        time_limit: seconds that a batch of a sweep may take, its compilation included; for
            the command line, since the process then starts anew.
    """

    ledger: Ledger = field(default_factory=Ledger)
    executor: Executor = "auto"
    devices: int | None = None
    quiet: bool = True
    time_limit: float | None = None

    def progress(self, title: str, total: int, done: int = 0, unit: str = "problem") -> Progress:
        """Return a `Progress`, to be used in a `with` statement."""
        return Progress(title, total, done, unit, self.quiet)

    @property
    def chosen_executor(self) -> str:
        """The executor, with "auto" decided."""
        if self.executor != "auto":
            return self.executor
        return "map" if jax.default_backend() == "cpu" else "refill"

    @property
    def num_workers(self) -> int:
        """Worker threads: a core each on CPU, where one program runs in all, or a device each."""
        if self.devices is not None and self.devices < 1:
            raise ValueError(f"devices is {self.devices}; expected at least 1")
        on_cpu = jax.default_backend() == "cpu"
        most = _available_cores() if on_cpu else jax.local_device_count()
        return most if self.devices is None else min(self.devices, most)


def _available_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
