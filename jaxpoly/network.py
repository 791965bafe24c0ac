"""The two-layer network with quadratic activation, and its way to L and back."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpoly import kernels, lowrank
from jaxpoly.lowrank import LowRank
from jaxpoly.precision import matmul
from jaxpoly.validation import as_float_array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuadraticNetwork:
    """`f(x) = sum_j a_j (w_j . x)^2 + b . x + c`.

    Attributes:
        neurons: W, one neuron w_j a row, (r, p).
        output_weights: a, (r,), of either sign.
        linear: b, (p,).
        intercept: c, a scalar.

    What data can tell: L = sum_j a_j w_j w_j^T, its range, and its eigenvectors
    where eigenvalues are distinct.  What they cannot: the neurons themselves.
    Infinitely many networks share one L (for equal weights any rotation of the
    neurons does), and `from_low_rank` returns the one with orthonormal neurons.

    Several outputs are a batch: `jax.vmap(QuadraticNetwork.from_low_rank)` of a
    batched LowRank, and `jax.vmap(lambda net: net(inputs))` to predict them all.
    """

    neurons: Array
    output_weights: Array
    linear: Array
    intercept: Array

    @staticmethod
    def from_low_rank(
        low_rank: LowRank, linear: ArrayLike | None = None, intercept: ArrayLike = 0.0
    ) -> "QuadraticNetwork":
        """Return the network of orthonormal eigen-neurons of L, in canonical form.

        Neurons are ordered by descending `|eigenvalue|`, and the entry of largest
        magnitude of each is positive.

        Args:
            low_rank: L, factor (p, r) and diagonal (r,).
            linear: b, (p,); None for zeros.
            intercept: c, a scalar, such as `solution.intercept`.

        Raises:
            TypeError: no `LowRank`.

        >>> import jax.numpy as jnp
        >>> net = QuadraticNetwork.from_low_rank(LowRank(jnp.eye(2)[:, :1], jnp.array([-3.0])))
        >>> net.neurons.shape, net.output_weights.tolist()
        ((1, 2), [-3.0])
        """
        if not isinstance(low_rank, LowRank):
            raise TypeError(f"low_rank is a {type(low_rank).__name__}; expected jaxpoly.LowRank")
        eigen = lowrank.eigen_form(low_rank)
        neurons = eigen.factor.T
        peak = jnp.take_along_axis(neurons, jnp.argmax(jnp.abs(neurons), axis=1)[:, None], axis=1)
        dtype = neurons.dtype
        if linear is None:
            linear = jnp.zeros((neurons.shape[1],), dtype)
        return QuadraticNetwork(
            neurons=neurons * jnp.where(peak < 0, -1, 1).astype(dtype),
            output_weights=eigen.diagonal,
            linear=jnp.asarray(linear, dtype),
            intercept=jnp.asarray(intercept, dtype),
        )

    def __call__(self, inputs: ArrayLike) -> Array:
        """Predict: inputs (m, p) give (m,), one input (p,) gives a scalar.

        Raises:
            ValueError, TypeError: inputs that do not fit the neurons.

        >>> import jax.numpy as jnp
        >>> net = QuadraticNetwork.from_low_rank(LowRank(jnp.eye(2), jnp.array([1.0, -1.0])))
        >>> net(jnp.array([[3.0, 1.0]])).tolist()
        [8.0]
        """
        batch = as_float_array("inputs", inputs, ndim=(1, 2))
        single = batch.ndim == 1
        if batch.shape[-1] != self.neurons.shape[1]:
            raise ValueError(
                f"inputs has shape {batch.shape}; expected {self.neurons.shape[1]} columns to fit "
                f"neurons of shape {self.neurons.shape}"
            )
        batch = jnp.atleast_2d(batch)
        quadratic = matmul(kernels.project(batch, self.neurons.T) ** 2, self.output_weights)
        outputs = quadratic + matmul(batch, self.linear) + self.intercept
        return outputs[0] if single else outputs

    def lift(self) -> LowRank:
        """Return `L = sum_j a_j w_j w_j^T`; the linear part and intercept are not in it."""
        return LowRank(self.neurons.T, self.output_weights)
