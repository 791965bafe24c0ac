"""The table of problems that honesty is tried on: benign, hard and hopeless ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

# Rows by inputs: few shapes, filled up with rows of zero weight, so that few programs are compiled.
CAPACITY = {1: 24, 3: 60, 8: 320, 60: 360}
SPECTRA = {
    "even": (2.0, 1.0),
    "clustered": (1.0 + 1e-10, 1.0),
    "geometric": (1.0, 1e-3),
    "steep": (1.0, 1e-6),
    "repeated": (1.0, 1.0),
    "deficient": (1.0, 0.0),
}
SIGNS = {"positive": (1, 1), "negative": (-1, -1), "mixed": (1, -1)}
LAWS = ("gauss", "uniform", "laplace", "student", "cauchy", "rademacher", "one-hot", "shifted")
STARTS = ("zero", "far", "tiny", "opposite", "random", "one column", "orthogonal")


@dataclass(frozen=True, eq=False)
class Problem:
    """One problem of the table, in float64.

    Attributes:
        kind: the family it belongs to; name: what is special, unique.
        inputs, targets, weight: filled up to the capacity of its dimension.
        factor, diagonal: the planted L, in the units of inputs and targets.
        exact: whether the planted L, of at most the rank asked, fits the targets to rounding.
        start: factor and diagonal to start from, or None.
    """

    kind: str
    name: str
    inputs: np.ndarray
    targets: np.ndarray
    weight: np.ndarray
    factor: np.ndarray
    diagonal: np.ndarray
    exact: bool
    start: tuple[np.ndarray, np.ndarray] | None = None


def rank_asked(dim: int) -> int:
    """Return the rank that is fitted to all problems of a dimension."""
    return min(dim, 2)


def problems(seed: int = 0) -> list[Problem]:
    """Return the whole table, the same for a seed."""
    return [_build(number + 1000 * seed, **options) for number, options in enumerate(_table())]


def _table() -> Iterator[dict[str, Any]]:
    """Yield what is special of every problem."""
    for dim in (8, 3):
        for (name, spectrum), (signs, pair) in product(SPECTRA.items(), SIGNS.items()):
            diagonal = np.multiply(spectrum, pair)
            yield {"kind": "spectrum", "name": f"{name} {signs}", "dim": dim, "diagonal": diagonal}
    for ratio, signs in product((0.5, 0.8, 1, 1.5, 2, 3, 5, 10, 20), ("positive", "mixed")):
        yield {"kind": "samples", "name": f"{ratio:g} dof {signs}", "ratio": ratio, "signs": signs}
    for ratio, signs in product((0.5, 1, 1.5, 2, 3), ("positive", "mixed")):
        yield {
            "kind": "samples",
            "name": f"{ratio:g} dof {signs}",
            "ratio": ratio,
            "signs": signs,
            "dim": 60,
        }
    for inputs, targets in product(
        (1e-20, 1e-9, 1e-4, 1e5, 1e10, 1e20), (1e-20, 1e-8, 1, 1e8, 1e20)
    ):
        yield {"kind": "scale", "name": f"X {inputs:g} y {targets:g}", "units": (inputs, targets)}
    for dim, inputs, targets in product((1, 60), (1e-20, 1, 1e20), (1e-20, 1e20)):
        name = f"X {inputs:g} y {targets:g}"
        yield {"kind": "scale", "name": name, "units": (inputs, targets), "dim": dim}
    for noise, signs in product((1e-8, 1e-4, 0.01, 0.1, 1, 10, 1e3), ("positive", "mixed")):
        yield {"kind": "noise", "name": f"{noise:g} {signs}", "noise": noise, "signs": signs}
    for dim, noise in product((1, 3, 60), (1e-4, 0.1, 10)):
        yield {"kind": "noise", "name": f"{noise:g}", "noise": noise, "dim": dim}
    for share, size in product((0.01, 0.05, 0.2), (1e2, 1e6)):
        yield {"kind": "outliers", "name": f"{share:g} of {size:g}", "outliers": (share, size)}
    for law, noise in product(LAWS, (0.0, 0.1)):
        yield {"kind": "law", "name": f"{law} noise {noise:g}", "law": law, "noise": noise}
    for law in ("laplace", "cauchy", "rademacher"):
        yield {"kind": "law", "name": law, "law": law, "dim": 60}
    for columns, noise in product(
        ("duplicate", "constant", "zero", "rank one", "mixed scales", "twice the rows"), (0.0, 0.1)
    ):
        name = f"{columns} noise {noise:g}"
        yield {"kind": "columns", "name": name, "columns": columns, "noise": noise}
    for weights in ("random", "zero with garbage", "huge", "tiny", "three alone"):
        yield {"kind": "weights", "name": weights, "weights": weights}
    for rank, noise in product((1, 3, 5, 8), (0.0, 0.1)):
        diagonal = np.where(np.arange(rank) % 2, -1.0, 1.0)
        name = f"{rank} noise {noise:g}"
        yield {"kind": "rank", "name": name, "diagonal": diagonal, "noise": noise}
    for offset in (10.0, 1e4, 1e8):
        yield {"kind": "offset", "name": f"{offset:g}", "offset": offset}
    for start, noise in product(STARTS, (0.0, 0.1)):
        name = f"{start} noise {noise:g}"
        yield {"kind": "start", "name": name, "start": start, "noise": noise}
    for spoilt in (
        "zero inputs",
        "zero targets",
        "constant targets",
        "NaN input",
        "infinite target",
    ):
        yield {"kind": "spoilt", "name": spoilt, "spoilt": spoilt}


def _build(
    seed: int,
    kind: str,
    name: str,
    dim: int = 8,
    diagonal: np.ndarray | None = None,
    signs: str = "mixed",
    ratio: float = 6.0,
    units: tuple[float, float] = (1.0, 1.0),
    noise: float = 0.0,
    outliers: tuple[float, float] = (0.0, 0.0),
    law: str = "gauss",
    columns: str = "",
    weights: str = "",
    offset: float = 0.0,
    start: str = "",
    spoilt: str = "",
) -> Problem:
    rng = np.random.default_rng(seed)
    rank, capacity = rank_asked(dim), CAPACITY[dim]
    if diagonal is None:
        diagonal = np.multiply(SPECTRA["even"], SIGNS[signs])
    diagonal = diagonal[:dim]
    dof = rank * dim - rank * (rank - 1) // 2
    rows = int(min(capacity, max(1, round(ratio * dof))))
    inputs = _columns(_draw(rng, law, rows, dim), columns)
    factor = np.linalg.qr(rng.normal(size=(dim, len(diagonal))))[0]
    targets = (inputs @ factor) ** 2 @ diagonal
    targets = targets + noise * rng.normal(size=rows)
    spoilt_rows = rng.permutation(rows)[: round(outliers[0] * rows)]
    targets[spoilt_rows] += outliers[1] * rng.normal(size=len(spoilt_rows))
    targets = targets + offset
    weight = _weights(rng, weights, rows)
    if weights == "zero with garbage":
        inputs[weight == 0], targets[weight == 0] = 7.0, -1e3
    begin = _start(rng, start, factor, diagonal, rank)
    inputs, targets = _spoil(inputs * units[0], targets * units[1], spoilt)
    missing = capacity - rows
    return Problem(
        kind,
        f"{kind}: p = {dim}, {name}",
        np.pad(inputs, ((0, missing), (0, 0))),
        np.pad(targets, (0, missing)),
        np.pad(weight, (0, missing)),
        factor,
        diagonal * units[1] / units[0] / units[0],
        bool(not (noise or outliers[0] or spoilt) and np.count_nonzero(diagonal) <= rank),
        begin,
    )


def _draw(rng: np.random.Generator, law: str, rows: int, dim: int) -> np.ndarray:
    shape = rows, dim
    if law == "one-hot":
        return np.eye(dim)[rng.integers(dim, size=rows)]
    drawn: dict[str, np.ndarray] = {
        "gauss": rng.normal(size=shape),
        "uniform": rng.uniform(-1, 1, size=shape),
        "laplace": rng.laplace(size=shape),
        "student": rng.standard_t(3, size=shape),
        "cauchy": rng.standard_cauchy(size=shape),
        "rademacher": rng.choice([-1.0, 1.0], size=shape),
        "shifted": 100 + rng.normal(size=shape),
    }
    return drawn[law]


def _columns(inputs: np.ndarray, columns: str) -> np.ndarray:
    if columns == "duplicate":
        inputs[:, 1] = inputs[:, 0]
    elif columns == "constant":
        inputs[:, 1] = 1.0
    elif columns == "zero":
        inputs[:, 1] = 0.0
    elif columns == "rank one":
        inputs = inputs[:, :1] * np.arange(1.0, inputs.shape[1] + 1)
    elif columns == "mixed scales":
        inputs = inputs * 10.0 ** np.linspace(-8, 8, inputs.shape[1])
    elif columns == "twice the rows":
        inputs[len(inputs) // 2 :] = inputs[: len(inputs) - len(inputs) // 2]
    return inputs


def _weights(rng: np.random.Generator, weights: str, rows: int) -> np.ndarray:
    if weights == "random":
        return rng.exponential(size=rows)
    if weights == "zero with garbage":
        return np.arange(rows) % 2.0
    if weights == "three alone":
        return (np.arange(rows) < 3) * 1.0
    return np.full(rows, {"huge": 1e30, "tiny": 1e-30}.get(weights, 1.0))


def _start(
    rng: np.random.Generator, start: str, factor: np.ndarray, diagonal: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray] | None:
    random = np.linalg.qr(rng.normal(size=(len(factor), rank)))[0]
    full = np.linalg.qr(np.concatenate([factor, rng.normal(size=factor.shape)], axis=1))[0]
    starts = {
        "zero": (np.zeros_like(random), np.zeros(rank)),
        "far": (random, np.array([1e6, -1e6][:rank])),
        "tiny": (random, np.array([1e-12, -1e-12][:rank])),
        "opposite": (factor, -diagonal),
        "random": (random, np.ones(rank)),
        "one column": (np.repeat(random[:, :1], rank, axis=1), np.ones(rank)),
        "orthogonal": (full[:, -rank:], np.ones(rank)),
    }
    return starts.get(start)


def _spoil(inputs: np.ndarray, targets: np.ndarray, spoilt: str) -> tuple[np.ndarray, np.ndarray]:
    if spoilt == "zero inputs":
        return np.zeros_like(inputs), targets
    if spoilt == "zero targets":
        return inputs, np.zeros_like(targets)
    if spoilt == "constant targets":
        return inputs, np.full_like(targets, 3.7)
    if spoilt == "NaN input":
        inputs[0, 0] = np.nan
    if spoilt == "infinite target":
        targets[0] = np.inf
    return inputs, targets
