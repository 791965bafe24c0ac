"""Lifting: a quadratic network is a linear measurement of a low-rank matrix."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxpoly import kernels
from jaxpoly.lowrank import LowRank
from jaxpoly.memory import check_dense
from jaxpoly.precision import matmul, matmul_rows
from jaxpoly.validation import (
    check_block,
    check_choice,
    check_lifting,
    check_low_rank,
    check_vector,
)

Debias = Literal["centre", "trace", "none"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lifting:
    """The measurement `A(L)_i = <x_i x_i^T, L> = x_i^T L x_i`.

    Attributes:
        inputs: X, shape (m, p), one sample a row: an array, whole on one device or with
            its rows over several; `HalfPrecision`; or `StreamedRows`, on disk.
        sample_weight: w >= 0, shape (m,), or None for equal weights.  A zero
            switches a sample off, so that one compiled shape serves every m; it
            does not neutralise NaN in its row.
        linear_basis: (p, k) where the fit has linear terms, built by
            `with_linear_terms`; None for a fit without.

    The constructor does not check; `measure`, `backproject` and `solve` do.

    >>> import jax.numpy as jnp
    >>> measure(Lifting(jnp.eye(2)), LowRank(jnp.ones((2, 1)), jnp.array([2.0]))).tolist()
    [2.0, 2.0]
    """

    inputs: Any
    sample_weight: Array | None = None
    linear_basis: Array | None = None


def measure(lifting: Lifting, low_rank: LowRank) -> Array:
    """Measure a low-rank matrix: `A(L)_i = sum_j d_j (x_i . f_j)^2`.

    Args:
        lifting: the inputs X, (m, p).
        low_rank: L with factor (p, r) and diagonal (r,).

    Returns:
        The measurements, (m,).  One read of X.

    Raises:
        ValueError, TypeError: shapes that do not fit, or data that are not real numbers.

    >>> import jax.numpy as jnp
    >>> measure(Lifting(jnp.eye(2)), LowRank(jnp.eye(2), jnp.array([1.0, -2.0]))).tolist()
    [1.0, -2.0]
    """
    lifting = check_lifting(lifting)
    low_rank = check_low_rank(low_rank, lifting.inputs, "low_rank")
    return quadratic_forms(kernels.project(lifting.inputs, low_rank.factor), low_rank.diagonal)


def quadratic_forms(products: Array, diagonal: Array) -> Array:
    """Return `x_i^T F diag(d) F^T x_i` for every row, (m,), given X F."""
    # No matrix product, so that it fuses, in batches too; but not with the product before it,
    # which jaxlib 0.10.2 to 0.12.0 get wrong on CPU where all entries of F are one number, such
    # as 0.
    squares = products**2 * diagonal[None, :]
    return jnp.sum(jnp.where(jnp.isnan(products), products, squares), axis=1)


def backproject(lifting: Lifting, residual: ArrayLike, block: ArrayLike) -> Array:
    """Apply the adjoint of `measure` to a block, without forming it.

    `(1 / sum w) sum_i w_i residual_i x_i (x_i . block)`; the adjoint identity is
    `<measure(L), w v> = (sum w) <L, backproject(v)>`.

    Args:
        lifting: the inputs X, (m, p), and weights.
        residual: one number a sample, (m,).
        block: (p, k).

    Returns:
        (p, k).  One read of X where it is read in row blocks, see `kernels`, else two.

    Raises:
        ValueError, TypeError: shapes that do not fit, or data that are not real numbers.

    >>> import jax.numpy as jnp
    >>> backproject(Lifting(jnp.eye(2)), jnp.array([1.0, 3.0]), jnp.eye(2)).tolist()
    [[0.5, 0.0], [0.0, 1.5]]
    """
    lifting = check_lifting(lifting)
    residual = check_vector("residual", residual, lifting.inputs)
    block = check_block(block, lifting.inputs)
    row_weight = normalised_weight(lifting) * residual
    return kernels.sweep(lifting.inputs, block, scale_rows, row_weight)[0]


def scale_rows(products: Array, row_weight: Array) -> Array:
    """Return `diag(row_weight) products`; see `kernels.sweep`."""
    return row_weight[:, None] * products


def normalised_weight(lifting: Lifting) -> Array:
    """Return `w_i / sum w`, (m,); all zero where the sum is zero, NaN where it is not finite."""
    num_samples = lifting.inputs.shape[0]
    if lifting.sample_weight is None:
        return jnp.full((num_samples,), 1 / num_samples, lifting.inputs.dtype)
    # By the largest first, so that the sum does not overflow; its inverse must not vanish, and
    # its derivative cancels.
    info = jnp.finfo(lifting.sample_weight.dtype)
    largest = jnp.minimum(jnp.max(lifting.sample_weight), 2.0 ** (info.maxexp - 4))
    peak = lax.stop_gradient(largest)
    weight = lifting.sample_weight / jnp.where(peak > 0, peak, 1)
    total = jnp.sum(weight)
    # NaN and infinity stay visible.
    usable = (total > 0) & jnp.isfinite(total)
    return jnp.where(usable, weight / jnp.where(usable, total, 1), 0 * total)


def weighted_mean(lifting: Lifting, values: Array) -> Array:
    """Return `sum_i w_i values_i / sum w`, a scalar."""
    return jnp.sum(normalised_weight(lifting) * values)


def weighted_norm(lifting: Lifting, values: Array) -> Array:
    """Return `sqrt(sum_i w_i values_i^2 / sum w)`, a scalar, without overflow or underflow."""
    weight = normalised_weight(lifting)
    counted = jnp.where(weight == 0, 0, values)
    peak = jnp.max(jnp.abs(counted))
    unit = counted / jnp.where(peak > 0, peak, 1)
    return peak * jnp.sqrt(jnp.sum(weight * unit**2))


def fitted_affine(lifting: Lifting, residual: Array, debias: Debias) -> tuple[Array, Array]:
    """Return the intercept c and the linear coefficients b that the fit adds to A(L).

    They minimise `E[(residual + X b + c)^2]`, plus the ridge of `with_linear_terms`.
    b (p,) is zero without linear terms, c is zero unless `debias="centre"`.
    """
    inputs, basis = lifting.inputs, lifting.linear_basis
    linear = jnp.zeros((inputs.shape[1],), residual.dtype)
    if debias != "centre":
        return jnp.zeros((), residual.dtype), linear
    intercept = -weighted_mean(lifting, residual)
    if basis is None:
        return intercept, linear
    row_weight = normalised_weight(lifting) * (residual + intercept)
    linear = -matmul(basis, matmul_rows(basis, kernels.back_project(inputs, row_weight)))
    return -weighted_mean(lifting, residual + kernels.project(inputs, linear)), linear


def centre(lifting: Lifting, values: Array, debias: Debias) -> Array:
    """Add the fitted affine part to `values`: for `debias="centre"` they lose their mean."""
    intercept, linear = fitted_affine(lifting, values, debias)
    if lifting.linear_basis is None:
        return values + intercept
    return values + kernels.project(lifting.inputs, linear) + intercept


def fitted_norm(lifting: Lifting, residual: Array, debias: Debias) -> Array:
    """Return the norm of the residual after the affine fit, with the ridge of that fit.

    `sqrt(min over b, c of E[(residual + X b + c)^2] + ridge |b|^2)`, a scalar: what
    the gradient is the gradient of.
    """
    centred = centre(lifting, residual, debias)
    norm = weighted_norm(lifting, centred)
    if lifting.linear_basis is None:
        return norm
    # At the minimum the penalty is the inner product of what is left and what was removed.
    removed = centre(replace(lifting, linear_basis=None), residual, debias) - centred
    size = weighted_norm(lifting, removed)
    unit = jnp.where(norm > 0, norm, 1), jnp.where(size > 0, size, 1)
    cosine = weighted_mean(lifting, (centred / unit[0]) * (removed / unit[1]))
    # Without a ridge the two are orthogonal up to rounding, which must not pass for a penalty.
    rounding = 100 * jnp.finfo(residual.dtype).eps * size
    cosine = jnp.where(cosine * norm > rounding, cosine, 0)
    return jnp.hypot(norm, jnp.sqrt(cosine) * jnp.sqrt(norm) * jnp.sqrt(size))


def gradient_parts(lifting: Lifting, residual: Array, debias: Debias) -> tuple[Array, Array]:
    """Return row weights v, (m,), and s with `G = X^T diag(v) X - s I`, see `gradient_map`."""
    row_weight = normalised_weight(lifting) * centre(lifting, residual, debias) / 2
    if debias == "trace":
        # The identity has the units of x x^T.
        unit = kernels.unit(lifting.inputs)
        return row_weight, jnp.sum(row_weight) / unit / unit
    return row_weight, jnp.zeros((), residual.dtype)


def _check_gradient(lifting: Lifting, residual: Array, debias: Debias) -> tuple[Lifting, Array]:
    check_choice("debias", debias, ("centre", "trace", "none"))
    lifting = check_lifting(lifting)
    return lifting, check_vector("residual", residual, lifting.inputs)


def gradient_map(
    lifting: Lifting, residual: Array, debias: Debias = "centre"
) -> Callable[[Array], Array]:
    """Return the debiased gradient G as a map of blocks, (p, k) to (p, k).

    With res = A(L) - y and weighted means E over the samples:

    - `"centre"`: `G = E[(res - E res) x x^T] / 2`, half the gradient of the
      least squares loss `E(res + c)^2 / 2` whose intercept c is fitted freely,
      for any law of x.  Subtracting the mean from res alone is enough: it is the
      same as subtracting the means of res and of x x^T.
    - `"trace"`: `G = (E[res x x^T] - E[res] I) / 2`, the paper's correction,
      unbiased for x ~ N(0, I) only (doi 10.1109/TSP.2019.2916743).
    - `"none"`: `G = E[res x x^T] / 2`, the plain gradient.

    For x ~ N(0, I) the expectation of the first two is `L - L*`.

    Raises:
        ValueError, TypeError: shapes that do not fit, data that are not real
            numbers, another `debias`.

    >>> import jax.numpy as jnp
    >>> gradient = gradient_map(Lifting(jnp.eye(2)), jnp.array([1.0, 3.0]))
    >>> gradient(jnp.eye(2)).tolist()
    [[-0.25, 0.0], [0.0, 0.25]]
    """
    lifting, residual = _check_gradient(lifting, residual, debias)
    row_weight, shift = gradient_parts(lifting, residual, debias)

    def gradient(block: Array) -> Array:
        return kernels.sweep(lifting.inputs, block, scale_rows, row_weight)[0] - shift * block

    return gradient


def dense_gradient(lifting: Lifting, residual: Array, debias: Debias = "centre") -> Array:
    """Return the debiased gradient of `gradient_map` as a (p, p) array, O(m p^2).

    Arguments and errors as there, and ValueError where (p, p) does not fit into memory.

    >>> import jax.numpy as jnp
    >>> dense_gradient(Lifting(jnp.eye(2)), jnp.array([1.0, 3.0])).tolist()
    [[-0.25, 0.0], [0.0, 0.25]]
    """
    lifting, residual = _check_gradient(lifting, residual, debias)
    dim = lifting.inputs.shape[1]
    check_dense("dense_gradient", dim, residual.dtype, 1, "jaxpoly.gradient_map")
    row_weight, shift = gradient_parts(lifting, residual, debias)
    gram = kernels.weighted_gram(lifting.inputs, row_weight)
    if debias == "trace":
        return gram - shift * jnp.eye(gram.shape[0], dtype=gram.dtype)
    return gram
