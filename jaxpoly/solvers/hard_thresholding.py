"""EP-ROM and AP-ROM: gradient steps followed by rank-r hard thresholding."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpoly import kernels, lowrank
from jaxpoly.lifting import Debias, Lifting, dense_gradient, quadratic_forms
from jaxpoly.lowrank import LowRank
from jaxpoly.memory import check_dense
from jaxpoly.precision import matmul, matmul_rows
from jaxpoly.solvers.krylov import KrylovSpace, krylov_space
from jaxpoly.solvers.options import check_options, choose_step_size
from jaxpoly.state import State
from jaxpoly.static import static
from jaxpoly.tangent import tangent_step
from jaxpoly.threshold import krylov_depth, random_block
from jaxpoly.validation import check_choice, check_count

Head = Literal["tangent", "krylov"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EpRom:
    """Exact projections for rank-one matrix estimation; `ep_rom` builds and documents it.

    The memory of its state is X V, (m, r), V the factor of the estimate.
    """

    step_size: Array | None
    rank: int = static()
    debias: Debias = static("centre")
    positive: bool = static(False)

    def init(
        self, lifting: Lifting, targets: Array, key: Array, start: LowRank | None = None
    ) -> State:
        """Return the state at `start`, by default L = 0."""
        # The gradient, the matrix moved by it and its eigenvectors.
        check_dense("ep_rom", lifting.inputs.shape[1], targets.dtype, 3, "jaxpoly.ap_rom")
        if start is None:
            gradient = dense_gradient(lifting, -targets, self.debias)
            start = _zero_on(lowrank.truncate_matrix(-gradient, self.rank, self.positive))
        start = lowrank.eigen_form(start, self.rank, self.positive)
        products = kernels.project(lifting.inputs, start.factor)
        return _first_state(products, targets, start, key, memory=products)

    def step(self, lifting: Lifting, targets: Array, state: State) -> State:
        """Return the state after one step, O(m p^2 + p^3)."""
        estimate, products = state.estimate, state.memory
        gradient = dense_gradient(lifting, state.residual, self.debias)
        image = matmul(gradient, estimate.factor)
        image_products = kernels.project(lifting.inputs, image)
        natural, stationarity = tangent_step(
            lifting,
            state.residual,
            estimate.factor,
            image,
            products,
            image_products,
            self.debias,
        )
        unit = kernels.unit(lifting.inputs)
        step_size, told = choose_step_size(self.step_size, natural, unit)
        moved = lowrank.to_dense(estimate) - step_size * gradient
        estimate = lowrank.truncate_matrix(moved, self.rank, self.positive)
        products = kernels.project(lifting.inputs, estimate.factor)
        residual = quadratic_forms(products, estimate.diagonal) - targets
        return State(estimate, residual, told, stationarity, state.key, memory=products)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ApRom:
    """Approximate projections for rank-one matrix estimation; `ap_rom` builds and documents it."""

    step_size: Array | None
    rank: int = static()
    debias: Debias = static("centre")
    positive: bool = static(False)
    head: Head = static("tangent")
    depth: int | None = static(None)

    def init(
        self, lifting: Lifting, targets: Array, key: Array, start: LowRank | None = None
    ) -> State:
        """Return the state at `start`, by default L = 0."""
        key, block_key = jax.random.split(key)
        if start is None:
            warm = jnp.zeros((lifting.inputs.shape[1], 0), targets.dtype)
            space = self._krylov(lifting, -targets, warm, block_key)
            leading = lowrank.truncate_matrix(-space.gradient, self.rank, self.positive)
            products = matmul(space.products, leading.factor)
            start = _zero_on(LowRank(matmul(space.basis, leading.factor), leading.diagonal))
        else:
            start = lowrank.eigen_form(start, self.rank, self.positive)
            products = kernels.project(lifting.inputs, start.factor)
        return _first_state(products, targets, start, key, memory=())

    def step(self, lifting: Lifting, targets: Array, state: State) -> State:
        """Return the state after one step, O(m p r) times depth."""
        estimate, rank = state.estimate, self.rank
        key, block_key = jax.random.split(state.key)
        space = self._krylov(lifting, state.residual, estimate.factor, block_key)
        width = space.gradient.shape[0]
        # All in coordinates of the space, whose first columns span the range of L: what
        # follows is small, and the tangent gradient and the new residual are free.
        image = space.gradient[:, :rank]
        natural, stationarity = tangent_step(
            lifting,
            state.residual,
            jnp.eye(width, rank, dtype=image.dtype),
            image,
            space.products[:, :rank],
            matmul(space.products, image),
            self.debias,
        )
        unit = kernels.unit(lifting.inputs)
        step_size, told = choose_step_size(self.step_size, natural, unit)
        head = space.gradient
        if self.head == "krylov":
            head = lowrank.to_dense(lowrank.truncate_matrix(head, min(2 * rank, width)))
        present = LowRank(matmul_rows(space.basis, estimate.factor), estimate.diagonal)
        moved = lowrank.to_dense(present) - step_size * head
        kept = lowrank.truncate_matrix(moved, rank, self.positive)
        estimate = LowRank(matmul(space.basis, kept.factor), kept.diagonal)
        residual = quadratic_forms(matmul(space.products, kept.factor), kept.diagonal) - targets
        return State(estimate, residual, told, stationarity, key, memory=())

    def _krylov(self, lifting: Lifting, residual: Array, warm: Array, key: Array) -> KrylovSpace:
        """Return the block Krylov space of the gradient, from the columns of `warm`."""
        dim = lifting.inputs.shape[1]
        if self.head == "tangent":
            width, depth = self.rank + 5, 1
        else:
            width, depth = 2 * self.rank + 5, krylov_depth(dim)
        block = random_block(key, dim, min(dim, width), warm)
        depth = depth if self.depth is None else self.depth
        return krylov_space(lifting, residual, self.debias, block, depth)


def _zero_on(spectral: LowRank) -> LowRank:
    # L = 0 has no tangent space of its own; the first step takes the range of
    # the spectral estimate.
    return LowRank(spectral.factor, jnp.zeros_like(spectral.diagonal))


def _first_state(
    products: Array, targets: Array, estimate: LowRank, key: Array, memory: Any
) -> State:
    zero = jnp.zeros((), targets.dtype)
    residual = quadratic_forms(products, estimate.diagonal) - targets
    return State(estimate, residual, zero, zero + jnp.inf, key, memory)


def ep_rom(
    rank: int,
    step_size: ArrayLike | None = None,
    debias: Debias = "centre",
    positive: bool = False,
) -> EpRom:
    """Build EP-ROM: gradient steps with an exact rank-r projection.

    `L <- P_r(L - eta G(L))` from L = 0, where G is the debiased gradient of
    `gradient_map` and P_r the best rank-r approximation, by a dense
    eigendecomposition: O(m p^2 + p^3) a step and p x p memory.

    Args:
        rank: r, 1 <= r <= p.
        step_size: eta > 0, a number or array that may be traced; None for half
            of the step that minimises the loss along the tangent gradient, which
            needs no tuning and does not depend on the scale of the data.
        debias: "centre", "trace" or "none", see `gradient_map`.
        positive: keep L positive semidefinite.

    Returns:
        A solver for `solve` and `trajectory`.

    Raises:
        ValueError, TypeError: options out of range; `solve` refuses a p for which p x p
            matrices do not fit into memory.

    The algorithm of Soltani & Hegde (doi 10.1109/TSP.2019.2916743; AISTATS 2018,
    PMLR v84) is `ep_rom(rank, step_size=1.0, debias="trace")`, with the sign of the
    identity term as in their supplement: as printed in the 2018 algorithm box it
    diverges.  The default departs from the paper in its step and in its
    debiasing: at p = 100, r = 5 it recovers 50 of 50 from 980 samples, where the
    paper's setting needs about 6600 for half of them.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> solution = jp.solve(jp.ep_rom(rank=2), problem.lifting, problem.targets, jax.random.key(1))
    >>> bool(jp.relative_error(solution.value, problem.truth) < 1e-4)
    True
    """
    return EpRom(**check_options(rank, step_size, debias, positive))


def ap_rom(
    rank: int,
    step_size: ArrayLike | None = None,
    debias: Debias = "centre",
    positive: bool = False,
    head: Head = "tangent",
    depth: int | None = None,
) -> ApRom:
    """Build AP-ROM: gradient steps with approximate projections, never p x p.

    `L <- T(L - eta H(G(L)))` from L = 0, G the debiased gradient of
    `gradient_map`.  The head is `H(G) = Z Z^T G Z Z^T` with Z from a block Krylov
    space of G; the tail T is the best rank-r approximation, exact, by a small
    eigenproblem in the coordinates of that space, of at most (r + 5) (depth + 1)
    columns with the default head.  X is multiplied by a block 2 depth + 1 times a step;
    the memory besides the inputs is (m + p) times those columns.

    Args:
        rank: r, 1 <= r <= p.
        step_size: eta > 0, a number or array that may be traced; None for half
            of the step that minimises the loss along the tangent gradient.
        debias: "centre", "trace" or "none", see `gradient_map`.
        positive: keep L positive semidefinite.
        head: "tangent": Z spans the block Krylov space of depth 1 started at the
            range of L and 5 random columns, so it holds the whole tangent
            gradient, and directions not yet found.  "krylov": the 2r leading
            Ritz pairs of a block of 2r + 5 columns (the range of L, then random).
        depth: powers of G, at least 1; None for 1 ("tangent") or about log p ("krylov").

    Returns:
        A solver for `solve` and `trajectory`.

    Raises:
        ValueError, TypeError: options out of range.

    The algorithm of Soltani & Hegde (doi 10.1109/TSP.2019.2916743) is nearest to
    `ap_rom(rank, step_size=1.0, debias="trace", head="krylov")`.  Deviations: both
    sides of G are projected, so that every iterate is symmetric; the block is
    warm-started at the range of L; the tail is exact.  The default head is not
    the paper's: truncating G to 2r by magnitude drops parts of the tangent
    gradient, which costs steps, keeps noisy runs from their optimum and fails where
    samples are few.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> solution = jp.solve(jp.ap_rom(rank=2), problem.lifting, problem.targets, jax.random.key(1))
    >>> bool(jp.relative_error(solution.value, problem.truth) < 1e-4)
    True
    """
    check_choice("head", head, ("tangent", "krylov"))
    if depth is not None:
        depth = check_count("depth", depth, 1)
    return ApRom(**check_options(rank, step_size, debias, positive), head=head, depth=depth)
