"""A peer: L-BFGS on neurons and output weights, from the spectral start."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

import jaxpoly as jp
from jaxpoly.solvers.spectral import spectral_start

STEPS = 500


def spectral_lbfgs(rank: int, lifting: jp.Lifting, targets: Array, key: Array) -> jp.LowRank:
    """Return L after at most 500 steps of optax's L-BFGS on (W, a) with a free intercept."""
    centred = targets - jnp.mean(targets)
    start, _, _ = spectral_start(lifting, centred, rank, False, "centre", key)
    size = jnp.sqrt(jnp.abs(start.diagonal))
    # Neurons carry the size, output weights the sign, so that both are of order one.
    parameters = (start.factor * size[None, :], jnp.sign(start.diagonal))
    variance = jnp.mean(centred**2)

    def loss(parameters: tuple[Array, Array]) -> Array:
        fit = jp.measure(lifting, jp.LowRank(*parameters)) - targets
        return jnp.mean((fit - jnp.mean(fit)) ** 2) / variance

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
