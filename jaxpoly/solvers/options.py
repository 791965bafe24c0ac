"""The options that all solvers share, and their checks."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxpoly.validation import check_choice, check_count, check_step_size

# The natural step minimises the loss along the tangent gradient.  Half of it
# recovers more problems where samples are few, and costs few steps where they
# are many (measured from 1.5 to 6 times the number of unknowns).
RELAXATION = 0.5


def check_options(rank: Any, step_size: Any, debias: Any, positive: Any) -> dict[str, Any]:
    """Return the shared options by name, or say which one is wrong."""
    check_choice("debias", debias, ("centre", "trace", "none"))
    if not isinstance(positive, bool):
        raise TypeError(f"positive is {positive!r}; expected True or False")
    return {
        "step_size": check_step_size(step_size),
        "rank": check_count("rank", rank, 1),
        "debias": debias,
        "positive": positive,
    }


def choose_step_size(
    fixed: Array | None, natural: Array, unit: Array | float = 1.0
) -> tuple[Array, Array]:
    """Return the user's step size, or the relaxed natural one, for X in a unit; and for X itself.

    A step size has the unit `X^-4`.
    """
    if fixed is None:
        step_size = RELAXATION * natural
        return step_size, fourth_power(step_size, 1 / unit)
    given = jnp.asarray(fixed, natural.dtype)
    return fourth_power(given, unit), given


def fourth_power(value: Array | float, unit: Array | float) -> Any:
    """Return `value unit^4`; a value of zero stays zero whatever the unit."""
    for _ in range(4):
        value = value * unit
    return value
