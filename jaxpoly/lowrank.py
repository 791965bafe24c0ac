"""Symmetric matrices of low rank, kept as a factor and a diagonal.

>>> import jax.numpy as jnp
>>> one = LowRank(jnp.eye(3)[:, :1], jnp.array([-3.0]))
>>> trace(add(one, scale(one, 2.0))).item(), norm(one).item(), inner(one, one).item()
(-9.0, 3.0, 9.0)
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxpoly.precision import matmul, matmul_rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRank:
    """A symmetric matrix `L = F diag(d) F^T`.

    Attributes:
        factor: F, shape (p, r); the columns need not be orthonormal.
        diagonal: d, shape (r,); the signs of L live here.

    >>> import jax.numpy as jnp
    >>> to_dense(LowRank(jnp.ones((2, 1)), jnp.array([-3.0]))).tolist()
    [[-3.0, -3.0], [-3.0, -3.0]]
    """

    factor: Array
    diagonal: Array


def zeros(dim: int, rank: int, dtype: jnp.dtype) -> LowRank:
    """Return the zero matrix with room for `rank` columns."""
    return LowRank(jnp.zeros((dim, rank), dtype), jnp.zeros((rank,), dtype))


def apply(low_rank: LowRank, block: Array) -> Array:
    """Apply `L block`, (p, k) to (p, k), without forming L."""
    inner_products = matmul_rows(low_rank.factor, block)
    return matmul(low_rank.factor, low_rank.diagonal[:, None] * inner_products)


def to_dense(low_rank: LowRank) -> Array:
    """Return L as a (p, p) array, for small p.

    >>> import jax.numpy as jnp
    >>> to_dense(LowRank(jnp.ones((2, 1)), jnp.array([2.0]))).tolist()
    [[2.0, 2.0], [2.0, 2.0]]
    """
    return matmul(low_rank.factor * low_rank.diagonal[None, :], low_rank.factor.T)


def scale(low_rank: LowRank, scalar: Array | float) -> LowRank:
    """Return `scalar * L`."""
    return LowRank(low_rank.factor, scalar * low_rank.diagonal)


def add(left: LowRank, right: LowRank) -> LowRank:
    """Return `left + right` exactly, as a sum of rank r_left + r_right."""
    return LowRank(
        jnp.concatenate([left.factor, right.factor], axis=1),
        jnp.concatenate([left.diagonal, right.diagonal]),
    )


def trace(low_rank: LowRank) -> Array:
    """Return `tr L = sum_j d_j |f_j|^2`, a scalar."""
    return jnp.sum(low_rank.diagonal * jnp.sum(low_rank.factor**2, axis=0))


def inner(left: LowRank, right: LowRank) -> Array:
    """Return `<left, right> = tr(left right)`, a scalar."""
    overlaps = matmul_rows(left.factor, right.factor) ** 2
    return matmul(left.diagonal, matmul(overlaps, right.diagonal))


def core(low_rank: LowRank) -> tuple[Array, Array]:
    """Return `(Q, C)` with `L = Q C Q^T`, Q (p, k) orthonormal and C (k, k), k = min(p, r).

    The QR factorisation keeps differences of nearly equal matrices accurate to
    rounding, where sums of inner products would lose half of the digits.
    """
    basis, triangle = jnp.linalg.qr(low_rank.factor)
    return basis, matmul(triangle * low_rank.diagonal[None, :], triangle.T)


def norm(low_rank: LowRank) -> Array:
    """Return the Frobenius norm of L, a scalar, accurate under cancellation and at any scale."""
    small = core(low_rank)[1]
    peak = jnp.max(jnp.abs(small))
    return peak * jnp.linalg.norm(small / jnp.where(peak > 0, peak, 1))


def guarded_eigh(matrix: Array) -> tuple[Array, Array]:
    """Return eigenvalues and eigenvectors; all NaN if any entry is not finite.

    LAPACK may answer a matrix with one NaN with partly finite numbers, and some
    decompositions never return on an infinity.
    """
    finite = jnp.isfinite(matrix).all()
    symmetric = (matrix + matrix.T) / 2
    eigenvalues, eigenvectors = jnp.linalg.eigh(jnp.where(finite, symmetric, jnp.nan))
    return eigenvalues, jnp.where(finite, eigenvectors, jnp.nan)


def truncate_matrix(matrix: Array, rank: int, positive: bool = False) -> LowRank:
    """Return the best rank-`rank` approximation of a symmetric (n, n) matrix.

    Keeps the eigenvalues of largest magnitude with their sign, in descending
    order of magnitude, or the largest positive ones (negative ones become zero)
    for `positive=True`.  The factor (n, rank) is orthonormal, also where the
    matrix has lower rank.

    >>> import jax.numpy as jnp
    >>> truncate_matrix(jnp.diag(jnp.array([1.0, -3.0, 2.0])), rank=2).diagonal.tolist()
    [-3.0, 2.0]
    """
    eigenvalues, eigenvectors = guarded_eigh(matrix)
    importance = eigenvalues if positive else jnp.abs(eigenvalues)
    kept = jnp.argsort(-importance)[:rank]
    diagonal = eigenvalues[kept]
    if positive:
        diagonal = jnp.maximum(diagonal, 0)
    return LowRank(eigenvectors[:, kept], diagonal)


def eigen_form(low_rank: LowRank, rank: int | None = None, positive: bool = False) -> LowRank:
    """Return the best approximation of L of rank `rank` in eigenvector form.

    `L = V diag(lambda) V^T` with V (p, rank) orthonormal and `|lambda|` descending;
    `rank=None` keeps the number of columns, at most p.  A rank above the number of
    columns is filled with zero eigenvalues.  Cost O(p r^2), never p x p.

    >>> import jax.numpy as jnp
    >>> eigen_form(LowRank(2 * jnp.eye(3)[:, :1], jnp.array([-1.0])), rank=2).diagonal.tolist()
    [-4.0, 0.0]
    """
    columns = low_rank.diagonal.shape[0]
    rank = columns if rank is None else rank
    if rank > columns:
        fill = zeros(low_rank.factor.shape[0], rank - columns, low_rank.factor.dtype)
        low_rank = add(low_rank, fill)
    basis, small = core(low_rank)
    kept = truncate_matrix(small, rank, positive)
    return LowRank(matmul(basis, kept.factor), kept.diagonal)
