"""The kernels equal their formulas, written with dense numpy arrays."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxpoly import kernels

TOLERANCE = {"float32": 2e-5, "float64": 1e-13}
SHAPES = [(1, 1, 1), (7, 3, 2), (4, 9, 5)]


def arrays(seed, dtype, *shapes):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype(dtype) for shape in shapes]


def check(found, expected, dtype):
    assert found.dtype == dtype
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("m", "p", "k"), SHAPES)
def test_quadratic_forms_equal_the_einsum_with_the_dense_matrix(m, p, k, dtype):
    inputs, factor, diagonal = arrays(0, dtype, (m, p), (p, k), (k,))
    matrix = np.einsum("aj,j,bj->ab", factor, diagonal, factor, dtype=np.float64)
    expected = np.einsum("ia,ab,ib->i", inputs, matrix, inputs, dtype=np.float64)
    check(kernels.quadratic_forms(*map(jnp.asarray, (inputs, factor, diagonal))), expected, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("m", "p", "k"), SHAPES)
def test_bilinear_forms_equal_the_einsum_with_the_dense_matrix(m, p, k, dtype):
    inputs, left, right = arrays(1, dtype, (m, p), (p, k), (p, k))
    matrix = left.astype(np.float64) @ right.T
    expected = np.einsum("ia,ab,ib->i", inputs, matrix, inputs, dtype=np.float64)
    check(kernels.bilinear_forms(*map(jnp.asarray, (inputs, left, right))), expected, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("m", "p", "k"), SHAPES)
def test_weighted_gram_and_its_product_equal_the_einsum(m, p, k, dtype):
    inputs, row_weight, block = arrays(2, dtype, (m, p), (m,), (p, k))
    gram = np.einsum("i,ia,ib->ab", row_weight, inputs, inputs, dtype=np.float64)
    x, v, b = map(jnp.asarray, (inputs, row_weight, block))
    check(kernels.weighted_gram(x, v), gram, dtype)
    check(kernels.weighted_gram_product(x, v, b), gram @ block, dtype)
