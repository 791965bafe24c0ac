"""Units of a run: powers of two that keep inputs and targets of any scale from overflow."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxpoly import kernels
from jaxpoly.lifting import Lifting
from jaxpoly.lowrank import LowRank
from jaxpoly.scaled import Scaled

# A run multiplies up to eight entries of X and two targets.  Within this root of the range
# of the dtype, 1/16 to 16 in float32, nothing can overflow, and nothing is changed.
ORDINARY = 32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Units:
    """The units of X and y: `X = inputs^2 X'` and `y = targets^4 y'`.

    So `L = (targets / inputs)^4 L'`.  Roots, since a unit itself may overflow; powers of
    two, by which scaling is exact; 1 for data of ordinary scale.

    Attributes:
        inputs: the square root of the unit of X, a scalar.
        targets: the fourth root of the unit of y, a scalar.
    """

    inputs: Array
    targets: Array


def choose_units(lifting: Lifting, targets: Array, magnitude: Array) -> Units:
    """Return units in which the largest input (`magnitude`) and target are about one.

    Samples of zero weight do not count.
    """
    counted = targets
    if lifting.sample_weight is not None:
        counted = jnp.where(lifting.sample_weight == 0, 0, targets)
    return Units(_root(magnitude, 2), _root(jnp.max(jnp.abs(counted)), 4))


def _root(size: Array, power: int) -> Array:
    """Return the power of two next to that root of a size; 1 for an ordinary one."""
    info = jnp.finfo(size.dtype)
    edge = 2.0 ** (info.maxexp // ORDINARY)
    extreme = jnp.isfinite(size) & (size > 0) & ((size > edge) | (size < 1 / edge))
    root = jnp.where(extreme, size, 1)
    while power > 1:
        root, power = jnp.sqrt(root), power // 2
    # Without digits of the mantissa a number is rounded to a power of two.
    root = lax.reduce_precision(root, info.nexp, 0)
    return jnp.minimum(root, 2.0 ** (info.maxexp // 2 - 1))


def enter(units: Units, lifting: Lifting, targets: Array) -> tuple[Lifting, Array]:
    """Return the data in these units; X is not copied."""
    inputs, basis = Scaled(lifting.inputs, units.inputs**2), lifting.linear_basis
    if basis is not None:
        basis = basis * units.inputs * units.inputs
    lifting = replace(lifting, inputs=inputs, linear_basis=basis)
    return lifting, enter_values(units, targets)


def enter_targets(lifting: Lifting, targets: Array) -> tuple[Units, Array]:
    """Return units for the data, and the targets in them."""
    return _enter_targets(lifting, targets)


@jax.jit
def _enter_targets(lifting, targets):
    units = choose_units(lifting, targets, kernels.magnitude(lifting.inputs))
    return units, enter_values(units, targets)


def enter_values(units: Units, values: Array) -> Array:
    """Return values like targets in these units."""
    return _fourth(values, 1 / units.targets)


def least_targets(units: Units) -> Array:
    """Return, in these units, what targets have to exceed to keep their digits.

    Numbers below the smallest normal one of the dtype are flushed to zero.
    """
    dtype = units.targets.dtype
    return enter_values(units, jnp.asarray(1e3 * jnp.finfo(dtype).tiny, dtype))


def enter_inputs(units: Units, lifting: Lifting) -> Lifting:
    """Return the inputs in these units, as an array: a copy unless it is of ordinary scale."""
    if units.inputs == 1:
        return lifting
    return replace(lifting, inputs=lifting.inputs / units.inputs**2)


def enter_matrix(units: Units, low_rank: LowRank) -> LowRank:
    """Return L in these units."""
    return LowRank(low_rank.factor, _fourth(low_rank.diagonal, units.inputs / units.targets))


def enter_linear(units: Units, linear: Array) -> Array:
    """Return linear coefficients in these units."""
    return _fourth(linear * units.inputs * units.inputs, 1 / units.targets)


def leave_matrix(units: Units, low_rank: LowRank) -> tuple[LowRank, Array]:
    """Return L in the units of the data, and whether the dtype can hold it there."""
    diagonal = _fourth(low_rank.diagonal, units.targets / units.inputs)
    held = _held(low_rank.diagonal, diagonal) & jnp.isfinite(low_rank.factor).all()
    return LowRank(low_rank.factor, diagonal), held


def leave_linear(units: Units, linear: Array) -> tuple[Array, Array]:
    """Return linear coefficients in the units of the data, and whether the dtype holds them."""
    left = _fourth(linear, units.targets) / units.inputs / units.inputs
    return left, _held(linear, left)


def leave_targets(units: Units, values: Array) -> Array:
    """Return values like targets in the units of the data."""
    return _fourth(values, units.targets)


def _fourth(values: Array, root: Array) -> Array:
    return values * root * root * root * root


def _held(values: Array, left: Array) -> Array:
    """Return whether no value overflowed, or lost digits to underflow, when it left."""
    normal = (jnp.abs(left) >= jnp.finfo(left.dtype).tiny) | (values == 0)
    return jnp.all(jnp.isfinite(left) & normal)
