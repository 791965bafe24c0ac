"""Planted problems as points of a grid: what is compiled, what is traced, what is kept."""

import dataclasses
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax import Array

import jaxpoly as jp
from jaxpoly.validation import check_count

Signs = Literal["positive", "mixed"]
Inputs = Literal["gaussian", "uniform", "laplace", "student", "rademacher"]

# By the name that results, figures and --help use.
SOLVERS: dict[str, Callable[[int], jp.Solver]] = {
    "EP-ROM": jp.ep_rom,
    "AP-ROM": jp.ap_rom,
    "factored descent": jp.factored_descent,
    "Gauss-Newton": jp.gauss_newton,
    "EP-ROM, paper": partial(jp.ep_rom, step_size=1.0, debias="trace"),
    "AP-ROM, paper": partial(jp.ap_rom, step_size=1.0, debias="trace"),
    "AP-ROM, paper, Krylov head": partial(jp.ap_rom, step_size=1.0, debias="trace", head="krylov"),
    "EP-ROM, step 0.25": partial(jp.ep_rom, step_size=0.25, debias="trace"),
}


@dataclass(frozen=True)
class Cell:
    """A point of a grid: problems of one kind, and the solver they are given to.

    Attributes:
        solver: a name in `SOLVERS`.
        dim: p.
        rank: r.
        num_samples: m.
        signs, condition, noise, inputs: as in `jaxpoly.sample_problem`.
        max_steps, rtol: as in `jaxpoly.solve`.
    """

    solver: str
    dim: int
    rank: int
    num_samples: int
    signs: Signs = "mixed"
    condition: float | None = None
    noise: float = 0.0
    inputs: Inputs = "gaussian"
    max_steps: int = 500
    rtol: float = 1e-12

    def __post_init__(self):
        for name in ("dim", "rank", "max_steps"):
            check_count(name, getattr(self, name), 0)
        if self.num_samples != int(self.num_samples):
            raise ValueError(f"num_samples is {self.num_samples}; expected an integer")
        # The same numbers of other types are the same cell.
        for field, kind in (("num_samples", int), ("noise", float), ("rtol", float)):
            object.__setattr__(self, field, kind(getattr(self, field)))
        if self.condition is not None:
            object.__setattr__(self, "condition", float(self.condition))
        if self.solver not in SOLVERS:
            raise ValueError(f"no solver is called {self.solver!r}; there are {list(SOLVERS)}")
        if not 1 <= self.rank <= self.dim:
            raise ValueError(f"rank is {self.rank} at dim {self.dim}; expected 1 to dim")
        if self.num_samples < 1 or self.max_steps < 0:
            raise ValueError(
                f"num_samples is {self.num_samples} and max_steps {self.max_steps}; "
                "expected at least 1 and 0"
            )
        if not 0 <= self.noise < math.inf or not 0 <= self.rtol < math.inf:
            raise ValueError(f"noise is {self.noise} and rtol {self.rtol}; expected at least 0")
        if self.condition is not None and not 1 <= self.condition < math.inf:
            raise ValueError(f"condition is {self.condition}; expected at least 1")

    @property
    def name(self) -> str:
        """A short digest, the same wherever the cell stands in whatever grid."""
        return f"{_digest(dataclasses.asdict(self)):08x}"

    @property
    def program(self) -> "Program":
        """What is compiled for this cell."""
        return Program(
            self.solver,
            self.dim,
            self.rank,
            self.signs,
            self.condition,
            self.inputs,
            capacity(self.num_samples),
        )

    def point(self, seed: int, trial: int) -> "Point":
        """Return problem number `trial` of this cell.

        It depends on the seed, the problem's own numbers and the trial alone, so that
        every solver meets the same problems, in whatever grid.
        """
        kind = dataclasses.asdict(self)
        for name in ("solver", "max_steps", "rtol"):
            del kind[name]
        return Point(
            np.uint32(seed),
            np.uint32(_digest(kind)),
            np.uint32(trial),
            np.int32(self.num_samples),
            np.float64(self.noise),
            np.int32(self.max_steps),
            np.float64(self.rtol),
        )


def unknowns(dim: Any, rank: Any) -> Any:
    """Return the degrees of freedom of a symmetric matrix of rank r; of numbers or arrays.

    >>> unknowns(40, 3)
    117
    """
    return dim * rank - rank * (rank - 1) // 2


def capacity(num_samples: int) -> int:
    """Return the rows that are compiled for: the next of 64, 96, 128, 192, 256, ...

    A function of m alone, so that a cell gives the same numbers in whatever grid.
    """
    if num_samples <= 64:
        return 64
    power = 2 ** math.ceil(math.log2(num_samples))
    return power * 3 // 4 if num_samples <= power * 3 // 4 else power


def _digest(kind: dict) -> int:
    return zlib.crc32(json.dumps(kind, sort_keys=True).encode())


class Point(NamedTuple):
    """The numbers that make one problem, all traced; one compiled program serves them all.

    Numpy scalars, or columns of them for a batch.
    """

    seed: Any
    kind: Any
    trial: Any
    num_samples: Any
    noise: Any
    max_steps: Any
    rtol: Any


class Outcome(NamedTuple):
    """What is kept of a problem."""

    relative_error: Array
    spectral_error: Array
    relative_residual: Array
    status: Array
    num_steps: Array


@dataclass(frozen=True)
class Program:
    """What is static: one compiled program for each of these."""

    solver_name: str
    dim: int
    rank: int
    signs: Signs
    condition: float | None
    inputs: Inputs
    capacity: int

    @property
    def solver(self) -> jp.Solver:
        """The solver, of the right rank."""
        return SOLVERS[self.solver_name](self.rank)

    def problem(self, point: Point) -> tuple[jp.Problem, Array]:
        """Return the problem and the key of its solver."""
        key = jax.random.key(point.seed)
        for number in (point.kind, point.trial):
            key = jax.random.fold_in(key, number)
        problem_key, solver_key = jax.random.split(key)
        problem = jp.sample_problem(
            problem_key,
            point.num_samples,
            self.dim,
            self.rank,
            signs=self.signs,
            noise=point.noise,
            condition=self.condition,
            inputs=self.inputs,
            capacity=self.capacity,
        )
        return problem, solver_key

    def outcome(self, truth: jp.LowRank, solution: jp.Solution) -> Outcome:
        """Return what is kept of a solved problem."""
        return Outcome(
            jp.relative_error(solution.value, truth),
            jp.spectral_error(solution.value, truth),
            solution.relative_residual,
            solution.status,
            solution.num_steps,
        )

    def solve(self, point: Point) -> Outcome:
        """Draw and solve one problem."""
        problem, key = self.problem(point)
        solution = jp.solve(
            self.solver, problem.lifting, problem.targets, key, point.max_steps, point.rtol
        )
        return self.outcome(problem.truth, solution)
