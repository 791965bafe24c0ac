"""Inputs kept in 16 bits."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HalfPrecision:
    """Inputs kept in 16 bits; every product is taken and summed in float32.

    Halves the memory of X and the time to read it.  Rounding X to bfloat16 changes an
    entry by up to 0.4 %, to float16 by 0.05 % (up to 65504): the fit is that of the rounded
    inputs, so targets of the exact ones leave a residual of about that size.  On one CPU
    device bfloat16 takes a copy of X in 16 bits, float16 takes none.  With several devices, and
    where the compiler of an accelerator does not multiply 16-bit rows by float32 as they are, a
    product takes a float32 copy of X for as long as it lasts.  Not for `with_linear_terms`,
    `shard_rows` or `recover`.

    Attributes:
        values: X, (m, p), bfloat16 or float16.

    >>> import jax, jaxpoly as jp
    >>> problem = jp.sample_problem(jax.random.key(0), num_samples=300, dim=20, rank=2)
    >>> halved = jp.HalfPrecision(problem.lifting.inputs.astype("bfloat16"))
    >>> solution = jp.solve(jp.gauss_newton(2), jp.Lifting(halved), problem.targets,
    ...     jax.random.key(1))
    >>> bool(jp.relative_error(solution.value, problem.truth) < 0.02)
    True
    """

    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """(m, p)."""
        return self.values.shape

    @property
    def dtype(self) -> Any:
        """The dtype that is computed in."""
        return jnp.dtype("float32")
