"""How far an estimate is from the truth, in terms of what can be recovered."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from jaxpoly import lowrank
from jaxpoly.lowrank import LowRank
from jaxpoly.network import QuadraticNetwork
from jaxpoly.precision import matmul, matmul_rows


def relative_error(estimate: LowRank, truth: LowRank) -> Array:
    """Return the Frobenius error `|L - L*|_F / |L*|_F`, a scalar, without p x p.

    Accurate to rounding also where the two nearly agree; infinite or NaN for L* = 0.

    Raises:
        ValueError, TypeError: matrices of different dimension, or no `LowRank`.

    >>> import jax.numpy as jnp
    >>> truth = LowRank(jnp.eye(3)[:, :1], jnp.array([2.0]))
    >>> relative_error(lowrank.scale(truth, 1.5), truth).item()
    0.5
    """
    return lowrank.norm(_difference(estimate, truth)) / lowrank.norm(truth)


def _difference(estimate: LowRank, truth: LowRank) -> LowRank:
    for name, value in (("estimate", estimate), ("truth", truth)):
        if not isinstance(value, LowRank):
            raise TypeError(f"{name} is a {type(value).__name__}; expected jaxpoly.LowRank")
    if estimate.factor.shape[0] != truth.factor.shape[0]:
        raise ValueError(
            f"estimate has factor {estimate.factor.shape}, truth {truth.factor.shape}; expected "
            "the same number of rows"
        )
    return lowrank.add(estimate, lowrank.scale(truth, -1.0))


def spectral_error(estimate: LowRank, truth: LowRank) -> Array:
    """Return the spectral error `|L - L*|_2 / |L*|_2`, a scalar, without p x p.

    >>> import jax.numpy as jnp
    >>> truth = LowRank(jnp.eye(3)[:, :2], jnp.array([2.0, 1.0]))
    >>> spectral_error(LowRank(truth.factor, jnp.array([2.0, 0.0])), truth).item()
    0.5
    """
    return _spectral_norm(_difference(estimate, truth)) / _spectral_norm(truth)


def _spectral_norm(low_rank: LowRank) -> Array:
    return jnp.max(jnp.abs(lowrank.guarded_eigh(lowrank.core(low_rank)[1])[0]))


def subspace_angle(estimate: LowRank, truth: LowRank) -> Array:
    """Return the largest principal angle between the ranges, in radians in [0, pi/2].

    The range is taken to be spanned by all columns of the factor, so leave out those
    of zero weight; the one of lower dimension is compared with its projection on the
    other.  Computed from its sine, so that small angles are accurate to rounding.

    >>> import jax.numpy as jnp
    >>> truth = LowRank(jnp.eye(3)[:, :2], jnp.array([2.0, 1.0]))
    >>> angle = subspace_angle(LowRank(jnp.eye(3)[:, 1:], jnp.array([1.0, 1.0])), truth)
    >>> round(float(angle), 5)
    1.5708
    """
    small, large = jnp.linalg.qr(estimate.factor)[0], jnp.linalg.qr(truth.factor)[0]
    if small.shape[1] > large.shape[1]:
        small, large = large, small
    outside = small - matmul(large, matmul_rows(large, small))
    squared_sine = lowrank.guarded_eigh(matmul_rows(outside, outside))[0][-1]
    return jnp.arcsin(jnp.sqrt(jnp.clip(squared_sine, 0, 1)))


class NeuronMatch(NamedTuple):
    """An assignment of estimated to true neurons.

    For an example see `match_neurons`.

    Attributes:
        order: (r,) estimated neuron `order[j]` goes with true neuron j.
        sign: (r,) +1 or -1, to multiply that neuron with.
        cosine: (r,) absolute cosine between the two, in [0, 1].
        output_weight_error: (r,) error of `a_j |w_j|^2`, which is what the data see.
    """

    order: Array
    sign: Array
    cosine: Array
    output_weight_error: Array


def match_neurons(estimate: QuadraticNetwork, truth: QuadraticNetwork) -> NeuronMatch:
    """Match the neurons of two networks of the same width up to order and sign.

    Neurons are paired by the assignment that minimises the total distance between
    the terms `a_j w_j w_j^T` they add to L (Hungarian algorithm of optax).  Only the
    eigen-neurons of an L with distinct eigenvalues can be expected to match.

    Raises:
        ValueError: networks of different shapes.

    >>> import jax.numpy as jnp
    >>> truth = QuadraticNetwork(jnp.eye(2), jnp.array([1.0, 2.0]), jnp.zeros(2), jnp.zeros(()))
    >>> swapped = QuadraticNetwork(-jnp.eye(2)[::-1], jnp.array([2.0, 1.0]), jnp.zeros(2), 0.0)
    >>> match_neurons(swapped, truth).order.tolist()
    [1, 0]
    """
    if estimate.neurons.shape != truth.neurons.shape:
        raise ValueError(
            f"estimate has neurons of shape {estimate.neurons.shape}, truth of shape "
            f"{truth.neurons.shape}; expected the same"
        )
    unit, strength = _unit_neurons(estimate)
    true_unit, true_strength = _unit_neurons(truth)
    overlap = matmul(true_unit, unit.T)
    squared_distance = (
        true_strength[:, None] ** 2
        + strength[None, :] ** 2
        - 2 * true_strength[:, None] * strength[None, :] * overlap**2
    )
    rows, columns = optax.assignment.hungarian_algorithm(squared_distance)
    order = jnp.zeros_like(columns).at[rows].set(columns)
    matched = jnp.take_along_axis(overlap, order[:, None], axis=1)[:, 0]
    sign = jnp.where(matched < 0, -1, 1).astype(overlap.dtype)
    error = jnp.abs(strength[order] - true_strength)
    return NeuronMatch(order, sign, jnp.minimum(jnp.abs(matched), 1), error)


def _unit_neurons(network: QuadraticNetwork) -> tuple[Array, Array]:
    length = jnp.linalg.norm(network.neurons, axis=1)
    unit = network.neurons / jnp.where(length > 0, length, 1)[:, None]
    return unit, network.output_weights * length**2
