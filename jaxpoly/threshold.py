"""Rank-r hard thresholding of a symmetric operator given as a map of blocks.

`threshold(block_map, dim, key, basis)` returns `(LowRank, basis)`: an orthonormal
factor (p, r) with the eigenvalues of largest magnitude, sign kept, and a basis
(p, k) that can be handed to the next call as its warm start.  The dtype is that of
the basis; without one it is JAX's default float.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxpoly.lowrank import LowRank, truncate_matrix
from jaxpoly.memory import check_dense
from jaxpoly.precision import matmul, matmul_rows
from jaxpoly.static import static
from jaxpoly.validation import check_count, check_rank_fits

BlockMap = Callable[[Array], Array]


def rayleigh_ritz(basis: Array, image: Array, rank: int, positive: bool = False) -> LowRank:
    """Return the leading Ritz pairs of M on the span of an orthonormal basis.

    Args:
        basis: Q (p, n) with orthonormal columns, n >= rank.
        image: M Q (p, n).
        rank: how many pairs, by magnitude (by value for `positive=True`).

    Returns:
        `Z diag(theta) Z^T`, the best rank-`rank` approximation of `Q Q^T M Q Q^T`.
    """
    small = truncate_matrix(matmul_rows(basis, image), rank, positive)
    return LowRank(matmul(basis, small.factor), small.diagonal)


def block_krylov(block_map: BlockMap, start: Array, depth: int) -> tuple[Array, Array]:
    """Return an orthonormal basis Q of `span[S, M S, ..., M^depth S]` and M Q.

    Args:
        block_map: M, symmetric, (p, k) to (p, k).
        start: S (p, b) with b <= p.
        depth: powers of M; the map is applied `depth + 1` times to (p, b).

    Returns:
        Q and M Q, each (p, min(p, b (depth + 1))).  The leading b columns of Q
        span S.  Where the Krylov space is exhausted (M of low rank, repeated
        eigenvalues) Q goes on with arbitrary orthonormal columns, so it is
        always a basis.
    """
    dim, width = start.shape
    basis = jnp.linalg.qr(start)[0]
    image = block_map(basis)
    latest = image
    for _ in range(depth):
        have = basis.shape[1]
        room = min(width, dim - have)
        if room == 0:
            break
        grown = orthonormal_complement(basis, latest[:, :room])
        latest = block_map(grown)
        basis = jnp.concatenate([basis, grown], axis=1)
        image = jnp.concatenate([image, latest], axis=1)
    return basis, image


def orthonormal_complement(basis: Array, block: Array) -> Array:
    """Return orthonormal columns (p, b), orthogonal to `basis`, that span what `block` adds to it.

    Where the block adds less than b dimensions the rest is arbitrary: Householder QR fills
    it with orthonormal columns, and the next rounds make them orthogonal to the basis.
    """

    def improve(_: int, block: Array) -> Array:
        return jnp.linalg.qr(block - matmul(basis, matmul_rows(basis, block)))[0]

    # Twice is enough for what the block adds, and twice more for what is filled in.
    return lax.fori_loop(0, 4, improve, block)


def random_block(key: Array, dim: int, width: int, warm: Array) -> Array:
    """Return a (p, width) block: the leading columns of `warm` (p, k), then Gaussian ones."""
    warm = warm[:, :width]
    missing = width - warm.shape[1]
    # Drawn in one dimension: the same numbers as in two, compiled in a quarter of the time.
    fresh = jax.random.normal(key, (dim * missing,), warm.dtype).reshape(dim, missing)
    return jnp.concatenate([warm, fresh], axis=1)


def _no_basis(dim: int) -> Array:
    return jnp.zeros((dim, 0), jnp.result_type(float))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EighThreshold:
    """Exact rank-r thresholding by a dense eigendecomposition, O(p^3).

    Forms the (p, p) matrix by applying the map to the identity.

    Attributes:
        rank: r, at least 1 and at most p.
        positive: keep the positive part only (projection on the PSD cone).
    """

    rank: int = static()
    positive: bool = static(False)

    def __call__(
        self, block_map: BlockMap, dim: int, key: Array | None = None, basis: Array | None = None
    ) -> tuple[LowRank, Array]:
        """Return the best rank-r approximation and its eigenvectors (p, r).

        >>> import jax.numpy as jnp
        >>> matrix = jnp.diag(jnp.array([1.0, -3.0, 2.0]))
        >>> EighThreshold(rank=1)(lambda block: matrix @ block, dim=3)[0].diagonal.tolist()
        [-3.0]
        """
        check_count("rank", self.rank, 1)
        check_rank_fits(self.rank, dim)
        basis = _no_basis(dim) if basis is None else basis
        # The identity, its image and the eigenvectors.
        check_dense("EighThreshold", dim, basis.dtype, 3, "jaxpoly.KrylovThreshold")
        identity = jnp.eye(dim, dtype=basis.dtype)
        low_rank = truncate_matrix(block_map(identity), self.rank, self.positive)
        return low_rank, low_rank.factor


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KrylovThreshold:
    """Approximate rank-r thresholding by randomised block Krylov iteration.

    Musco & Musco, "Randomized block Krylov methods for stronger and faster
    approximate singular value decomposition", NeurIPS 2015 (arXiv:1504.05477);
    the MBK-SVD of Soltani & Hegde (doi 10.1109/TSP.2019.2916743) with its block
    r + 5 and depth `ceil(log p / sqrt(accuracy))`.  Deviations: M is symmetric,
    so all powers of M are used, not the odd ones only, and the Ritz pairs come
    from Q^T M Q, which keeps the sign of the eigenvalues; every block is
    orthonormalised against all the former ones; a `basis` handed in takes the
    first columns of the random block.

    Attributes:
        rank: r, at least 1 and at most p.
        positive: keep the positive part only (projection on the PSD cone).
        block_size: columns of a block, at least r; None for r + 5.
        depth: powers of M; None for the formula above.
        accuracy: the eps of the formula, the relative excess of the spectral
            error; not used where `depth` is given.
    """

    rank: int = static()
    positive: bool = static(False)
    block_size: int | None = static(None)
    depth: int | None = static(None)
    accuracy: float = static(0.5)

    def __call__(
        self, block_map: BlockMap, dim: int, key: Array, basis: Array | None = None
    ) -> tuple[LowRank, Array]:
        """Return a rank-r approximation and its Ritz vectors (p, r).

        Applies the map `depth + 1` times to at most `block_size` columns.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> matrix = jnp.diag(jnp.arange(1.0, 31.0))
        >>> krylov = KrylovThreshold(rank=2)
        >>> low_rank, _ = krylov(lambda block: matrix @ block, dim=30, key=jax.random.key(0))
        >>> low_rank.diagonal.round(2).tolist()
        [30.0, 29.0]
        """
        check_count("rank", self.rank, 1)
        check_rank_fits(self.rank, dim)
        width = self.rank + 5 if self.block_size is None else self.block_size
        check_count("block_size", width, self.rank)
        if not self.accuracy > 0:
            raise ValueError(f"accuracy is {self.accuracy}; expected a positive number")
        depth = krylov_depth(dim, self.accuracy) if self.depth is None else self.depth
        check_count("depth", depth, 0)
        basis = _no_basis(dim) if basis is None else basis
        start = random_block(key, dim, min(width, dim), basis)
        low_rank = rayleigh_ritz(*block_krylov(block_map, start, depth), self.rank, self.positive)
        return low_rank, low_rank.factor


def krylov_depth(dim: int, accuracy: float = 0.5) -> int:
    """Return the depth `ceil(log p / sqrt(accuracy))` of the block Krylov bound, at least 1."""
    return max(1, math.ceil(math.log(dim) / math.sqrt(accuracy)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SubspaceThreshold:
    """Approximate rank-r thresholding by warm-started subspace iteration.

    `Q <- orth(M Q)` `num_iters` times from the basis of the former call, then
    Ritz pairs from Q^T M Q.  Made for a sequence of operators that change
    slowly, as the iterates of a solver do: one iteration a call tracks them.
    For `positive=True` M is shifted where its negative end is the larger one, so
    that large negative eigenvalues do not crowd out small positive ones.

    Attributes:
        rank: r, at least 1 and at most p.
        positive: keep the positive part only (projection on the PSD cone).
        oversample: further columns carried, at least 0; None for r + 5.
        num_iters: multiplications by M before the Ritz step, at least 0.
    """

    rank: int = static()
    positive: bool = static(False)
    oversample: int | None = static(None)
    num_iters: int = static(1)

    def __call__(
        self, block_map: BlockMap, dim: int, key: Array, basis: Array | None = None
    ) -> tuple[LowRank, Array]:
        """Return a rank-r approximation and the basis (p, k) of all Ritz vectors.

        k = min(p, rank + oversample).  Applies the map `num_iters + 1` times to
        k columns.  Columns missing from `basis` are drawn at random.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> matrix = jnp.diag(jnp.arange(1.0, 31.0))
        >>> subspace, basis = SubspaceThreshold(rank=2), None
        >>> for i in range(20):
        ...     low_rank, basis = subspace(lambda b: matrix @ b, 30, jax.random.key(i), basis)
        >>> low_rank.diagonal.round(1).tolist()
        [30.0, 29.0]
        """
        check_count("rank", self.rank, 1)
        check_rank_fits(self.rank, dim)
        extra = self.rank + 5 if self.oversample is None else self.oversample
        check_count("oversample", extra, 0)
        check_count("num_iters", self.num_iters, 0)
        basis = _no_basis(dim) if basis is None else basis
        start = random_block(key, dim, min(dim, self.rank + extra), basis)
        orthonormal = jnp.linalg.qr(start)[0]
        for _ in range(self.num_iters):
            image = block_map(orthonormal)
            if self.positive:
                # Shifted by what the negative end exceeds the r-th value, the positive
                # end leads; without an excess the iteration is as fast as unshifted.
                values = rayleigh_ritz(orthonormal, image, start.shape[1]).diagonal
                excess = -jnp.min(values) - jnp.sort(values)[-self.rank]
                image = image + jnp.maximum(excess, 0) * orthonormal
            orthonormal = jnp.linalg.qr(image)[0]
        ritz = rayleigh_ritz(orthonormal, block_map(orthonormal), start.shape[1])
        if self.positive:
            kept = jnp.argsort(-ritz.diagonal)[: self.rank]
            return LowRank(ritz.factor[:, kept], jnp.maximum(ritz.diagonal[kept], 0)), ritz.factor
        return LowRank(ritz.factor[:, : self.rank], ritz.diagonal[: self.rank]), ritz.factor
