"""A peer: L-BFGS on neurons and output weights, from the spectral start."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

import jaxpoly as jp
from jaxpoly.solvers.spectral import spectral_start

STEPS = 500


def spectral_factor(
    rank: int, lifting: jp.Lifting, targets: Array, key: Array, positive: bool = False
) -> tuple[Array, Array]:
    """Return the spectral start as neurons, which carry the size, and output weights of +-1."""
    centred = targets - jnp.mean(targets)
    start, _, _ = spectral_start(lifting, centred, rank, positive, "centre", key)
    size = jnp.sqrt(jnp.abs(start.diagonal))
    return start.factor * size[None, :], jnp.sign(start.diagonal)


def unexplained(low_rank: jp.LowRank, lifting: jp.Lifting, targets: Array) -> Array:
    """Return the variance of the residual over that of the targets, as one writes it in JAX."""
    fit = (lifting.inputs @ low_rank.factor) ** 2 @ low_rank.diagonal
    return jnp.var(fit - targets) / jnp.var(targets)


def spectral_lbfgs(rank: int, lifting: jp.Lifting, targets: Array, key: Array) -> jp.LowRank:
    """Return L after at most 500 steps of optax's L-BFGS on (W, a) with a free intercept."""
    parameters = spectral_factor(rank, lifting, targets, key)

    def loss(parameters: tuple[Array, Array]) -> Array:
        return unexplained(jp.LowRank(*parameters), lifting, targets)

    optimizer = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(loss)

    def unfinished(carry):
        _, state, step = carry
        value = optax.tree.get(state, "value")
        return (step < STEPS) & ((step == 0) | (value > 1e-24))

    def body(carry):
        parameters, state, step = carry
        value, gradient = value_and_gradient(parameters, state=state)
        updates, state = optimizer.update(
            gradient, state, parameters, value=value, grad=gradient, value_fn=loss
        )
        return optax.apply_updates(parameters, updates), state, step + 1

    first = (parameters, optimizer.init(parameters), 0)
    parameters, _, _ = jax.lax.while_loop(unfinished, body, first)
    return jp.LowRank(*parameters)
