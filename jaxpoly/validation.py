"""Checks of shapes, dtypes and static options; they raise while tracing.

Values are not checked here: NaN, divergence and degenerate data become a status.
"""

import dataclasses
import math
import numbers
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxpoly.half_precision import HalfPrecision


def as_float_array(name: str, value: Any, ndim: int | tuple[int, ...], dtype: Any = None) -> Array:
    """Return `value` as a real floating array of `ndim` axes, or say what is wrong.

    Lists, integers and booleans become the default float; float16 and bfloat16
    become float32; `dtype` overrides.
    """
    value, dtype = real_array(name, value, ndim, dtype)
    if isinstance(value, np.ndarray):
        # Before JAX sees it: JAX knows neither long double nor foreign byte order.
        value = value.astype(dtype)
    # Most often there is nothing to do, and of a short solve each call is a part.
    if isinstance(value, jax.Array) and value.dtype == dtype:
        return value
    return jnp.asarray(value).astype(dtype)


def real_array(
    name: str, value: Any, ndim: int | tuple[int, ...], dtype: Any = None
) -> tuple[np.ndarray | Array, Any]:
    """Return `value` as an array where it lies, not converted, and the dtype to convert it to."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill it, or give sample_weight=0 to such rows")
    if not isinstance(value, list | tuple | np.ndarray | np.generic | jax.Array | numbers.Number):
        if type(value).__module__.startswith("jaxpoly."):
            raise TypeError(
                f"{name} is a {type(value).__name__}; expected an array of numbers: only "
                "jaxpoly.Lifting takes what stands for one, and only for the solvers"
            )
        raise TypeError(
            f"{name} is a {type(value).__module__}.{type(value).__name__}; expected a JAX or "
            "numpy array or a list of numbers: convert it with numpy.asarray(...), or "
            ".toarray() if it is sparse"
        )
    has_dtype = hasattr(value, "dtype")
    if not isinstance(value, jax.Array):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name} is a ragged list: {error}") from error
    if value.dtype.kind not in "biuf" and not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {value.dtype}; expected real numbers")
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if value.ndim not in allowed:
        expected = " or ".join(map(str, allowed))
        raise ValueError(
            f"{name} has shape {value.shape}; expected {expected} axes{_hint(value, allowed[-1])}"
        )
    if dtype is None:
        dtype = working_dtype(name, value) if has_dtype else jnp.result_type(float)
    return value, dtype


def _hint(value: Any, ndim: int) -> str:
    if ndim == 1 and value.ndim == 2 and 1 in value.shape:
        return ": pass its .ravel()"
    if value.ndim == ndim + 1:
        return ": use jax.vmap for a batch of problems"
    return ""


def working_dtype(name: str, value: Any) -> Any:
    """Return the dtype that is computed in with this array: float32 or float64."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.result_type(float)
    if jnp.finfo(value.dtype).bits < 32:
        return jnp.float32
    if jnp.finfo(value.dtype).bits >= 64 and jnp.result_type(float) == jnp.float32:
        warnings.warn(
            f"{name} is {value.dtype} but jax_enable_x64 is off: computing in float32",
            stacklevel=5,
        )
        return jnp.float32
    return jnp.float64 if jnp.finfo(value.dtype).bits >= 64 else jnp.float32


def check_lifting(lifting: Any) -> Any:
    """Return the lifting with float arrays of fitting shapes."""
    for field in ("inputs", "sample_weight", "linear_basis"):
        if not hasattr(lifting, field):
            raise TypeError(
                f"lifting is a {type(lifting).__name__}; expected jaxpoly.Lifting(inputs)"
            )
    inputs = _check_inputs(lifting.inputs)
    if 0 in inputs.shape:
        raise ValueError(
            f"lifting.inputs has shape {inputs.shape}; expected at least one sample and one column"
        )
    weight = lifting.sample_weight
    if weight is not None:
        weight = check_vector("lifting.sample_weight", weight, inputs)
    basis = lifting.linear_basis
    if basis is not None:
        basis = check_block(basis, inputs, "lifting.linear_basis")
    return dataclasses.replace(lifting, inputs=inputs, sample_weight=weight, linear_basis=basis)


def _check_inputs(inputs: Any) -> Any:
    if isinstance(inputs, HalfPrecision):
        values = inputs.values
        if not isinstance(values, jax.Array | np.ndarray):
            raise TypeError(f"HalfPrecision holds a {type(values).__name__}; expected an array")
        if values.ndim != 2 or values.dtype not in (jnp.bfloat16, jnp.float16):
            raise TypeError(
                f"HalfPrecision holds {values.dtype} of shape {values.shape}; expected (m, p) "
                "of bfloat16 or float16: HalfPrecision(inputs.astype(jnp.bfloat16))"
            )
        return inputs
    # Any other object that knows how to be swept is taken at its word.
    return inputs if hasattr(inputs, "sweep") else as_float_array("lifting.inputs", inputs, 2)


def check_solver(solver: Any) -> None:
    """Refuse what is no solver."""
    if isinstance(solver, type) or not (hasattr(solver, "init") and hasattr(solver, "step")):
        raise TypeError(f"solver is {solver!r}; expected a solver such as jaxpoly.ep_rom(rank=5)")


