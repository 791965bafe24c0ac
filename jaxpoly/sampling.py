"""Planted problems: a known quadratic network measured on random inputs."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxpoly.lifting import Lifting, measure
from jaxpoly.lowrank import LowRank
from jaxpoly.threshold import random_block
from jaxpoly.validation import check_choice, check_count, check_key, check_rank_fits

Law = Callable[..., Array]

_LAWS: dict[str, Law] = {
    "gaussian": jax.random.normal,
    "uniform": lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -(3**0.5), 3**0.5),
    "laplace": lambda key, shape, dtype: jax.random.laplace(key, shape, dtype) / 2**0.5,
    "student": lambda key, shape, dtype: jax.random.t(key, 6.0, shape, dtype) / 1.5**0.5,
    "rademacher": jax.random.rademacher,
}


class Problem(NamedTuple):
    """A planted problem.

    For an example see `sample_problem`.

    Attributes:
        lifting: inputs (capacity, p), and weights (capacity,) where a capacity was given.
        targets: y, (capacity,).
        truth: L*, a LowRank of rank r.
    """

    lifting: Lifting
    targets: Array
    truth: LowRank


def sample_truth(
    key: Array,
    dim: int,
    rank: int,
    signs: Literal["positive", "mixed"] = "mixed",
    spectrum: ArrayLike | None = None,
    condition: ArrayLike | None = None,
    dtype: jnp.dtype | None = None,
) -> LowRank:
    """Draw a random symmetric matrix of rank r; arguments and errors as in `sample_problem`.

    >>> import jax
    >>> sample_truth(jax.random.key(0), dim=50, rank=3).factor.shape
    (50, 3)
    """
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    key = check_key(key)
    rank = check_count("rank", rank, 1)
    check_rank_fits(rank, check_count("dim", dim, 1))
    check_choice("signs", signs, ("positive", "mixed"))
    factor = random_block(key, dim, rank, jnp.zeros((dim, 0), dtype))
    alternating = jnp.where(jnp.arange(rank) % 2 == 0, 1, -1).astype(dtype)
    diagonal = alternating if signs == "mixed" else jnp.ones((rank,), dtype)
    if spectrum is None and condition is None:
        return LowRank(factor, diagonal)
    if spectrum is not None and condition is not None:
        raise ValueError("both spectrum and condition are given; expected one of them")
    if condition is not None:
        _check_at_least("condition", condition, 1)
        spectrum = jnp.asarray(condition, dtype) ** -jnp.linspace(0, 1, rank, dtype=dtype)
    if spectrum is not None:
        _check_at_least("spectrum", spectrum, 0)
    spectrum = jnp.asarray(spectrum, dtype)
    if spectrum.shape != (rank,):
        raise ValueError(f"spectrum has shape {spectrum.shape}; expected ({rank},) to fit the rank")
    return LowRank(jnp.linalg.qr(factor)[0], diagonal * spectrum)


def _check_at_least(name: str, value: ArrayLike, minimum: float) -> None:
    """Refuse a known value below its minimum."""
    if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) >= minimum):
        raise ValueError(f"{name} is {value}; expected at least {minimum}")


def sample_problem(
    key: Array,
    num_samples: ArrayLike,
    dim: int,
    rank: int,
    signs: Literal["positive", "mixed"] = "mixed",
    noise: ArrayLike = 0.0,
    spectrum: ArrayLike | None = None,
    condition: ArrayLike | None = None,
    inputs: Literal["gaussian", "uniform", "laplace", "student", "rademacher"] | Law = "gaussian",
    capacity: int | None = None,
    dtype: jnp.dtype | None = None,
) -> Problem:
    """Draw `y_i = x_i^T L* x_i + noise * e_i` with a random L* of rank r.

    Args:
        key: a JAX random key.
        num_samples: m >= 1; a static integer, or any integer, traced or not, up to
            `capacity` where that is given.
        dim: p.
        rank: r <= p.
        signs: "positive" for a positive semidefinite L*, "mixed" for alternating
            signs +, -, +, ...
        noise: standard deviation of the Gaussian noise e, in units of y.
        spectrum: magnitudes of the eigenvalues, (r,); L* then has an orthonormal
            factor.  By default its factor is Gaussian, as in the paper's experiments:
            L* = U diag(signs) U^T with U_ij ~ N(0, 1).
        condition: ratio of largest to smallest magnitude; gives the spectrum
            1, ..., 1/condition with geometric spacing.
        inputs: law of the entries of x, independent with mean 0 and variance 1
            ("student" has 6 degrees of freedom); or a function
            `(key, shape, dtype) -> array` that draws all of them.
        capacity: number of rows to draw; rows from num_samples on get zero weight,
            so that one compiled program serves every m <= capacity.
        dtype: float dtype, by default JAX's.

    Returns:
        A `Problem` with fields lifting, targets and truth.

    Raises:
        ValueError, TypeError: sizes or options out of range.

    >>> import jax
    >>> problem = sample_problem(jax.random.key(0), num_samples=600, dim=50, rank=3)
    >>> problem.lifting.inputs.shape, problem.targets.shape
    ((600, 50), (600,))
    """
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    truth_key, inputs_key, noise_key = jax.random.split(check_key(key), 3)
    truth = sample_truth(truth_key, dim, rank, signs, spectrum, condition, dtype)
    _check_at_least("noise", noise, 0)
    if capacity is None:
        rows, weight = check_count("num_samples", num_samples, 1), None
    else:
        rows = check_count("capacity", capacity, 1)
        known = not isinstance(num_samples, jax.Array)
        if known and check_count("num_samples", num_samples, 1) > rows:
            raise ValueError(f"num_samples is {num_samples}, above the capacity {rows}")
        weight = (jnp.arange(rows) < num_samples).astype(dtype)
    if not callable(inputs):
        check_choice("inputs", inputs, tuple(_LAWS))
    law = inputs if callable(inputs) else _LAWS[inputs]
    lifting = Lifting(law(inputs_key, (rows, dim), dtype), weight)
    errors = jnp.asarray(noise, dtype) * jax.random.normal(noise_key, (rows,), dtype)
    return Problem(lifting, measure(lifting, truth) + errors, truth)
