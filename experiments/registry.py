"""The experiments by name, and what the module of one has to have."""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from experiments.results import Results
from experiments.session import Session

NAMES = (
    "quickstart",
    "figure-2018",
    "phase-transition",
    "convergence",
    "running-time",
    "noise",
    "conditioning",
    "input-laws",
    "throughput",
    "limits",
    "bad-inputs",
    "fuzz",
    "honesty",
    "real-data",
    "energy-model",
    "benchmark",
)


class Experiment(Protocol):
    """What the module of an experiment has; its docstring begins "Name: what is shown."."""

    __doc__: str
    Config: type
    PRESETS: dict[str, Any]

    def run(self, config: Any, session: Session | None = None) -> Results:
        """Compute, and nothing else: the same config gives the same results."""

    def draw(self, saved: Any, folder: Path) -> None:
        """Draw the figures from what `results.read` returns; their names begin with the name."""

    def table(self, saved: Any) -> str:
        """Return the numbers as text, from what `results.read` returns."""


def experiment(name: str) -> Experiment:
    """Return the experiment of a name in `NAMES`."""
    return cast(Experiment, import_module(f"experiments.{name.replace('-', '_')}"))


def summary(name: str) -> str:
    """Return what the experiment shows, in a line."""
    return experiment(name).__doc__.strip().splitlines()[0].partition(": ")[2]