def check_weight_values(weight: Array | None) -> None:
    """Refuse negative or all-zero weights where their values are known."""
    if weight is None or isinstance(weight, jax.core.Tracer) or not weight.is_fully_addressable:
        return
    # In numpy: inside a trace JAX would stage these tests, and it flushes denormals.
    values = np.asarray(weight)
    if np.any(values < 0):
        raise ValueError("lifting.sample_weight has negative entries; expected weights >= 0")
    if not np.any(values != 0):
        raise ValueError("lifting.sample_weight is all zero; expected some positive weight")


def check_vector(name: str, value: ArrayLike, inputs: Array) -> Array:
    """Return `value` as an (m,) array in the dtype of the inputs."""
    vector = as_float_array(name, value, ndim=1, dtype=inputs.dtype)
    check_length(name, vector, inputs)
    return vector


def check_length(name: str, vector: Any, inputs: Any) -> None:
    """Refuse a vector that has not one entry for each row of the inputs."""
    if vector.shape[0] != inputs.shape[0]:
        raise ValueError(
            f"{name} has length {vector.shape[0]}, but lifting.inputs has {inputs.shape[0]} "
            f"rows (shape {inputs.shape})"
        )


def check_block(block: ArrayLike, inputs: Array, name: str = "block") -> Array:
    """Return `block` as a (p, k) array in the dtype of the inputs."""
    block = as_float_array(name, block, ndim=2, dtype=inputs.dtype)
    if block.shape[0] != inputs.shape[1]:
        raise ValueError(
            f"{name} has shape {block.shape}; expected ({inputs.shape[1]}, k) to fit "
            f"lifting.inputs of shape {inputs.shape}"
        )
    return block


def check_low_rank(low_rank: Any, inputs: Array, name: str) -> Any:
    """Return the LowRank with a (p, r) factor and an (r,) diagonal that fit the inputs."""
    if not (hasattr(low_rank, "factor") and hasattr(low_rank, "diagonal")):
        raise TypeError(f"{name} is a {type(low_rank).__name__}; expected jaxpoly.LowRank")
    factor = as_float_array(f"{name}.factor", low_rank.factor, ndim=2, dtype=inputs.dtype)
    diagonal = as_float_array(f"{name}.diagonal", low_rank.diagonal, ndim=1, dtype=inputs.dtype)
    if factor.shape != (inputs.shape[1], diagonal.shape[0]):
        raise ValueError(
            f"{name} has factor {factor.shape} and diagonal {diagonal.shape}; expected (p, r) and "
            f"(r,) with p = {inputs.shape[1]} from lifting.inputs of shape {inputs.shape}"
        )
    return dataclasses.replace(low_rank, factor=factor, diagonal=diagonal)


def check_count(name: str, value: Any, minimum: int) -> int:
    """Return a static integer of at least `minimum`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"{name} is {value!r} of type {type(value).__name__}; expected a Python int "
            "(not a float, and not traced where it sets a shape)"
        )
    if value < minimum:
        raise ValueError(f"{name} is {value}; expected at least {minimum}")
    return int(value)


def check_rank_fits(rank: int, dim: int) -> None:
    """Refuse a rank above the dimension."""
    if rank > dim:
        raise ValueError(f"rank is {rank}, above the input dimension p = {dim}; expected rank <= p")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a static option that is not one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def check_step_size(step_size: Any) -> Any:
    """Refuse a step size that is known and not a positive finite number."""
    if isinstance(step_size, jax.Array) and not jnp.issubdtype(step_size.dtype, jnp.floating):
        raise TypeError(f"step_size has dtype {step_size.dtype}; expected a floating number")
    if step_size is None or isinstance(step_size, jax.core.Tracer):
        return step_size
    if isinstance(step_size, jax.Array):
        step_size = np.asarray(step_size)
    if isinstance(step_size, bool) or not isinstance(
        step_size, float | int | np.number | np.ndarray
    ):
        raise TypeError(f"step_size is {step_size!r}; expected a positive number or None")
    if not (np.all(np.isfinite(step_size)) and np.all(np.asarray(step_size) > 0)):
        raise ValueError(f"step_size is {step_size!r}; expected a positive finite number or None")
    return step_size


def check_number(name: str, value: Any) -> Any:
    """Refuse a number that is known and negative or not finite."""
    number = isinstance(value, float | int | np.number | np.ndarray | jax.Array)
    if not number or isinstance(value, bool) or jnp.ndim(value) > 0 or jnp.iscomplexobj(value):
        raise TypeError(f"{name} is {value!r}; expected one real number")
    if isinstance(value, jax.core.Tracer):
        return value
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} is {value}; expected a finite number >= 0")
    return value


def check_key(key: Any) -> Array:
    """Return a typed JAX random key; old-style uint32 keys are accepted."""
    if not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(
            f"key is {key!r}; expected a JAX key: jax.random.key({key!r})"
            if isinstance(key, int)
            else f"key is a {type(key).__name__}; expected a JAX key, jax.random.key(0)"
        )
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        typed = jnp.asarray(key)
    elif key.dtype == jnp.uint32:
        typed = jax.random.wrap_key_data(jnp.asarray(key))
    else:
        raise TypeError(f"key has dtype {key.dtype}; expected a JAX key, jax.random.key(0)")
    if typed.shape != ():
        raise ValueError(f"key has batch shape {typed.shape}; expected one key: use jax.vmap")
    return typed
