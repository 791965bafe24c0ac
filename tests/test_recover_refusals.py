"""What `recover` refuses, by name, before anything is computed."""

import jax
import numpy as np
import pytest

import jaxpoly as jp

KEY = jax.random.key(1)
M, P, RANK = 120, 10, 2


@pytest.fixture(scope="module")
def data() -> jp.Problem:
    return jp.sample_problem(jax.random.key(0), M, P, RANK)


REFUSED = {
    "rank": ({"rank": 0}, ValueError, "rank is 0"),
    "large rank": ({"rank": P + 1}, ValueError, "rank is 11"),
    "rank in words": ({"rank": "two"}, TypeError, "rank is 'two'"),
    "key": ({"key": 3}, TypeError, "key is 3"),
    "positive": ({"positive": 1}, TypeError, "positive is 1"),
    "affine": ({"affine": "no"}, TypeError, "affine is 'no'"),
    "robust": ({"robust": 0}, TypeError, "robust is 0"),
    "ridge": ({"ridge": -0.1}, ValueError, "ridge is -0.1"),
    "infinite ridge": ({"ridge": np.inf}, ValueError, "ridge is inf; expected a finite number"),
    "rtol": ({"rtol": -1}, ValueError, "rtol is -1"),
    "max_steps": ({"max_steps": 1.5}, TypeError, "max_steps is 1.5"),
    "targets": ({"targets": np.ones(3)}, ValueError, "targets has length 3"),
    "weight": ({"sample_weight": np.ones(3)}, ValueError, "sample_weight"),
    "no weight": ({"sample_weight": np.zeros(M)}, ValueError, "sample_weight is all zero"),
    "text": ({"inputs": [["a"]]}, TypeError, "inputs"),
}


@pytest.mark.parametrize(("options", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_options_are_refused_by_name(data, options, error, words):
    good = {"inputs": data.lifting.inputs, "targets": data.targets, "rank": RANK, "key": KEY}
    with pytest.raises(error, match=words):
        jp.recover(**{**good, **options})


def test_under_jit_it_says_what_to_use_instead(data):
    with pytest.raises(TypeError, match=r"under jit or vmap.*gauss_newton"):
        jax.jit(lambda *rows: jp.recover(*rows, RANK, key=KEY))(data.lifting.inputs, data.targets)
