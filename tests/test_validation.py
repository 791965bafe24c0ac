"""Bad input is refused with words that help; unusual but good input gives the usual answer."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal

from jaxpoly import (
    EighThreshold,
    KrylovThreshold,
    Lifting,
    LowRank,
    QuadraticNetwork,
    SubspaceThreshold,
    backproject,
    measure,
    sample_truth,
)

M, P, R = 6, 4, 2
INPUTS = np.random.default_rng(0).normal(size=(M, P))
LOW_RANK = LowRank(jnp.eye(P, R), jnp.ones(R))
NETWORK = QuadraticNetwork(jnp.eye(R, P), jnp.ones(R), jnp.zeros(P), jnp.zeros(()))


class Frame:
    """As a data frame does, converts to an array and is none."""

    def __array__(self, dtype=None, copy=None):
        return INPUTS


# Bad as an array of two axes wherever one is wanted.
BAD_ARRAYS = [
    (INPUTS[0, 0], ValueError, r"has shape \(\); expected (1 or )?2 axes"),
    (INPUTS[None], ValueError, r"has shape \(1, 6, 4\); expected (1 or )?2 axes: use jax.vmap"),
    (INPUTS + 0j, TypeError, "has dtype complex128; expected real numbers"),
    (INPUTS.astype(str), TypeError, "has dtype <U.*; expected real numbers"),
    (INPUTS.astype(object), TypeError, "has dtype object; expected real numbers"),
    ([["a", "b"]], TypeError, "has dtype <U1; expected real numbers"),
    ("abc", TypeError, "is a builtins.str; expected a JAX or numpy array"),
    (None, TypeError, "is a builtins.NoneType; expected"),
    ({"a": 1}, TypeError, "is a builtins.dict; expected"),
    ([[1.0, 2.0], [3.0]], ValueError, "is a ragged list"),
    (np.ma.masked_array(INPUTS, INPUTS > 1), TypeError, "is a masked array; fill it"),
    (scipy.sparse.csr_matrix(INPUTS), TypeError, r"is a scipy.sparse.*\.toarray\(\) if"),
    (Frame(), TypeError, r"is a .*Frame; .*numpy.asarray"),
]
KINDS = [str(type(value).__name__) + "-" + words[:24] for value, _, words in BAD_ARRAYS]
bad_arrays = pytest.mark.parametrize(("value", "error", "words"), BAD_ARRAYS, ids=KINDS)


@bad_arrays
def test_measure_refuses_bad_inputs_and_names_them(value, error, words):
    with pytest.raises(error, match="lifting.inputs " + words):
        measure(Lifting(value), LOW_RANK)


@bad_arrays
def test_measure_refuses_a_bad_factor_and_names_it(value, error, words):
    with pytest.raises(error, match="low_rank.factor " + words):
        measure(Lifting(INPUTS), LowRank(value, jnp.ones(R)))


@bad_arrays
def test_backproject_refuses_a_bad_block_and_names_it(value, error, words):
    with pytest.raises(error, match="block " + words):
        backproject(Lifting(INPUTS), np.ones(M), value)


@bad_arrays
def test_network_refuses_bad_inputs_and_names_them(value, error, words):
    with pytest.raises(error, match="inputs " + words):
        NETWORK(value)


ONES = np.ones(M)
BAD_CALLS = {
    "no samples": (
        lambda: measure(Lifting(np.ones((0, P))), LOW_RANK),
        r"lifting.inputs has shape \(0, 4\); expected at least one sample",
    ),
    "no columns": (
        lambda: backproject(Lifting(np.ones((M, 0))), ONES, np.ones((0, 1))),
        r"lifting.inputs has shape \(6, 0\); expected at least one sample and one column",
    ),
    "one axis": (
        lambda: measure(Lifting(np.ones(P)), LOW_RANK),
        r"lifting.inputs has shape \(4,\); expected 2 axes",
    ),
    "factor of other length": (
        lambda: measure(Lifting(INPUTS), LowRank(np.ones((3, R)), np.ones(R))),
        r"low_rank has factor \(3, 2\) and diagonal \(2,\).*p = 4.*\(6, 4\)",
    ),
    "diagonal of other length": (
        lambda: measure(Lifting(INPUTS), LowRank(np.ones((P, R)), np.ones(3))),
        r"low_rank has factor \(4, 2\) and diagonal \(3,\)",
    ),
    "diagonal as a matrix": (
        lambda: measure(Lifting(INPUTS), LowRank(np.ones((P, R)), np.eye(R))),
        r"low_rank.diagonal has shape \(2, 2\); expected 1 axes",
    ),
    "weights of other length": (
        lambda: measure(Lifting(INPUTS, np.ones(5)), LOW_RANK),
        r"lifting.sample_weight has length 5, but lifting.inputs has 6 rows \(shape \(6, 4\)\)",
    ),
    "weights as a column": (
        lambda: measure(Lifting(INPUTS, np.ones((M, 1))), LOW_RANK),
        r"lifting.sample_weight has shape \(6, 1\).*pass its .ravel\(\)",
    ),
    "residual as a column": (
        lambda: backproject(Lifting(INPUTS), np.ones((M, 1)), np.eye(P)),
        r"residual has shape \(6, 1\); expected 1 axes: pass its .ravel\(\)",
    ),
    "residual of other length": (
        lambda: backproject(Lifting(INPUTS), np.ones(7), np.eye(P)),
        "residual has length 7, but lifting.inputs has 6 rows",
    ),
    "block of other length": (
        lambda: backproject(Lifting(INPUTS), ONES, np.ones((3, 1))),
        r"block has shape \(3, 1\); expected \(4, k\)",
    ),
    "block as a vector": (
        lambda: backproject(Lifting(INPUTS), ONES, np.ones(P)),
        r"block has shape \(4,\); expected 2 axes",
    ),
    "network, too few columns": (
        lambda: NETWORK(np.ones((2, 3))),
        r"inputs has shape \(2, 3\); expected 4 columns to fit neurons of shape \(2, 4\)",
    ),
    "network, too long an input": (
        lambda: NETWORK(np.ones(5)),
        r"inputs has shape \(5,\); expected 4 columns",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_shapes_that_do_not_fit_are_refused_with_the_shapes_seen(case):
    call, words = BAD_CALLS[case]
    with pytest.raises(ValueError, match=words):
        call()


def test_shapes_that_do_not_fit_are_refused_under_jit_and_vmap_too():
    with pytest.raises(ValueError, match="low_rank has factor"):
        jax.jit(measure)(Lifting(INPUTS), LowRank(np.ones((3, R)), np.ones(R)))
    with pytest.raises(ValueError, match="residual has length 7"):
        jax.jit(backproject)(Lifting(INPUTS), np.ones(7), np.eye(P))
    with pytest.raises(ValueError, match="expected at least one sample"):
        jax.vmap(measure, in_axes=(0, None))(Lifting(np.ones((3, 0, P))), LOW_RANK)
    with pytest.raises(ValueError, match="expected 4 columns"):
        jax.vmap(NETWORK)(np.ones((3, 5)))


@pytest.mark.parametrize("value", [INPUTS, None, [1.0]])
def test_what_is_no_lifting_or_low_rank_is_refused(value):
    with pytest.raises(TypeError, match=r"lifting is a .*; expected jaxpoly.Lifting\(inputs\)"):
        measure(value, LOW_RANK)
    with pytest.raises(TypeError, match=r"low_rank is a .*; expected jaxpoly.LowRank"):
        measure(Lifting(INPUTS), value)


BAD_THRESHOLDS = [
    (EighThreshold(0), ValueError, "rank is 0; expected at least 1"),
    (EighThreshold(-2), ValueError, "rank is -2"),
    (EighThreshold(2.0), TypeError, "rank is 2.0 of type float"),
    (EighThreshold(True), TypeError, "rank is True of type bool"),
    (EighThreshold(5), ValueError, "rank is 5, above the input dimension p = 4"),
    (KrylovThreshold(0), ValueError, "rank is 0"),
    (KrylovThreshold("2"), TypeError, "rank is '2' of type str"),
    (KrylovThreshold(5), ValueError, "rank is 5, above"),
    (KrylovThreshold(2, block_size=1), ValueError, "block_size is 1; expected at least 2"),
    (KrylovThreshold(2, block_size=2.5), TypeError, "block_size is 2.5"),
    (KrylovThreshold(2, depth=-1), ValueError, "depth is -1"),
    (KrylovThreshold(2, depth=1.0), TypeError, "depth is 1.0"),
    (KrylovThreshold(2, accuracy=0.0), ValueError, "accuracy is 0.0"),
    (KrylovThreshold(2, accuracy=-1.0), ValueError, "accuracy is -1.0"),
    (SubspaceThreshold(0), ValueError, "rank is 0"),
    (SubspaceThreshold(5), ValueError, "rank is 5, above"),
    (SubspaceThreshold(2, oversample=-1), ValueError, "oversample is -1"),
    (SubspaceThreshold(2, oversample=0.5), TypeError, "oversample is 0.5"),
    (SubspaceThreshold(2, num_iters=-1), ValueError, "num_iters is -1"),
    (SubspaceThreshold(2, num_iters=None), TypeError, "num_iters is None"),
]


@pytest.mark.parametrize(("threshold", "error", "words"), BAD_THRESHOLDS, ids=repr)
def test_thresholds_refuse_options_out_of_range(threshold, error, words):
    with pytest.raises(error, match=words):
        threshold(lambda block: block, P, jax.random.key(0))


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        (7, TypeError, r"key is 7; expected a JAX key: jax.random.key\(7\)"),
        (None, TypeError, r"key is a NoneType; expected a JAX key, jax.random.key\(0\)"),
        (np.array([0, 1]), TypeError, "key has dtype int64; expected a JAX key"),
        (jax.random.split(jax.random.key(0), 3), ValueError, r"batch shape \(3,\).*use jax.vmap"),
        (jax.random.split(jax.random.PRNGKey(0), 3), ValueError, r"batch shape \(3,\)"),
    ],
)
def test_what_is_no_single_key_is_refused(key, error, words):
    with pytest.raises(error, match=words):
        sample_truth(key, P, R)


def test_old_style_keys_are_accepted_and_mean_the_same():
    typed, old = jax.random.key(3), jax.random.PRNGKey(3)
    expected = sample_truth(typed, P, R).factor
    for key in (old, np.asarray(old)):
        assert_array_equal(sample_truth(key, P, R).factor, expected)


def read_only(array):
    copied = array.copy()
    copied.flags.writeable = False
    return copied


LAYOUTS = {
    "read-only": read_only,
    "Fortran order": np.asfortranarray,
    "negative strides": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
    "every other row and column": lambda array: np.kron(array, np.ones((2, 2)))[::2, ::2],
    "big-endian": lambda array: array.astype(">f8"),
    "long double": lambda array: array.astype(np.longdouble),
    "list of lists": np.ndarray.tolist,
    "tuple of arrays": tuple,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_an_array_gives_the_same_answer(layout):
    convert = LAYOUTS[layout]
    block = np.random.default_rng(1).normal(size=(P, 3))
    residual = np.arange(1.0, M + 1)
    found = measure(Lifting(convert(INPUTS)), LowRank(convert(block), np.ones(3)))
    projected = backproject(Lifting(convert(INPUTS)), residual, convert(block))
    assert found.dtype == projected.dtype == jnp.float64
    assert_array_equal(found, measure(Lifting(INPUTS), LowRank(block, np.ones(3))))
    assert_array_equal(projected, backproject(Lifting(INPUTS), residual, block))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_network_predicts_the_same_for_every_layout_of_its_inputs(layout):
    assert_array_equal(NETWORK(LAYOUTS[layout](INPUTS)), NETWORK(INPUTS))


def test_float64_inputs_warn_once_where_x64_is_off():
    with jax.enable_x64(False):
        low_rank = LowRank(jnp.eye(P, R), jnp.ones(R))
        with pytest.warns(UserWarning, match="float64 but jax_enable_x64 is off") as caught:
            found = measure(Lifting(INPUTS, np.ones(M)), low_rank)
    assert len(caught) == 1
    assert caught[0].message.args[0].startswith("lifting.inputs")
    assert found.dtype == jnp.float32
    assert_allclose(found, measure(Lifting(INPUTS), LOW_RANK), rtol=1e-5)


@pytest.mark.parametrize("inputs", [INPUTS.astype(np.float32), INPUTS.tolist(), [[1, 2, 3, 4]]])
def test_float32_and_lists_do_not_warn_where_x64_is_off(inputs):
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measure(Lifting(inputs), LowRank(jnp.eye(P, R), jnp.ones(R))).dtype == jnp.float32
