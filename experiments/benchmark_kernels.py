"""The factored gradient: seconds of the kit's form beside one read of X and other forms.

`X^T diag(v) X U` with `v_i = sum_j d_j (x_i . u_j)^2 - y_i` takes 4 m p r operations, and
X has to be read once at least: a plain sum of X is the yardstick.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from experiments.benchmark_clock import Candidate, fastest, interleaved, typical_ratio
from experiments.session import Session
from jaxpoly import kernels

BLOCK_ROWS = 256


@dataclass(frozen=True)
class Config:
    """The grid of the factored gradient."""

    shapes: tuple[tuple[int, int], ...] = ((200_000, 100), (40_000, 1000), (10_000, 4000))
    """Samples and inputs (m, p) of one large problem."""
    ranks: tuple[int, ...] = (1, 5, 20)
    """Columns r of the factor."""
    batches: tuple[tuple[int, int, int, int], ...] = (
        (4, 500, 50, 3),
        (16, 500, 50, 3),
        (256, 500, 50, 3),
        (64, 1500, 100, 5),
    )
    """Problems, m, p and r of a batch."""
    dtypes: tuple[str, ...] = ("float32", "float64")
    """Types of the numbers."""
    repeats: int = 9
    """Rounds that a time is the median of."""


class Size(NamedTuple):
    """Problems in a batch, m, p, r and the dtype."""

    batch: int
    num_samples: int
    dim: int
    rank: int
    dtype: str

    @property
    def operations(self) -> int:
        """Additions and multiplications of the two products."""
        return 4 * self.batch * self.num_samples * self.dim * self.rank

    @property
    def num_bytes(self) -> int:
        """Size of X."""
        return self.batch * self.num_samples * self.dim * np.dtype(self.dtype).itemsize


class Data(NamedTuple):
    """X, U, d and y: numpy or jax arrays, with a leading axis for a batch."""

    inputs: Any
    factor: Any
    signs: Any
    targets: Any


def kit_gradient(inputs: Array, factor: Array, signs: Array, targets: Array) -> Array:
    """Return `X^T diag(v) X U` by what the kit offers for it; the signs are as drawn."""
    return kernels.sweep(inputs, factor, weigh, targets)[0]


def weigh(products: Array, targets: Array) -> Array:
    """Return the products times `v`, with signs that alternate; columns of zeros stay zero."""
    signs = 1 - 2 * (jnp.arange(products.shape[1]) % 2).astype(products.dtype)
    forms = jnp.sum(products**2 * signs[None, :], axis=1)
    return (forms - targets)[:, None] * products


def natural_gradient(inputs: Array, factor: Array, signs: Array, targets: Array) -> Array:
    """Return the same by the two products that one would write down in JAX."""
    products = inputs @ factor
    residual = (products**2) @ signs - targets
    return inputs.T @ (residual[:, None] * products)


def numpy_gradient(
    inputs: np.ndarray, factor: np.ndarray, signs: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """Return the same by BLAS, for one problem or, by batched products, for a batch."""
    products = inputs @ factor
    squares = (products**2) @ signs[..., None]
    residual = squares - targets[..., None]
    return np.swapaxes(inputs, -1, -2) @ (residual * products)


def blocked_gradient(
    inputs: np.ndarray, factor: np.ndarray, signs: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """Return the same by BLAS, block of rows by block, each of which stays in the cache."""
    total = np.zeros_like(factor)
    for first in range(0, len(inputs), BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        total += numpy_gradient(inputs[rows], factor, signs, targets[rows])
    return total


def run(config: Config, session: Session, seed: int) -> list[dict[str, Any]]:
    """Return a row for every size: seconds of all candidates, and the kit's rounding."""
    rows = []
    grid = list(sizes(config))
    with session.progress("kernels", len(grid), unit="size") as progress:
        for size in grid:
            measure = partial(compare, size, config.repeats, session.num_workers, seed)
            rows.append(session.ledger.recall(f"kernels/{size}", measure))
            progress.advance()
    return rows


def sizes(config: Config) -> Iterator[Size]:
    """Yield large problems, then batches."""
    for (num_samples, dim), rank, dtype in product(config.shapes, config.ranks, config.dtypes):
        yield Size(1, num_samples, dim, rank, dtype)
    for batch, dtype in product(config.batches, config.dtypes):
        yield Size(*batch, dtype)


def draw_data(size: Size, seed: int) -> Data:
    """Return random data as numpy arrays; mixed signs, targets of the size of the forms."""
    generator = np.random.default_rng(seed)
    lead = () if size.batch == 1 else (size.batch,)

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal((*lead, *shape), np.dtype(size.dtype).type)

    signs = np.where(np.arange(size.rank) % 2 == 0, 1, -1).astype(size.dtype)
    return Data(
        normal(size.num_samples, size.dim),
        normal(size.dim, size.rank) / np.sqrt(size.dim).astype(size.dtype),
        np.broadcast_to(signs, (*lead, size.rank)).copy(),
        normal(size.num_samples),
    )


