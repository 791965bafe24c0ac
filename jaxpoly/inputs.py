"""Inputs as they come: whitening with its exact way back, and linear terms."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpoly import kernels, lowrank
from jaxpoly.lifting import Lifting, normalised_weight
from jaxpoly.lowrank import LowRank
from jaxpoly.memory import check_dense
from jaxpoly.precision import matmul, matmul_rows
from jaxpoly.validation import as_float_array, check_lifting, check_number, check_vector


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Whitening:
    """The map `z = T^T (x - shift)` to coordinates with about unit covariance.

    Attributes:
        shift: (p,); zeros where the inputs were not centred.
        transform: T, (p, p).  Columns of truncated directions are zero.
        inverse: of T, (p, p), on the directions kept.

    >>> import jax.numpy as jnp
    >>> whitening, whitened = whiten(Lifting(jnp.array([[2.0], [-2.0]])), centred=True)
    >>> whitening.transform.tolist(), whitened.inputs.tolist()
    ([[0.5]], [[1.0], [-1.0]])
    """

    shift: Array
    transform: Array
    inverse: Array


def drop_nonfinite_rows(lifting: Lifting, targets: ArrayLike) -> tuple[Lifting, Array, Array]:
    """Switch off the samples with NaN or infinity, and count them.

    Args:
        lifting: inputs (m, p) and weights.
        targets: y, (m,).

    Returns:
        A lifting and targets of the same shapes, in which such rows are zeros of zero
        weight, and the number of rows that had a weight and have none now, int32.

    Raises:
        ValueError, TypeError: shapes that do not fit, data that are not real numbers.

    Makes one copy of X.  Works under `jit` and `vmap`.

    >>> import jax.numpy as jnp
    >>> rows = Lifting(jnp.array([[1.0], [jnp.nan], [3.0]]))
    >>> cleaned, targets, dropped = drop_nonfinite_rows(rows, jnp.array([1.0, 2.0, jnp.inf]))
    >>> cleaned.inputs[:, 0].tolist(), cleaned.sample_weight.tolist(), int(dropped)
    ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], 2)
    """
    lifting = check_lifting(lifting)
    inputs = as_float_array("lifting.inputs", lifting.inputs, ndim=2)
    targets = check_vector("targets", targets, inputs)
    weight = lifting.sample_weight
    weight = jnp.ones_like(targets) if weight is None else weight
    kept = jnp.all(jnp.isfinite(inputs), axis=1) & jnp.isfinite(targets) & jnp.isfinite(weight)
    cleaned = replace(
        lifting,
        inputs=jnp.where(kept[:, None], inputs, 0),
        sample_weight=jnp.where(kept, weight, 0),
    )
    num_dropped = jnp.sum(~kept & (weight != 0), dtype=jnp.int32)
    return cleaned, jnp.where(kept, targets, 0), num_dropped


def whiten(lifting: Lifting, centred: bool) -> tuple[Whitening, Lifting]:
    """Return coordinates in which the inputs have about unit second moments.

    For an example see `Whitening`.

    Columns are divided by their root mean square; the matrix S of second moments
    of the rest is shrunk to `(1 - a) S + a (tr S / p) I`, with the intensity a of
    Ledoit and Wolf (2004, doi 10.1016/S0047-259X(03)00096-4), and
    `T = diag(1 / rms) Q diag(shrunk eigenvalues)^(-1/2)`.  So isotropic inputs are
    left nearly as they are, however few, and strong correlations are removed.

    Args:
        lifting: inputs (m, p) and weights.
        centred: subtract the weighted mean first.  Right for fits with linear terms
            only: in shifted coordinates `x^T L x` has linear terms.

    Returns:
        The whitening, and a lifting of the whitened inputs without linear terms,
        a copy of X.  O(m p^2 + p^3).

    Directions with an eigenvalue of S below `4 p eps` of the largest (collinear to
    a relative standard deviation of 3e-8 sqrt(p) in float64, 7e-4 sqrt(p) in float32) are
    truncated: they are zero in the whitened inputs, and `restore` gives them none of L.

    Raises:
        ValueError, TypeError: shapes that do not fit, data that are not real numbers,
            p x p matrices that do not fit into memory.
    """
    lifting = check_lifting(lifting)
    inputs = as_float_array("lifting.inputs", lifting.inputs, ndim=2)
    # The moments, their eigenvectors, the transform and its inverse.
    dense = inputs.shape[1], inputs.dtype, 4
    check_dense("Whitening", *dense, "jaxpoly.solve(jaxpoly.gauss_newton(rank), ...)")
    weight = normalised_weight(lifting)
    dim, tiny = inputs.shape[1], jnp.finfo(inputs.dtype).eps
    zero = jnp.zeros((dim,), inputs.dtype)
    shift = kernels.back_project(inputs, weight) if centred else zero
    peak = jnp.max(jnp.abs(inputs), axis=0)
    unit = (inputs - shift[None, :]) / jnp.where(peak > 0, peak, 1)[None, :]
    rms = jnp.sqrt(kernels.back_project(unit**2, weight))
    # What centring leaves of a constant column is rounding.
    rms = jnp.where(rms > 10 * tiny, rms, 0)
    inverse = jnp.where(rms > 0, 1 / jnp.where(rms > 0, rms, 1), 0)
    unit = unit * inverse[None, :]
    moments = kernels.weighted_gram(unit, weight)
    eigenvalues, vectors = lowrank.guarded_eigh(moments)
    mean = jnp.sum(eigenvalues) / dim
    fourth = jnp.sum(weight**2 * jnp.sum(unit**2, axis=1) ** 2)
    sampling = fourth - jnp.sum(weight**2) * jnp.sum(eigenvalues**2)
    spread = jnp.sum((eigenvalues - mean) ** 2)
    intensity = jnp.clip(sampling / jnp.where(spread > 0, spread, 1), 0, 1)
    intensity = jnp.where(spread > 0, intensity, 1)
    shrunk = (1 - intensity) * eigenvalues + intensity * mean
    kept = eigenvalues > 4 * dim * tiny * eigenvalues[-1]
    root = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, shrunk, 1)), 0)
    rotation = vectors * root[None, :]
    transform = (inverse / jnp.where(peak > 0, peak, 1))[:, None] * rotation
    back = jnp.where(kept, jnp.sqrt(jnp.where(kept, shrunk, 1)), 0)
    untransform = (back[:, None] * vectors.T) * (rms * peak)[None, :]
    whitened = replace(lifting, inputs=kernels.project(unit, rotation), linear_basis=None)
    return Whitening(shift, transform, untransform), whitened


def restore(
    whitening: Whitening, low_rank: LowRank, linear: Array, intercept: Array
) -> tuple[LowRank, Array, Array]:
    """Return L, b and c in the coordinates of x, given those in whitened ones.

    `z^T L z + b . z + c` with `z = T^T (x - shift)` is, multiplied out, a quadratic
    function of x; predictions agree to rounding.

    >>> import jax.numpy as jnp
    >>> whitening, whitened = whiten(Lifting(jnp.array([[2.0], [-2.0]])), centred=True)
    >>> one = LowRank(jnp.ones((1, 1)), jnp.ones((1,)))
    >>> low_rank, linear, intercept = restore(whitening, one, jnp.zeros(1), jnp.zeros(()))
    >>> lowrank.to_dense(low_rank).tolist()
    [[0.25]]
    """
    factor = matmul(whitening.transform, low_rank.factor)
    at_shift = matmul_rows(factor, whitening.shift)
    slope = matmul(whitening.transform, linear)
    turned = matmul(factor, low_rank.diagonal * at_shift)
    return (
        lowrank.eigen_form(LowRank(factor, low_rank.diagonal)),
        slope - 2 * turned,
        intercept - jnp.sum(slope * whitening.shift) + jnp.sum(low_rank.diagonal * at_shift**2),
    )


def to_whitened(whitening: Whitening, low_rank: LowRank) -> LowRank:
    """Return L in whitened coordinates, on the directions kept: the inverse of `restore`."""
    return LowRank(matmul(whitening.inverse, low_rank.factor), low_rank.diagonal)


def with_linear_terms(lifting: Lifting, ridge: ArrayLike = 0.0) -> Lifting:
    """Return the lifting of a fit with linear terms: `y = x^T L x + b . x + c`.

    Every solver with `debias="centre"` then fits b and c exactly at each step, by
    projection on a basis of the linear functions that is computed here from the
    covariance of the inputs, O(m p^2 + p^3).

    Args:
        lifting: inputs (m, p) and weights.
        ridge: penalty on b beside the mean squared residual, for columns of unit
            variance, uncorrelated; >= 0, may be traced.

    Returns:
        A lifting with `linear_basis` (p, p).  Directions in which the inputs do not
        vary (relative variance below `4 p eps`) get no linear term.

    Raises:
        ValueError, TypeError: as in `whiten`; a negative ridge.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> targets = problem.targets + 3 * problem.lifting.inputs[:, 0]
    >>> lifting = jp.with_linear_terms(problem.lifting)
    >>> solution = jp.solve(jp.gauss_newton(2), lifting, targets, jax.random.key(1))
    >>> round(float(solution.linear[0]), 3)
    3.0
    """
    lifting = check_lifting(lifting)
    ridge = check_number("ridge", ridge)
    whitening, whitened = whiten(lifting, centred=True)
    variance = kernels.back_project(whitened.inputs**2, normalised_weight(lifting))
    # Whitened columns are uncorrelated; shrinkage alone keeps their variance from 1.
    scale = jnp.where(variance > 0, 1 / jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
    basis = whitening.transform * (scale / jnp.sqrt(1 + jnp.asarray(ridge, scale.dtype)))[None, :]
    return replace(lifting, linear_basis=basis)
