"""What fuzzing draws: small problems of every kind, from few shapes so that programs are shared."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

# Rows, columns and rank that are compiled for; fewer rows by zero weights, fewer columns by zeros.
SHAPES = {"usual": (60, 8, 2), "flat": (16, 6, 3), "tall": (90, 4, 1)}
LAWS = ("gaussian", "uniform", "signs", "student", "integers", "shifted")
WEIGHTS = ("equal", "unequal", "far apart")


@dataclass(frozen=True)
class Example:
    """A problem by its recipe.

    Attributes:
        solver: a name in `SOLVERS`.
        shape: a name in `SHAPES`.
        dtype: float32 or float64.
        seed: of all its random numbers.
        num_samples: rows that have a weight.
        weights: a name in `WEIGHTS`.
        law: of the inputs, a name in `LAWS`.
        num_columns: columns that are not zero.
        num_distinct: rows before repetition.
        eigenvalues: of the planted matrix, one more than the rank or fewer.
        input_exponent, target_exponent: powers of ten that the data are multiplied by.
        noise: standard deviation relative to that of the targets.
        offset: constant relative to the standard deviation of the targets.
    """

    solver: str
    shape: str
    dtype: str
    seed: int
    num_samples: int
    weights: str
    law: str
    num_columns: int
    num_distinct: int
    eigenvalues: tuple[float, ...]
    input_exponent: int
    target_exponent: int
    noise: float
    offset: float


class Problem(NamedTuple):
    """The numbers of an example, in its dtype."""

    inputs: np.ndarray
    targets: np.ndarray
    weight: np.ndarray


def most(number: int) -> Any:
    """Draw an integer from 1 to `number`, more often than not from the upper half."""
    return st.one_of(st.integers(number // 2, number), st.integers(1, number))


@st.composite
def examples(
    draw: Any, solvers: tuple[str, ...], shapes: tuple[str, ...], dtypes: tuple[str, ...]
) -> Example:
    """Draw an example for one of these solvers, shapes and dtypes."""
    shape, dtype = draw(st.sampled_from(shapes)), draw(st.sampled_from(dtypes))
    rows, columns, rank = SHAPES[shape]
    # Squares of squares of the inputs are summed, and have to stay within the dtype.
    reach = (20, 60) if dtype == "float64" else (4, 12)
    eigenvalue = st.one_of(
        st.floats(0.1, 10), st.floats(-10, -0.1), st.floats(1e-30, 0.1), st.just(0.0)
    )
    return Example(
        solver=draw(st.sampled_from(solvers)),
        shape=shape,
        dtype=dtype,
        seed=draw(st.integers(0, 2**32 - 1)),
        num_samples=draw(most(rows)),
        weights=draw(st.sampled_from(WEIGHTS)),
        law=draw(st.sampled_from(LAWS)),
        num_columns=draw(most(columns)),
        num_distinct=draw(most(rows)),
        eigenvalues=tuple(draw(st.lists(eigenvalue, min_size=1, max_size=rank + 1))),
        input_exponent=draw(st.integers(-reach[0], reach[0])),
        target_exponent=draw(st.integers(-reach[1], reach[1])),
        noise=draw(st.sampled_from((0.0, 0.0, 1e-6, 0.1, 10.0))),
        offset=draw(st.sampled_from((0.0, 0.0, 1.0, 1e4))),
    )


def problem(example: Example) -> Problem:
    """Return the numbers of an example; rows without weight hold others of the same kind."""
    rng = np.random.default_rng(example.seed)
    rows, columns, _ = SHAPES[example.shape]
    shape = rows, columns
    inputs = {
        "gaussian": lambda: rng.normal(size=shape),
        "uniform": lambda: rng.uniform(-1, 1, shape),
        "signs": lambda: rng.choice([-1.0, 1.0], shape),
        "student": lambda: rng.standard_t(2, shape),
        "integers": lambda: rng.integers(-3, 4, shape).astype(float),
        "shifted": lambda: 30 + rng.normal(size=shape),
    }[example.law]()
    inputs = inputs[np.arange(rows) % example.num_distinct]
    inputs[:, example.num_columns :] = 0
    vectors = np.linalg.qr(rng.normal(size=(columns, columns)))[0][:, : len(example.eigenvalues)]
    targets = (inputs @ vectors) ** 2 @ np.array(example.eigenvalues[: vectors.shape[1]])
    spread = np.std(targets)
    targets = targets + spread * (example.noise * rng.normal(size=rows) + example.offset)
    weight = {
        "equal": lambda: np.ones(rows),
        "unequal": lambda: rng.uniform(0.1, 2, rows),
        "far apart": lambda: 10.0 ** rng.uniform(-4, 4, rows),
    }[example.weights]()
    weight[rng.permutation(rows)[example.num_samples :]] = 0
    inputs = inputs * 10.0**example.input_exponent
    targets = targets * 10.0**example.target_exponent
    return Problem(*(array.astype(example.dtype) for array in (inputs, targets, weight)))
