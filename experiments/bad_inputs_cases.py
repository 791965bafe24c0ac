"""The table of bad and unusual inputs: what is given, and what has to come of it.

The numbers are those of a catalogue of what goes wrong, 1 to 52; 0 is beside it.  Nearly all
cases have one shape, m = 60 and p = 8 with rank 2, so that they share compiled programs.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.sparse
import xarray as xr

import jaxpoly as jp
from jaxpoly import Status

M, P, R = 60, 8, 2
NUM_ROWS = 52


class Data(NamedTuple):
    """What an entry point is given; None leaves an option at its default.

    Attributes:
        drop: have rows with NaN or infinity dropped.
        x64: the setting of JAX.
        truth: what predictions are compared with; None for the targets.
    """

    inputs: Any
    targets: Any
    weight: Any
    rank: Any
    key: Any
    start: Any = None
    step_size: Any = None
    max_steps: Any = None
    rtol: Any = None
    robust: bool = False
    drop: bool = False
    x64: bool = True
    truth: Any = None


class Refused(NamedTuple):
    """A ValueError or TypeError with these words (a regular expression)."""

    words: str


class Ends(NamedTuple):
    """One of these statuses, after at most so many steps; None where it says nothing of them."""

    statuses: tuple[Status, ...]
    num_steps: int | None = None


class Right(NamedTuple):
    """Predictions with at most this residual, relative to the spread of the targets."""

    residual: float = 1e-6


class Same(NamedTuple):
    """Bitwise the predictions of the good problem."""


class Honest(NamedTuple):
    """What holds of every answer, and no more: finite, and no false success."""


Wanted = Refused | Ends | Right | Same | Honest
# value: bad numbers in arrays of the usual shape and dtype; array: other arrays;
# object: what JAX cannot trace; option: anything but the data.
Kind = Literal["value", "array", "object", "option"]


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        row: of the catalogue.
        name: what is wrong.
        changed: what of the good problem it changes.
        wanted: what has to come of it.
        at: where something else has to come of it, by family or name of the entry point.
        kind: which entry points can be given it.
        traced: what has to come of it where its value is traced, under jit and in a batch; an
            option without this is not given there.
        own_program: compiled for this case alone.
        underdetermined: the solution has to say so.
        num_dropped: rows that have to be reported as dropped.
        warning: words of the one warning that has to be given.
        sizes: all that is bad are sizes and limits, which a cell of a sweep can have too.
    """

    row: int
    name: str
    changed: Mapping[str, Any]
    wanted: Wanted
    at: Mapping[str, Wanted] = field(default_factory=dict)
    kind: Kind = "value"
    traced: Wanted | None = None
    own_program: bool = False
    underdetermined: bool = False
    num_dropped: int = 0
    warning: str = ""
    sizes: bool = False

    @property
    def data(self) -> Data:
        """The good problem with the changes."""
        return good()._replace(**self.changed)

    def wanted_at(self, family: str, name: str) -> Wanted:
        """Return what has to come of it at an entry point."""
        traced = self.traced if family in ("jitted", "batch") else None
        usual = self.wanted if traced is None else traced
        names = name, name.partition(",")[0], family
        return next((self.at[known] for known in names if known in self.at), usual)


