"""Preconditioned conjugate gradients for the linear problems on the tangent space."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax


def conjugate_gradient(
    operator: Callable[[Array], Array],
    precondition: Callable[[Array], Array],
    target: Array,
    damping: Array,
    forcing: Array,
    num_steps: int,
    loop: Callable[..., Any] = lax.while_loop,
) -> tuple[Array, Array, Array]:
    """Solve `operator(D) + damping D = target` roughly, from D = 0.

    Stops at a remainder of `forcing` times the target, in the norm of the preconditioner,
    or after `num_steps`; `loop` is `lax.while_loop` or one like it.

    Returns:
        D, and along the preconditioned target z, the first direction, the slope
        `<target, z>` and the curvature `<z, operator(z)>`, undamped.
    """
    conditioned = precondition(target)
    size = jnp.sum(target * conditioned)

    def unfinished(carry):
        _, _, _, rest, _, count = carry
        return (count < num_steps) & (rest > forcing**2 * size)

    def body(carry):
        solution, remainder, direction, rest, first, count = carry
        image = operator(direction)
        first = jnp.where(count == 0, jnp.sum(direction * image), first)
        image = image + damping * direction
        bend = jnp.sum(direction * image)
        step = rest / jnp.where(bend > 0, bend, jnp.inf)
        solution = solution + step * direction
        remainder = remainder - step * image
        conditioned = precondition(remainder)
        left = jnp.sum(remainder * conditioned)
        direction = conditioned + left / rest * direction
        return solution, remainder, direction, left, first, count + 1

    start = (jnp.zeros_like(target), target, conditioned, size, jnp.zeros_like(size), 0)
    solution, _, _, _, first, _ = loop(unfinished, body, start)
    return solution, size, first
