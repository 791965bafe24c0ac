"""EP-ROM and AP-ROM: gradient steps followed by rank-r hard thresholding."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpoly import lowrank
from jaxpoly.lifting import Debias, Lifting, dense_gradient, gradient_map, measure
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import matmul
from jaxpoly.solvers.options import check_options, choose_step_size
from jaxpoly.state import State
from jaxpoly.static import static
from jaxpoly.tangent import tangent_step
from jaxpoly.threshold import block_krylov, krylov_depth, random_block, rayleigh_ritz
from jaxpoly.validation import check_choice, check_count

Head = Literal["tangent", "krylov"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EpRom:
    """Exact projections for rank-one matrix estimation; `ep_rom` builds and documents it."""

    step_size: Array | None
    rank: int = static()
    debias: Debias = static("centre")
    positive: bool = static(False)

    def init(
        self, lifting: Lifting, targets: Array, key: Array, start: LowRank | None = None
    ) -> State:
        """Return the state at `start`, by default L = 0."""
        if start is None:
            gradient = dense_gradient(lifting, -targets, self.debias)
            start = _zero_on(lowrank.truncate_matrix(-gradient, self.rank, self.positive))
        start = lowrank.eigen_form(start, self.rank, self.positive)
        return _first_state(lifting, targets, start, key)

    def step(self, lifting: Lifting, targets: Array, state: State) -> State:
        """Return the state after one step, O(m p^2 + p^3)."""
        estimate = state.estimate
        gradient = dense_gradient(lifting, state.residual, self.debias)
        image = matmul(gradient, estimate.factor)
        natural, stationarity = tangent_step(
            lifting, state.residual, estimate.factor, image, self.debias
        )
        step_size = choose_step_size(self.step_size, natural)
        moved = lowrank.to_dense(estimate) - step_size * gradient
        estimate = lowrank.truncate_matrix(moved, self.rank, self.positive)
        residual = measure(lifting, estimate) - targets
        return State(estimate, residual, step_size, stationarity, state.key, memory=())


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
            basis, image = self._krylov(lifting, -targets, warm, block_key)
            start = _zero_on(rayleigh_ritz(basis, -image, self.rank, self.positive))
        start = lowrank.eigen_form(start, self.rank, self.positive)
        return _first_state(lifting, targets, start, key)

    def step(self, lifting: Lifting, targets: Array, state: State) -> State:
        """Return the state after one step, O(m p r) times (depth + 1)."""
        estimate, rank = state.estimate, self.rank
        key, block_key = jax.random.split(state.key)
        basis, image = self._krylov(lifting, state.residual, estimate.factor, block_key)
        # The block starts with the range of L, so the tangent gradient is free.
        natural, stationarity = tangent_step(
            lifting, state.residual, basis[:, :rank], image[:, :rank], self.debias
        )
        step_size = choose_step_size(self.step_size, natural)
        width = basis.shape[1]
        head = rayleigh_ritz(
            basis, image, width if self.head == "tangent" else min(2 * rank, width)
        )
        moved = lowrank.add(estimate, lowrank.scale(head, -step_size))
        estimate = lowrank.eigen_form(moved, rank, self.positive)
        residual = measure(lifting, estimate) - targets
        return State(estimate, residual, step_size, stationarity, key, memory=())

    def _krylov(
        self, lifting: Lifting, residual: Array, warm: Array, key: Array
    ) -> tuple[Array, Array]:
        """Return (Q, G Q) on the block Krylov space of the gradient G."""
        dim = lifting.inputs.shape[1]
        if self.head == "tangent":
            width, depth = self.rank + 5, 1
        else:
            width, depth = 2 * self.rank + 5, krylov_depth(dim)
        block = random_block(key, dim, min(dim, width), warm)
        gradient = gradient_map(lifting, residual, self.debias)
        return block_krylov(gradient, block, depth if self.depth is None else self.depth)


def _zero_on(spectral: LowRank) -> LowRank:
    # L = 0 has no tangent space of its own; the first step takes the range of
    # the spectral estimate.
    return LowRank(spectral.factor, jnp.zeros_like(spectral.diagonal))


def _first_state(lifting: Lifting, targets: Array, estimate: LowRank, key: Array) -> State:
    zero = jnp.zeros((), targets.dtype)
    residual = measure(lifting, estimate) - targets
    return State(estimate, residual, zero, zero + jnp.inf, key, memory=())


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
        ValueError, TypeError: options out of range.

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
    space of G; the tail T is the best rank-r approximation of the remaining
    LowRank by a QR factorisation of its factor, exact.  O(m p r) times
    (depth + 1) a step and O(p r) memory besides the inputs.

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
        depth: powers of G; None for 1 ("tangent") or about log p ("krylov").

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
        depth = check_count("depth", depth, 0)
    return ApRom(**check_options(rank, step_size, debias, positive), head=head, depth=depth)