def normal(seed: int = 0, shape: tuple[int, ...] = (M, P)) -> np.ndarray:
    """Draw standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape)


def planted(inputs: Any, eigenvalues: tuple[float, ...] = (2.0, -1.0), seed: int = 1) -> np.ndarray:
    """Return targets of a matrix with these eigenvalues, in float64."""
    numbers = np.asarray(inputs).astype(np.float64)
    dim = numbers.shape[1]
    vectors = np.linalg.qr(normal(seed, (dim, dim)))[0][:, : len(eigenvalues)]
    return (numbers @ vectors) ** 2 @ np.asarray(eigenvalues)[: vectors.shape[1]]


def good(seed: int = 0) -> Data:
    """Return a problem that every entry point solves."""
    inputs = normal(seed)
    return Data(inputs, planted(inputs, seed=seed + 1), np.ones(M), R, jax.random.key(seed))


X, Y = normal(), planted(normal())
NONFINITE = Ends((Status.NONFINITE_INPUT,), 0)
DEGENERATE = Ends((Status.DEGENERATE,), 0)
NOT_CONVERGED = Ends(tuple(status for status in Status if status != Status.CONVERGED))
DIVERGED = Ends((Status.DIVERGED,))
NO_STEPS = Ends((Status.MAX_STEPS,), 0)
FINITE_ONLY = Refused("contains NaN|contains infinity|Input .* contains")
# The scikit-learn estimators.
BOTH = ("regressor", "classifier")


def at(names: tuple[str, ...], wanted: Any) -> dict[str, Any]:
    """Return the same outcome for several entry points."""
    return dict.fromkeys(names, wanted)


def spoilt(array: np.ndarray, value: float) -> np.ndarray:
    """Put one bad number in the middle."""
    array = array.copy()
    array.flat[array.size // 2 + 3] = value
    return array


def on(inputs: Any, **changed: Any) -> dict[str, Any]:
    """Change the inputs, and the targets to what a planted matrix gives on them."""
    return {"inputs": inputs, "targets": planted(inputs), **changed}


def weights(num_samples: int) -> np.ndarray:
    """Switch all but the first samples off."""
    return (np.arange(M) < num_samples).astype(float)


def replaced(column: int, values: Any) -> np.ndarray:
    """Replace a column of the inputs."""
    inputs = X.copy()
    inputs[:, column] = values
    return inputs


def layout(name: str) -> np.ndarray:
    """Return the good inputs as they may lie in memory."""
    inputs = X.copy()
    if name == "read-only":
        inputs.flags.writeable = False
    elif name == "Fortran order":
        inputs = np.asfortranarray(inputs)
    elif name == "negative strides":
        inputs = inputs[::-1, ::-1].copy()[::-1, ::-1]
    elif name == "every other row":
        inputs = np.repeat(inputs, 2, axis=0)[::2]
    elif name == "memory map":
        with tempfile.TemporaryFile() as file:
            inputs = np.memmap(file, float, shape=X.shape)
            inputs[:] = X
    return inputs


def scaled(inputs: float = 1.0, targets: float = 1.0, dtype: Any = np.float64) -> dict[str, Any]:
    """Scale inputs and targets, each by itself: L takes what is left."""
    # In float32 some overflow.
    with np.errstate(over="ignore"):
        return {"inputs": (X * inputs).astype(dtype), "targets": (Y * targets).astype(dtype)}


def off_by(size: float) -> np.ndarray:
    """Return the targets with one in sixty off by so much."""
    targets = Y.copy()
    targets[17] += size
    return targets


def low_rank(factor: np.ndarray) -> jp.LowRank:
    """Return a start of this factor, numpy numbers as users give them."""
    start: Any = factor, np.ones(factor.shape[1])
    return jp.LowRank(*start)


def zeros() -> jp.LowRank:
    """Return a start on the saddle at zero."""
    return low_rank(np.zeros((P, R)))


def nan_start() -> jp.LowRank:
    """Return a start with one entry that is no number."""
    return low_rank(spoilt(normal(3, (P, R)), np.nan))


def big_endian(array: np.ndarray) -> np.ndarray:
    """Return the array in the other byte order."""
    return array.astype(">f8")


def masked() -> Any:
    """Return inputs of which some are masked."""
    return np.ma.masked_array(X, X > 2)


def frame() -> Any:
    """Return the inputs as a table with named columns."""
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(P)])


def sparse() -> Any:
    """Return the inputs as a sparse matrix."""
    return scipy.sparse.csr_matrix(X)


def labelled() -> Any:
    """Return the inputs as a labelled array."""
    return xr.DataArray(X, dims=("sample", "input"))


def brain() -> Any:
    """Return the inputs rounded to bfloat16."""
    return jnp.asarray(X).astype(jnp.bfloat16)


value = partial(Case, kind="value")
array = partial(Case, kind="array")
foreign = partial(Case, kind="object")
option = partial(Case, kind="option")
