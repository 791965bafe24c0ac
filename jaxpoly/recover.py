"""The front door: from a table of numbers to the network, nothing to tune."""

from dataclasses import dataclass, fields, replace
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpoly import units
from jaxpoly.coordinates import cancellation, come_back, prepare, return_home
from jaxpoly.inputs import (
    drop_nonfinite_rows,
    to_whitened,
)
from jaxpoly.lifting import (
    Lifting,
    normalised_weight,
)
from jaxpoly.rank_choice import RankCurve, choose_rank, largest_rank, rank_curve
from jaxpoly.robust import robust_fit
from jaxpoly.search import search
from jaxpoly.solvers.gauss_newton import gauss_newton
from jaxpoly.state import Solution
from jaxpoly.validation import (
    as_float_array,
    check_count,
    check_key,
    check_lifting,
    check_number,
    check_rank_fits,
    check_vector,
    check_weight_values,
)

# Squared norm of the mean of whitened inputs above which they are far from the origin; the
# mean of m samples of centred inputs has p / m.
FAR_SHIFT = 0.5


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Recovery(Solution):
    """A `Solution` in the coordinates of the inputs, with what `recover` saw on its way.

    For an example see `recover`.

    Attributes:
        rank_curve: the held-out errors the rank was chosen from; None for a given rank.
        num_starts: starts tried.
        sample_weight: the weights of the last fit, (m,), sum 1; with `robust=True`
            zero for samples that were taken for outliers.
        constant_squares: (p,), columns whose square does not vary, such as those of
            +-1: the data see that part of the diagonal of L only through the rank,
            and not at all for neurons along an axis, so the diagonal of `value` may
            be arbitrary although predictions are right.
        num_dropped: samples that were given no weight by `drop_nonfinite=True`.
    """

    rank_curve: RankCurve | None
    num_starts: Array
    sample_weight: Array
    constant_squares: Array
    num_dropped: Array


