"""Precision of matrix products and the tolerances that follow from the dtype."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def _precision() -> str | lax.Precision:
    # GPUs and TPUs multiply in tf32 or bf16 unless told otherwise, which loses
    # the digits that a solver lives on.  The user's own JAX setting has the
    # last word: it is the one switch.
    settings: Any = jax.config  # Its attributes are made at run time, unknown to type checkers.
    return settings.jax_default_matmul_precision or lax.Precision.HIGHEST


def matmul(left: Array, right: Array) -> Array:
    """Multiply `left @ right` at the highest precision of the device.

    The one switch is JAX's own: under `jax.default_matmul_precision(...)` that
    precision is used instead.

    >>> import jax.numpy as jnp
    >>> matmul(jnp.ones((2, 3)), jnp.ones((3,))).tolist()
    [3.0, 3.0]
    """
    return jnp.matmul(left, right, precision=_precision())


def matmul_rows(left: Array, right: Array) -> Array:
    """Multiply `left.T @ right` without writing the transpose down.

    `left` is (m, p) and `right` (m, k); the result is (p, k).

    >>> import jax.numpy as jnp
    >>> matmul_rows(jnp.ones((4, 2)), jnp.ones((4, 1))).tolist()
    [[4.0], [4.0]]
    """
    return lax.dot_general(left, right, (((0,), (0,)), ((), ())), precision=_precision())


def default_rtol(dtype: jnp.dtype, dim: int) -> float:
    """Return the relative residual at which a fit counts as exact.

    `20 eps p^(1/4)`: measured, the residual of the truth rounded to the dtype is
    about `0.6 eps p^(1/4)`, and iterates settle within a factor of ten of it.

    >>> import jax.numpy as jnp
    >>> f"{default_rtol(jnp.dtype('float32'), 100):.1e}"
    '7.5e-06'
    """
    return float(20 * jnp.finfo(dtype).eps * dim**0.25)


def stationarity_tolerance(dtype: jnp.dtype) -> float:
    """Return the cosine below which a residual counts as orthogonal to the model.

    `sqrt(eps)`, that is 1.5e-8 in float64 and 3.5e-4 in float32: the estimate is
    then that fraction of the residual away from the local least-squares optimum.

    >>> import jax.numpy as jnp
    >>> f"{stationarity_tolerance(jnp.dtype('float64')):.1e}"
    '1.5e-08'
    """
    return float(jnp.finfo(dtype).eps ** 0.5)
