"""Inputs divided by a number, without a copy of them."""

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from jaxpoly import kernels


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scaled:
    """Stands for `X / unit` without a copy of X: what X is multiplied by is divided.

    With a power of two that is exact, as long as the quotients do not underflow: in
    float32 up to a unit of about 1e24.

    Attributes:
        inputs: X, in any form.
        unit: a power of two, a scalar that may be traced.
    """

    inputs: Any
    unit: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """(m, p)."""
        return self.inputs.shape

    @property
    def dtype(self) -> Any:
        """The dtype that is computed in."""
        return self.inputs.dtype

    def project(self, block: Array) -> Array:
        """Return `X block / unit`."""
        return kernels.project(self.inputs, block / self.unit)

    def back_project(self, rows: Array) -> Array:
        """Return `X^T rows / unit`."""
        return kernels.back_project(self.inputs, rows / self.unit)

    def sweep(self, block: Array, weigh: kernels.Weigh, *rows: Array) -> tuple[Array, Array]:
        """Return `X^T weigh(X block / unit, *rows) / unit` and `X block / unit`."""
        *others, last = rows
        return kernels.sweep(self.inputs, block / self.unit, weigh, *others, last / self.unit)

    def weighted_gram(self, row_weight: Array, unit: Array | float = 1.0) -> Array:
        """Return `X^T diag(row_weight) X / unit^2`."""
        return kernels.weighted_gram(self.inputs, row_weight, unit * self.unit)