def recover(
    inputs: ArrayLike,
    targets: ArrayLike,
    rank: int | Literal["auto"],
    *,
    key: Array,
    positive: bool = False,
    sample_weight: ArrayLike | None = None,
    affine: bool = False,
    ridge: float = 0.0,
    robust: bool = False,
    drop_nonfinite: bool = False,
    max_steps: int = 100,
    rtol: float | None = None,
) -> Recovery:
    """Fit `y = x^T L x (+ b . x) + c` with L of low rank; nothing to tune.

    Whitens the inputs (see `whiten`), polishes a spectral start by
    `gauss_newton`, and only where that did not converge tries further starts: hard
    thresholding and, where samples are scarce, `reweighted_start`, then random
    reweighted starts.  It stops at the first that converges, or, on noisy data, as
    soon as the smallest residual has been reached from several starts.  The result
    is mapped back to the coordinates of the inputs.

    Args:
        inputs: X, (m, p), as they are: correlated, badly scaled, not Gaussian.
        targets: y, (m,).
        rank: r, or "auto" to choose it by cross-validation, see `RankCurve`.
        key: a JAX random key.
        positive: keep L positive semidefinite.
        sample_weight: w >= 0, (m,), or None.
        affine: fit the linear terms b too; the intercept c is always fitted.
        ridge: penalty `ridge (|L|_F^2 + |b|^2)` beside the mean squared residual,
            in whitened coordinates, so of order sigma^2 / m of the noise.
        robust: give samples with gross errors no weight, see `Recovery`.
        drop_nonfinite: give samples with NaN or infinity no weight; otherwise they end
            the fit with NONFINITE_INPUT.
        max_steps: Gauss-Newton steps at most, for each start.
        rtol: relative residual that counts as exact; None for `20 eps p^(1/4)`, times
            the ratio of the targets to what an affine fit leaves of them (for far
            shifted inputs, sqrt(p) times that of the terms of A(L)).

    Returns:
        A `Recovery`, which is a `Solution`: `.value`, `.linear`, `.intercept`,
        `.status` and more.  Everything is in the dtype of the inputs.

    Raises:
        ValueError, TypeError: shapes that do not fit, data that are not real
            numbers, options out of range.  All else becomes a status.

    Decides on the host which start comes next, so it does not run under `jit` or `vmap`;
    its parts do.  Makes one copy of X, and matrices p x p (and m x m, up to
    m = 2500, where samples are scarce).

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=100, dim=20, rank=2)
    >>> X, y = problem.lifting.inputs, problem.targets
    >>> solution = jp.recover(X, y, rank=2, key=jax.random.key(1))
    >>> bool(jp.relative_error(solution.value, problem.truth) < 1e-4)
    True
    """
    if isinstance(inputs, jax.core.Tracer) or isinstance(targets, jax.core.Tracer):
        raise TypeError(
            "recover was called under jit or vmap, where it cannot choose its starts; "
            "use jaxpoly.solve(jaxpoly.gauss_newton(rank), ...) there"
        )
    inputs = as_float_array("inputs", inputs, ndim=2)
    if sample_weight is not None:
        sample_weight = check_vector("sample_weight", sample_weight, inputs)
    lifting = check_lifting(Lifting(inputs, sample_weight))
    targets = check_vector("targets", targets, inputs)
    check_weight_values(lifting.sample_weight)
    num_samples, dim = lifting.inputs.shape
    flags = {"affine": affine, "robust": robust, "drop_nonfinite": drop_nonfinite}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"{name} is {flag!r}; expected True or False")
    num_dropped = jnp.int32(0)
    if drop_nonfinite:
        lifting, targets, num_dropped = drop_nonfinite_rows(lifting, targets)
        if not jnp.any(lifting.sample_weight != 0):
            raise ValueError(
                f"no sample is left: drop_nonfinite took {int(num_dropped)} of {num_samples} "
                "rows with NaN or infinity, and the others have no weight"
            )
    if lifting.sample_weight is not None:
        # Whatever stands in rows of zero weight must not set a scale.
        off = lifting.sample_weight == 0
        inputs = jnp.where(off[:, None], 0, lifting.inputs)
        lifting, targets = replace(lifting, inputs=inputs), jnp.where(off, 0, targets)
        num_samples -= int(jnp.sum(off))
    key, rank_key = jax.random.split(check_key(key))
    ridge = check_number("ridge", ridge)
    rtol = None if rtol is None else check_number("rtol", rtol)
    max_steps = check_count("max_steps", max_steps, 0)
    if rank != "auto":
        rank = check_count("rank", rank, 1)
        check_rank_fits(rank, dim)

    scale, targets = units.enter_targets(lifting, targets)
    lifting = units.enter_inputs(scale, lifting)
    own = prepare(lifting, targets, ridge, affine)
    # Far from the origin the quadratic part is a small part of the variation.  Centred, with
    # linear terms for what the shift makes of it, it is not: a guide to the fit asked for.
    guide = own
    if not affine and float(own.shift) > FAR_SHIFT + dim / max(num_samples, 1):
        guide = prepare(lifting, targets, ridge, affine=True)
    limits, guide_limits = (
        (max_steps, view.resolution if rtol is None else rtol) for view in (own, guide)
    )

    curve = None
    if rank == "auto":
        largest = largest_rank(num_samples, dim)
        every, plain = gauss_newton(largest, positive=positive, ridge=ridge), guide.plain
        if robust:
            _, weight = robust_fit(every, plain, targets, key, *guide_limits, ridge, guide.affine)
            plain = replace(plain, sample_weight=weight)
        curve = rank_curve(every, plain, targets, rank_key, largest, guide.affine)
        rank = choose_rank(curve, float(guide_limits[1]))

    solver = gauss_newton(rank, positive=positive, ridge=ridge)
    unknowns = rank * dim - rank * (rank - 1) // 2 + 1
    weight, num_starts, start = normalised_weight(lifting), 0, None
    if robust:
        data = guide.plain, targets, key
        solution, weight = robust_fit(solver, *data, *guide_limits, ridge, guide.affine)
        num_starts += 1
    elif guide is not own:
        data = guide.fitted, targets, key
        solution, num_starts = search(solver, *data, *guide_limits, unknowns + dim)
    data = replace(own.fitted, sample_weight=weight), targets, key
    if guide is not own:
        start = to_whitened(own.whitening, come_back(guide.whitening, solution).value)
        if rtol is None:
            resolution = own.resolution * cancellation(own.plain, targets, start)
            limits = max_steps, jnp.minimum(resolution, jnp.finfo(targets.dtype).eps ** 0.5)
    if guide is not own or not robust:
        solution, tried = search(solver, *data, *limits, unknowns + affine * dim, start)
        num_starts += tried
    home = own, scale, lifting, weight, targets
    solution = return_home(*home, solution, limits[1], rtol is None)
    known = {field.name: getattr(solution, field.name) for field in fields(Solution)}
    return Recovery(
        **known,
        rank_curve=curve,
        num_starts=jnp.int32(num_starts),
        sample_weight=weight,
        constant_squares=own.constant_squares,
        num_dropped=num_dropped,
    )
