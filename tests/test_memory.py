"""What cannot fit into memory is refused before it is tried, with what to use instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpoly as jp
from jaxpoly.estimator import QuadraticNetworkClassifier, QuadraticNetworkRegressor
from jaxpoly.memory import check_dense, device_bytes

P = 1_000_000
KEY = jax.random.key(0)
INPUTS, TARGETS = np.ones((2, P), np.float32), np.arange(2.0, dtype=np.float32)
LIFTING = jp.Lifting(INPUTS)


def solve(solver):
    return jp.solve(solver, LIFTING, TARGETS, KEY)


DENSE = {
    "ep_rom": (lambda: solve(jp.ep_rom(1)), "ep_rom makes 3 .*1.1e[+]04 GiB.*ap_rom"),
    "jitted ep_rom": (
        lambda: jax.jit(jp.solve)(jp.ep_rom(1), LIFTING, TARGETS, KEY),
        "ep_rom makes 3 matrices",
    ),
    "dense_gradient": (lambda: jp.dense_gradient(LIFTING, TARGETS), "use jaxpoly.gradient_map"),
    "EighThreshold": (
        lambda: jp.EighThreshold(1)(lambda block: block, P),
        "use jaxpoly.KrylovThreshold",
    ),
    "whiten": (lambda: jp.whiten(LIFTING, centred=False), "Whitening makes 4"),
    "with_linear_terms": (lambda: jp.with_linear_terms(LIFTING), "gauss_newton"),
    "recover": (lambda: jp.recover(INPUTS, TARGETS, 1, key=KEY), "jaxpoly.solve.*gauss_newton"),
    "regressor": (
        lambda: QuadraticNetworkRegressor(1).fit(INPUTS, TARGETS),
        "QuadraticNetworkRegressor makes 4 matrices.*gauss_newton",
    ),
    "classifier": (
        lambda: QuadraticNetworkClassifier(1).fit(INPUTS, ["a", "b"]),
        "QuadraticNetworkClassifier makes 4 matrices",
    ),
}


@pytest.mark.parametrize(("call", "words"), DENSE.values(), ids=DENSE)
def test_matrices_that_cannot_fit_are_refused_before_they_are_made(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_bytes_are_those_of_all_matrices():
    limit = device_bytes()
    assert limit > 2**28
    fits = int((limit / 8 / 3) ** 0.5)
    check_dense("it", fits, jnp.float64, 3, "another")
    with pytest.raises(ValueError, match="it makes 3 matrices of p x p"):
        check_dense("it", fits + 1, jnp.float64, 3, "another")
    check_dense("it", fits + 1, jnp.float32, 3, "another")