def compare(size: Size, repeats: int, cores: int, seed: int) -> dict[str, Any]:
    """Return the seconds of every candidate, and how far the kit's gradient is from numpy's."""
    data = draw_data(size, seed)
    forms = candidates(size, data, cores)
    expected = numpy_gradient(*data)
    found = np.asarray(forms[next(name for name in forms if name.startswith("kit"))].call())
    return {
        "size": size._asdict(),
        "seconds": interleaved(forms, repeats),
        "difference": np.linalg.norm(found - expected) / np.linalg.norm(expected),
    }


def candidates(size: Size, data: Data, cores: int) -> dict[str, Candidate]:
    """Return the forms by name, those of numpy with BLAS on one thread and on all cores."""
    on_device = Data(*map(jnp.asarray, data))
    read = partial(jax.jit(jnp.sum), on_device.inputs)
    forms = {"one read": Candidate(read)}
    if size.batch == 1:
        forms["kit"] = Candidate(partial(jax.jit(kit_gradient), *on_device))
        forms["jax, two products"] = Candidate(partial(jax.jit(natural_gradient), *on_device))
        host: dict[str, Callable] = {"two products": numpy_gradient, "row blocks": blocked_gradient}
    else:
        for name, gradient in (("kit", kit_gradient), ("jax, two products", natural_gradient)):
            one_by_one = jax.jit(partial(_mapped, gradient))
            forms[f"{name}, vmap"] = Candidate(partial(jax.jit(jax.vmap(gradient)), *on_device))
            forms[f"{name}, lax.map"] = Candidate(partial(one_by_one, *on_device))
        host = {"loop": _loop, "batched product": numpy_gradient}
        threaded = partial(_threaded_loop, ThreadPoolExecutor(cores), cores, *data)
        forms["numpy, loop in threads"] = Candidate(threaded)
    for name, gradient in host.items():
        for threads in sorted({1, cores}):
            title = f"numpy, {name}, {threads} BLAS thread{'s' * (threads > 1)}"
            forms[title] = Candidate(partial(gradient, *data), threads)
    return forms


def _mapped(gradient: Callable[..., Array], *data: Array) -> Array:
    return lax.map(lambda problem: gradient(*problem), data)


def _loop(*data: np.ndarray) -> np.ndarray:
    return np.stack([numpy_gradient(*problem) for problem in zip(*data, strict=True)])


def _threaded_loop(pool: ThreadPoolExecutor, cores: int, *data: np.ndarray) -> np.ndarray:
    chunks = zip(*(np.array_split(array, cores) for array in data), strict=True)
    return np.concatenate(list(pool.map(lambda chunk: _loop(*chunk), chunks)))


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of the table: of the kit, and the ratios of the others to one read."""
    size, seconds = Size(**row["size"]), row["seconds"]
    best = {group: fastest(seconds, group) for group in ("kit", "jax", "numpy")}
    typical = median(seconds[best["kit"]])
    return {
        "size": size,
        "best": best,
        "gigaflops": size.operations / typical / 1e9,
        "gigabytes": size.num_bytes / typical / 1e9,
        "reads": {group: typical_ratio(seconds, name, "one read") for group, name in best.items()},
        "kit_over_numpy": typical_ratio(seconds, best["kit"], best["numpy"]),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as text; GB/s counts X once."""
    lines = [
        "Factored gradient X^T diag(v) X U: seconds in units of one read of X (a plain sum)",
        f"{'batch':>5}{'m':>8}{'p':>6}{'r':>4} {'dtype':<9}{'ms':>9}{'GFLOP/s':>9}{'GB/s':>7}"
        f"{'kit':>7}{'jax':>7}{'numpy':>7}{'kit/numpy':>11}  best of numpy",
    ]
    for row in rows:
        found = summary(row)
        size, reads = found["size"], found["reads"]
        milliseconds = 1e3 * median(row["seconds"][found["best"]["kit"]])
        lines.append(
            f"{size.batch:>5}{size.num_samples:>8}{size.dim:>6}{size.rank:>4} {size.dtype:<9}"
            f"{milliseconds:>9.3g}{found['gigaflops']:>9.3g}{found['gigabytes']:>7.3g}"
            f"{reads['kit']:>7.2g}{reads['jax']:>7.2g}{reads['numpy']:>7.2g}"
            f"{found['kit_over_numpy']:>11.2f}  {found['best']['numpy'].partition(', ')[2]}"
        )
    return "\n".join(lines)
