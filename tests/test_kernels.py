"""The kernels equal their formulas, whole or in row blocks, alone or in batches."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpy.testing import assert_allclose

from jaxpoly import HalfPrecision, kernels, row_blocks
from jaxpoly.lifting import scale_rows
from jaxpoly.solvers.gauss_newton import tangent_gram

TOLERANCE = {"float32": 2e-5, "float64": 1e-13}
SHAPES = [(1, 1, 1), (7, 3, 2), (4, 9, 5), (57, 6, 3)]


@pytest.fixture(params=["whole", "blocks"])
def form(request, monkeypatch):
    """Every kernel in each of its forms; the blocks are so small that there are several."""
    if request.param == "blocks":
        monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 480)
        monkeypatch.setattr(kernels, "_in_blocks", lambda inputs: True)
    return request.param


def arrays(seed, dtype, *shapes):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype(dtype) for shape in shapes]


def check(found, expected, dtype):
    assert found.dtype == dtype
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("m", "p", "k"), SHAPES)
def test_projections_equal_the_products_of_numpy(m, p, k, dtype):
    inputs, block, rows = arrays(0, dtype, (m, p), (p, k), (m, k))
    exact = inputs.astype(np.float64)
    check(kernels.project(jnp.asarray(inputs), jnp.asarray(block)), exact @ block, dtype)
    check(
        kernels.project(jnp.asarray(inputs), jnp.asarray(block[:, 0])), exact @ block[:, 0], dtype
    )
    check(kernels.back_project(jnp.asarray(inputs), jnp.asarray(rows)), exact.T @ rows, dtype)
    single = kernels.back_project(jnp.asarray(inputs), jnp.asarray(rows[:, 0]))
    check(single, exact.T @ rows[:, 0], dtype)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("m", "p", "k"), SHAPES)
def test_a_sweep_equals_project_weigh_and_back_project(m, p, k, dtype):
    inputs, weight, block, rows = arrays(2, dtype, (m, p), (m,), (p, k), (m, k))
    x, v, b, z = map(jnp.asarray, (inputs, weight, block, rows))
    exact = inputs.astype(np.float64)
    image, products = kernels.sweep(x, b, scale_rows, v)
    check(products, exact @ block, dtype)
    check(image, exact.T @ (weight[:, None] * (exact @ block)), dtype)
    forms = np.sum(rows * (exact @ block), axis=1)
    image, _ = kernels.sweep(x, b, tangent_gram, z, v)
    check(image, exact.T @ ((4 * weight * forms)[:, None] * rows), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("m", "p", "k"), SHAPES)
def test_the_weighted_gram_matrix_equals_the_einsum(m, p, k, dtype):
    inputs, weight = arrays(3, dtype, (m, p), (m,))
    gram = np.einsum("i,ia,ib->ab", weight, inputs, inputs, dtype=np.float64)
    check(kernels.weighted_gram(jnp.asarray(inputs), jnp.asarray(weight)), gram, dtype)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_equals_its_problems_one_by_one(shared):
    inputs, block, weight = arrays(4, "float64", (3, 41, 6), (3, 6, 2), (3, 41))
    inputs = inputs[0] if shared else inputs
    axes = (None if shared else 0, 0, 0)
    single = partial(_sweep, jnp.asarray)
    batch = jax.jit(jax.vmap(_scaled_sweep, in_axes=axes))(inputs, block, weight)
    for index in range(3):
        x = inputs if shared else inputs[index]
        for found, expected in zip(batch, single(x, block[index], weight[index]), strict=True):
            assert_allclose(found[index], expected, rtol=1e-12, atol=1e-12)


def _scaled_sweep(inputs, block, weight):
    return kernels.sweep(inputs, block, scale_rows, weight)


def _sweep(convert, *given):
    return _scaled_sweep(*map(convert, given))


def test_targets_that_share_inputs_become_one_large_product():
    inputs, blocks, weights = arrays(5, "float32", (64, 20), (8, 20, 3), (8, 64))
    batch = jax.jit(jax.vmap(_scaled_sweep, in_axes=(None, 0, 0)))
    text = batch.lower(inputs, blocks, weights).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 2
    assert not any("batching_dims" in line for line in products)
    # Three columns for each target: none is added, as it is for one.
    assert all("x3xf32>" in line.rpartition("->")[2] for line in products), products


@pytest.mark.usefixtures("form")
def test_batches_of_batches_equal_their_problems_one_by_one():
    data = arrays(9, "float64", (2, 41, 6), (2, 3, 6, 5), (2, 3, 41))
    # Of targets that share X, of several X; and the other way round.
    of_targets = jax.vmap(jax.vmap(_scaled_sweep, in_axes=(None, 0, 0)))
    of_inputs = jax.vmap(jax.vmap(_scaled_sweep), in_axes=(None, 1, 1), out_axes=1)
    for batch, i, j in product(map(jax.jit, (of_targets, of_inputs)), range(2), range(3)):
        expected = _scaled_sweep(*map(jnp.asarray, (data[0][i], data[1][i, j], data[2][i, j])))
        for found, one in zip(batch(*data), expected, strict=True):
            assert_allclose(found[i, j], one, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("form")
def test_the_linear_kernels_can_be_transposed():
    inputs, block, weight = map(jnp.asarray, arrays(5, "float64", (64, 20), (20, 5), (64,)))
    applied, there = (
        jax.linear_transpose(lambda b: kernels.project(inputs, b), block),
        inputs @ block,
    )
    assert_allclose(applied(there)[0], inputs.T @ there, rtol=1e-12, atol=1e-12)
    symmetric = partial(_first, inputs, weight)
    back = jax.linear_transpose(symmetric, block)(block)[0]
    assert_allclose(back, symmetric(block), rtol=1e-12, atol=1e-12)
    blocks = jnp.stack([block, -block, 2 * block])
    transposed = jax.jit(lambda b: jax.linear_transpose(jax.vmap(symmetric), b)(b)[0])(blocks)
    assert_allclose(transposed, jax.vmap(symmetric)(blocks), rtol=1e-12, atol=1e-12)
    of_each = jax.vmap(lambda b: jax.linear_transpose(symmetric, b)(b)[0])(blocks)
    assert_allclose(of_each, transposed, rtol=1e-12, atol=1e-12)


def _first(inputs, weight, block):
    return _scaled_sweep(inputs, block, weight)[0]


@pytest.mark.usefixtures("form")
def test_a_column_without_its_axis_and_no_columns_are_projected_too():
    inputs, block = arrays(6, "float32", (57, 20), (20,))
    half = HalfPrecision(jnp.asarray(inputs, "bfloat16"))
    rounded = np.asarray(half.values.astype("float32"))
    check(kernels.project(jnp.asarray(inputs), jnp.asarray(block)), inputs @ block, "float32")
    check(kernels.project(half, jnp.asarray(block)), rounded @ block, "float32")
    assert kernels.project(half, jnp.zeros((20, 0), jnp.float32)).shape == (57, 0)


@pytest.mark.usefixtures("form")
def test_every_kernel_is_differentiable_twice_in_all_it_is_given():
    inputs, block, rows, weight = arrays(6, "float64", (41, 6), (6, 2), (41, 2), (41,))

    def loss(inputs, block, rows, weight):
        image, products = _scaled_sweep(inputs, block, weight)
        back = kernels.back_project(inputs, rows) * kernels.back_project(inputs, weight)[:, None]
        forward = kernels.project(inputs, block)
        return jnp.sum(image**2 * back) + jnp.sum(products * forward**2)

    arguments = tuple(map(jnp.asarray, (inputs, block, rows, weight)))
    check_grads(jax.jit(loss), arguments, order=2, modes=("fwd", "rev"), rtol=1e-4)


@pytest.mark.usefixtures("form")
def test_inputs_in_half_precision_are_differentiable_in_what_is_multiplied_with_them():
    inputs, block, weight = map(jnp.asarray, arrays(6, "float32", (57, 6), (6, 2), (57,)))
    halved = HalfPrecision(inputs.astype("bfloat16"))

    def loss(inputs, block, weight):
        image, _ = _scaled_sweep(inputs, block, weight)
        return jnp.sum(image**2) + jnp.sum(kernels.project(inputs, block) ** 2)

    slopes = jax.grad(loss, argnums=(0, 1, 2))(halved, block, weight)
    rounded = halved.values.astype("float32")
    expected = jax.grad(loss, argnums=(0, 1, 2))(rounded, block, weight)
    assert slopes[0].values.dtype == jnp.bfloat16
    slopes = slopes[0].values.astype("float32"), *slopes[1:]
    for found, exact, tolerance in zip(slopes, expected, (0.01, 1e-5, 1e-5), strict=True):
        assert_allclose(found, exact, rtol=0, atol=tolerance * np.abs(exact).max())


def test_the_way_back_through_blocks_writes_one_array_of_the_size_of_the_inputs():
    inputs = jax.ShapeDtypeStruct((100_000, 500), jnp.float32)
    block, weight = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((500, 5), (100_000,)))

    def loss(inputs, block, weight):
        return jnp.sum(_scaled_sweep(inputs, block, weight)[0] ** 2)

    for argument, copies in ((0, 1), (1, 0), (2, 0)):
        slope = jax.jit(jax.grad(loss, argnums=argument))
        compiled = slope.lower(inputs, block, weight).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < (copies + 0.1) * inputs.size * 4


def test_blocks_write_nothing_of_the_size_of_the_inputs():
    inputs = jax.ShapeDtypeStruct((400_000, 500), jnp.float32)
    block, weight = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((500, 5), (400_000,)))
    compiled = jax.jit(_scaled_sweep).lower(inputs, block, weight).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.05 * inputs.size * 4


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_inputs_give_the_products_of_the_rounded_inputs_in_float32(dtype):
    inputs, block, weight = map(jnp.asarray, arrays(7, "float32", (57, 6), (6, 3), (57,)))
    halved = HalfPrecision(inputs.astype(dtype))
    rounded = halved.values.astype("float32")
    for found, expected in zip(
        _scaled_sweep(halved, block, weight), _scaled_sweep(rounded, block, weight), strict=True
    ):
        assert found.dtype == jnp.float32
        assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert_allclose(kernels.project(halved, block), kernels.project(rounded, block), rtol=1e-5)
    back = kernels.back_project(halved, weight), kernels.back_project(rounded, weight)
    assert_allclose(*back, rtol=1e-5, atol=1e-4)
    assert kernels.magnitude(halved) == kernels.magnitude(rounded)


@pytest.mark.parametrize(("dtype", "copies"), [("float16", 0), ("bfloat16", 1)])
def test_half_precision_inputs_are_never_converted_as_a_whole(dtype, copies):
    values = jax.ShapeDtypeStruct((400_000, 500), dtype)
    block, weight = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((500, 5), (400_000,)))
    for kernel in (
        lambda v, b, w: _scaled_sweep(HalfPrecision(v), b, w),
        lambda v, b, w: kernels.project(HalfPrecision(v), b),
        lambda v, b, w: kernels.back_project(HalfPrecision(v), w),
        lambda v, b, w: kernels.magnitude(HalfPrecision(v)),
    ):
        compiled = jax.jit(kernel).lower(values, block, weight).compile()
        temporary = compiled.memory_analysis().temp_size_in_bytes
        assert temporary < (copies + 0.2) * values.size * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_magnitude_shows_entries_that_are_not_finite_and_inputs_that_vanish(bad):
    inputs = np.zeros((300, 70))
    assert kernels.magnitude(jnp.asarray(inputs)) == 0
    inputs[123, 45] = 1e-300
    assert kernels.magnitude(jnp.asarray(inputs)) > 0
    inputs[123, 45] = bad
    assert not jnp.isfinite(kernels.magnitude(jnp.asarray(inputs)))
