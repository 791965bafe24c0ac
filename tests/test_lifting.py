"""The lifting is linear, has the adjoint it claims, and its gradient is the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxpoly import Lifting, LowRank, backproject, dense_gradient, gradient_map, measure
from jaxpoly.lifting import (
    centre,
    fitted_affine,
    weighted_mean,
    weighted_norm,
)

DEBIAS = ["centre", "trace", "none"]
M, P, R = 11, 5, 2


def random_data(seed, weighted, dtype=jnp.float64, m=M, p=P):
    """Return a lifting, a residual and a symmetric matrix with its factors."""
    generator = np.random.default_rng(seed)
    shapes = (m, p), (m,), (p, R), (R,)
    x, v, f, d = (jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes)
    weight = jnp.asarray(generator.uniform(0.1, 3.0, m), dtype) if weighted else None
    return Lifting(x, weight), v, LowRank(f, d)


def dense(low_rank):
    factor, diagonal = np.asarray(low_rank.factor), np.asarray(low_rank.diagonal)
    return np.einsum("ij,j,kj->ik", factor, diagonal, factor)


def weights(lifting):
    given = lifting.sample_weight
    return np.ones(lifting.inputs.shape[0]) if given is None else np.asarray(given)


def formula(lifting, residual, debias):
    """The debiased gradient, written with dense moments."""
    x, share = np.asarray(lifting.inputs), weights(lifting) / weights(lifting).sum()
    second_moment = np.einsum("i,ia,ib->ab", share, x, x)
    plain = np.einsum("i,i,ia,ib->ab", share, residual, x, x)
    mean = share @ np.asarray(residual)
    shift = {"centre": second_moment, "trace": np.eye(x.shape[1]), "none": 0.0}[debias]
    return (plain - mean * shift) / 2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_measurement_is_the_quadratic_form_of_the_dense_matrix(seed, weighted):
    lifting, _, low_rank = random_data(seed, weighted)
    x = np.asarray(lifting.inputs)
    expected = np.einsum("ia,ab,ib->i", x, dense(low_rank), x)
    assert_allclose(measure(lifting, low_rank), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_back_projection_is_the_weighted_adjoint_of_the_measurement(seed, weighted, dtype):
    lifting, residual, low_rank = random_data(seed, weighted, dtype)
    measured, w = np.asarray(measure(lifting, low_rank)), weights(lifting)
    projected = np.asarray(backproject(lifting, residual, jnp.eye(P, dtype=dtype)))
    left = np.sum(measured * w * np.asarray(residual))
    right = w.sum() * np.sum(dense(low_rank) * projected)
    size = np.linalg.norm(measured) * np.linalg.norm(w * np.asarray(residual))
    assert abs(left - right) <= 100 * jnp.finfo(dtype).eps * size


@pytest.mark.parametrize("debias", DEBIAS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_gradient_equals_its_formula(seed, weighted, debias):
    lifting, residual, _ = random_data(seed, weighted)
    block = np.random.default_rng(seed).normal(size=(P, 3))
    expected = formula(lifting, residual, debias)
    found = gradient_map(lifting, residual, debias)
    assert_allclose(found(jnp.asarray(block)), expected @ block, atol=1e-13)
    assert_allclose(found(jnp.eye(P)), expected, atol=1e-13)
    assert_allclose(dense_gradient(lifting, residual, debias), expected, atol=1e-13)


def test_gradient_is_centred_by_default():
    lifting, residual, _ = random_data(0, True)
    expected = formula(lifting, residual, "centre")
    assert_allclose(gradient_map(lifting, residual)(jnp.eye(P)), expected, atol=1e-13)
    assert_allclose(dense_gradient(lifting, residual), expected, atol=1e-13)


def loss(matrix, lifting, targets, debias):
    """`E(A(L) + c - y)^2 / 2`, with the best intercept c where one is fitted."""
    share = jnp.asarray(weights(lifting) / weights(lifting).sum())
    residual = jnp.einsum("ia,ab,ib->i", lifting.inputs, matrix, lifting.inputs) - targets
    intercept = -jnp.sum(share * residual) if debias == "centre" else 0.0
    return jnp.sum(share * (residual + intercept) ** 2) / 2


@pytest.mark.parametrize("debias", ["centre", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_gradient_is_half_that_of_the_least_squares_loss(seed, weighted, debias):
    lifting, targets, low_rank = random_data(seed, weighted)
    matrix = jnp.asarray(dense(low_rank))
    found = dense_gradient(lifting, measure(lifting, low_rank) - targets, debias)
    automatic = jax.grad(loss)(matrix, lifting, targets, debias)
    assert_allclose(found, automatic / 2, atol=1e-12)

    direction = np.random.default_rng(seed).normal(size=(P, P))
    direction = jnp.asarray(direction + direction.T)
    step = 1e-3
    # The loss is quadratic, so that the central difference has rounding error only.
    ahead = loss(matrix + step * direction, lifting, targets, debias)
    behind = loss(matrix - step * direction, lifting, targets, debias)
    slope = (ahead - behind) / (2 * step)
    assert_allclose(2 * jnp.sum(found * direction), slope, rtol=1e-9)


@pytest.mark.parametrize("debias", DEBIAS)
def test_rows_of_zero_weight_change_nothing(debias):
    lifting, residual, low_rank = random_data(0, False)
    extra, junk, _ = random_data(9, False)
    padded = Lifting(
        jnp.concatenate([lifting.inputs, 1e3 * extra.inputs]),
        jnp.concatenate([jnp.ones(M), jnp.zeros(M)]),
    )
    longer = jnp.concatenate([residual, 1e3 * junk])
    block = low_rank.factor
    pairs = [
        (backproject(lifting, residual, block), backproject(padded, longer, block)),
        (
            gradient_map(lifting, residual, debias)(block),
            gradient_map(padded, longer, debias)(block),
        ),
        (dense_gradient(lifting, residual, debias), dense_gradient(padded, longer, debias)),
        (weighted_mean(lifting, residual), weighted_mean(padded, longer)),
        (fitted_affine(lifting, residual, debias), fitted_affine(padded, longer, debias)),
        (weighted_norm(lifting, residual), weighted_norm(padded, longer)),
        (centre(lifting, residual, debias), centre(padded, longer, debias)[:M]),
    ]
    for without, with_padding in pairs:
        for plain, padded_leaf in zip(*map(jax.tree.leaves, (without, with_padding)), strict=True):
            assert_allclose(padded_leaf, plain, rtol=1e-12, atol=1e-12)


def test_weights_count_up_to_a_common_factor_and_as_repetitions():
    lifting, residual, low_rank = random_data(0, False)
    counts = np.arange(M) % 3
    repeated = Lifting(jnp.repeat(lifting.inputs, counts, axis=0, total_repeat_length=counts.sum()))
    expected = dense_gradient(repeated, jnp.repeat(residual, counts))
    for factor in (1.0, 1e-6, 1e6):
        weighted = Lifting(lifting.inputs, jnp.asarray(counts * factor))
        assert_allclose(dense_gradient(weighted, residual), expected, atol=1e-13)
        assert_allclose(measure(weighted, low_rank), measure(lifting, low_rank), atol=0)


def test_weights_that_are_all_zero_give_zero_and_not_nan():
    lifting, residual, low_rank = random_data(0, False)
    off = Lifting(lifting.inputs, jnp.zeros(M))
    assert not np.any(backproject(off, residual, low_rank.factor))
    assert not np.any(dense_gradient(off, residual))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_weighted_norm_neither_overflows_nor_underflows(scale):
    lifting, residual, _ = random_data(0, True)
    share = weights(lifting) / weights(lifting).sum()
    expected = np.sqrt(share @ np.asarray(residual) ** 2)
    assert_allclose(weighted_norm(lifting, scale * residual), scale * expected, rtol=1e-13)
    assert weighted_norm(lifting, jnp.zeros(M)) == 0


def all_maps(lifting, residual, low_rank):
    block = low_rank.factor
    return (
        measure(lifting, low_rank),
        backproject(lifting, residual, block),
        *(gradient_map(lifting, residual, debias)(block) for debias in DEBIAS),
        *(dense_gradient(lifting, residual, debias) for debias in DEBIAS),
    )


@pytest.mark.parametrize("shared", [False, True])
def test_vmap_and_jit_equal_a_loop(shared):
    cases = [random_data(seed, True) for seed in range(3)]
    if shared:
        cases = [(cases[0][0], *case[1:]) for case in cases]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    if shared:
        batch = (cases[0][0], *batch[1:])
    found = jax.jit(jax.vmap(all_maps, in_axes=(None if shared else 0, 0, 0)))(*batch)
    looped = [all_maps(*case) for case in cases]
    for together, *alone in zip(found, *looped, strict=True):
        assert_allclose(together, np.stack(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_float32_in_gives_float32_out_under_x64(weighted):
    for found in all_maps(*random_data(0, weighted, jnp.float32)):
        assert found.dtype == jnp.float32


@pytest.mark.parametrize("debias", ["centre", "trace"])
@pytest.mark.parametrize("seed", range(2))
def test_expected_gradient_is_the_error_for_gaussian_inputs(seed, debias):
    m = 100_000
    lifting, _, truth = random_data(seed, False, m=m, p=4)
    _, _, other = random_data(seed + 50, False, m=1, p=4)
    error = dense(other) - dense(truth)
    residual = np.asarray(measure(lifting, other) - measure(lifting, truth))
    found = dense_gradient(lifting, jnp.asarray(residual), debias)
    x = np.asarray(lifting.inputs)
    spread = np.std((residual - residual.mean())[:, None, None] * x[:, :, None] * x[:, None, :], 0)
    assert np.all(np.abs(found - error) < 6 * spread / np.sqrt(m))


def test_lists_and_integers_are_cast_to_float():
    rows = [[1, -2], [3, 4], [0, 5]]
    low_rank = LowRank([[1], [2]], [3])
    expected = 3.0 * (np.array(rows) @ [1.0, 2.0]) ** 2
    for inputs in (rows, np.array(rows), np.array(rows, np.int8), jnp.array(rows, jnp.int32)):
        found = measure(Lifting(inputs, [1, 0, 2]), low_rank)
        assert found.dtype == jnp.float64
        assert_allclose(found, expected, rtol=1e-14)
        projected = backproject(Lifting(inputs, [1, 0, 2]), [1, 1, 1], [[1, 0], [0, 1]])
        assert_allclose(projected, [[1 / 3, -2 / 3], [-2 / 3, 54 / 3]], rtol=1e-14)


def test_small_integers_do_not_wrap_around():
    inputs = np.full((2, 3), 200, np.uint8)
    low_rank = LowRank(np.eye(3, 1, dtype=np.uint8), np.ones(1, np.uint8))
    assert measure(Lifting(inputs), low_rank).tolist() == [40000.0, 40000.0]
    assert measure(Lifting(inputs > 0), low_rank).tolist() == [1.0, 1.0]
    assert backproject(Lifting(inputs), inputs[:, 0], np.eye(3, 1))[0, 0] == 200.0**3


@pytest.mark.parametrize("half", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    lifting, residual, low_rank = random_data(0, True, half)
    upcast = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (lifting, residual, low_rank))
    found = measure(lifting, low_rank), backproject(lifting, residual, low_rank.factor)
    expected = measure(upcast[0], upcast[2]), backproject(*upcast[:2], upcast[2].factor)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == jnp.float32
        assert_allclose(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("entry", [0.0, 1.0])
def test_a_matrix_of_equal_entries_known_to_the_compiler_is_measured_right(entry):
    # Fused with its squares, this product is wrong in jaxlib 0.10.2 to 0.12.0 on CPU.
    inputs = jax.random.normal(jax.random.key(0), (9375, 50), jnp.float32)
    diagonal = jnp.array([1.0, -2.0, 3.0, 1.0, 1.0], jnp.float32)

    @jax.jit
    def measured(inputs, unit):
        factor = jnp.full((50, 5), entry, jnp.float32) / unit
        return measure(Lifting(inputs), LowRank(factor, diagonal))

    expected = 4 * entry * np.asarray(inputs, float).sum(axis=1) ** 2
    np.testing.assert_allclose(measured(inputs, jnp.float32(1)), expected, rtol=1e-3, atol=1e-3)
