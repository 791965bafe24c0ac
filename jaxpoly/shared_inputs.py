"""One product in two forms: for one problem or inputs of its own, and for a batch that shares X.

What pays for one thin product, columns of zeros beside it, is work for nothing where `jax.vmap`
puts the products of a whole batch with the same X side by side: they are one wide product.
Only the batching rule of a primitive is told which of the two it is.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Form = Callable[..., tuple[Array, ...]]

_two_forms = Primitive("jaxpoly_two_forms")
_two_forms.multiple_results = True


def two_forms(alone: Form, shared: Form) -> Form:
    """Return a function of X and more, computed by `alone`, and by `shared` in batches of one X.

    Both are the same function in other words, and return a tuple.  It has a batching rule and,
    for arguments that it is linear in, a transpose; derivatives are the caller's.
    """

    def either(values: Array, *rest: Array) -> tuple[Array, ...]:
        return tuple(_two_forms.bind(values, *rest, alone=alone, shared=shared))

    return either


def _alone(*args: Array, alone: Form, shared: Form) -> tuple[Array, ...]:
    return alone(*args)


@_two_forms.def_abstract_eval
def _(*args: Any, alone: Form, shared: Form) -> Any:
    structs = [jax.ShapeDtypeStruct(arg.shape, arg.dtype) for arg in args]
    found = jax.eval_shape(shared, *structs)
    return [jax.core.ShapedArray(one.shape, one.dtype) for one in found]


def _batched(args: Any, axes: Any, alone: Form, shared: Form) -> tuple[Any, Any]:
    form = shared if axes[0] is None else alone
    found = jax.vmap(form, in_axes=tuple(axes))(*args)
    return found, [0] * len(found)


def _transposed(cotangents: Any, *args: Any, alone: Form, shared: Form) -> list[Any]:
    unknown = [place for place, arg in enumerate(args) if ad.is_undefined_primal(arg)]

    def linear(*found: Array) -> tuple[Array, ...]:
        every = list(args)
        for place, value in zip(unknown, found, strict=True):
            every[place] = value
        return shared(*every)

    structs: list[Any] = [args[place].aval for place in unknown]
    structs = [jax.ShapeDtypeStruct(one.shape, one.dtype) for one in structs]
    images = jax.eval_shape(linear, *structs)
    given = tuple(
        jnp.zeros(image.shape, image.dtype) if isinstance(one, ad.Zero) else one
        for one, image in zip(cotangents, images, strict=True)
    )
    back = dict(zip(unknown, jax.linear_transpose(linear, *structs)(given), strict=True))
    return [back.get(place) for place in range(len(args))]


_two_forms.def_impl(_alone)
batching.primitive_batchers[_two_forms] = _batched
ad.primitive_transposes[_two_forms] = _transposed
mlir.register_lowering(_two_forms, mlir.lower_fun(_alone, multiple_results=True))
