"""Forward errors in units of eps times a condition number, and dtypes that stay what they are."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpoly as jp
from jaxpoly import Status, lowrank

KEY = jax.random.key(0)
M, P, R = 150, 12, 3
slow = partial(pytest.param, marks=pytest.mark.slow)
DTYPES = [np.float32, np.float64]
WIDE = np.longdouble


def drawn(dtype):
    """Data of a dtype, and the same numbers in extended precision."""
    rng = np.random.default_rng(0)
    narrow = {
        "inputs": rng.normal(size=(M, P)),
        "weight": rng.exponential(size=M),
        "residual": rng.normal(size=M),
        "block": rng.normal(size=(P, 4)),
        "factor": rng.normal(size=(P, R)),
        "diagonal": np.array([2.0, -1.0, 0.5]),
        "other": rng.normal(size=(P, R)),
    }
    narrow = {name: array.astype(dtype) for name, array in narrow.items()}
    return narrow, {name: array.astype(WIDE) for name, array in narrow.items()}


def gradient(w):
    share = w["weight"] / w["weight"].sum()
    centred = w["residual"] - share @ w["residual"]
    return (w["inputs"] * (share * centred)[:, None]).T @ w["inputs"] / 2


def gradient_size(w):
    """The gradient with all terms positive: what rounding is relative to."""
    share = w["weight"] / w["weight"].sum()
    centred = np.abs(w["residual"]) + np.abs(share @ w["residual"])
    size = np.abs(w["inputs"])
    return (size * (share * centred)[:, None]).T @ size / 2


def dense(w):
    return (w["factor"] * w["diagonal"]) @ w["factor"].T


def dense_size(w):
    return (np.abs(w["factor"]) * np.abs(w["diagonal"])) @ np.abs(w["factor"]).T


def lifting(n):
    return jp.Lifting(n["inputs"], n["weight"])


def low_rank(n):
    return jp.LowRank(n["factor"], n["diagonal"])


def network(n):
    return jp.QuadraticNetwork(n["factor"].T, n["diagonal"], n["other"][:, 0], n["weight"][0])


def forms(w, left=lambda a: a):
    products = left(w["inputs"]) @ left(w["factor"])
    return products**2 @ left(w["diagonal"])


# What is computed, the same in extended precision, and the sum of the sizes of its terms.
FUNCTIONS = {
    "measure": (lambda n: jp.measure(lifting(n), low_rank(n)), forms, lambda w: forms(w, np.abs)),
    "backproject": (
        lambda n: jp.backproject(lifting(n), n["residual"], n["block"]),
        lambda w: (
            (w["inputs"] * (w["weight"] * w["residual"] / w["weight"].sum())[:, None]).T
            @ (w["inputs"] @ w["block"])
        ),
        lambda w: (
            (np.abs(w["inputs"]) * (w["weight"] * np.abs(w["residual"]))[:, None]).T
            @ (np.abs(w["inputs"]) @ np.abs(w["block"]))
            / w["weight"].sum()
        ),
    ),
    "gradient_map": (
        lambda n: jp.gradient_map(lifting(n), n["residual"])(n["block"]),
        lambda w: gradient(w) @ w["block"],
        lambda w: gradient_size(w) @ np.abs(w["block"]),
    ),
    "dense_gradient": (
        lambda n: jp.dense_gradient(lifting(n), n["residual"]),
        gradient,
        gradient_size,
    ),
    "to_dense": (lambda n: jp.to_dense(low_rank(n)), dense, dense_size),
    "eigen_form": (
        lambda n: jp.to_dense(jp.eigen_form(low_rank(n))),
        dense,
        lambda w: np.linalg.norm(dense_size(w)),
    ),
    "apply": (
        lambda n: lowrank.apply(low_rank(n), n["block"]),
        lambda w: dense(w) @ w["block"],
        lambda w: dense_size(w) @ np.abs(w["block"]),
    ),
    "trace": (
        lambda n: lowrank.trace(low_rank(n)),
        lambda w: np.trace(dense(w)),
        lambda w: np.trace(dense_size(w)),
    ),
    "norm": (
        lambda n: lowrank.norm(low_rank(n)),
        lambda w: np.sqrt(np.sum(dense(w) ** 2)),
        lambda w: np.linalg.norm(dense_size(w)),
    ),
    "inner": (
        lambda n: lowrank.inner(low_rank(n), jp.LowRank(n["other"], n["diagonal"])),
        lambda w: np.sum(dense(w) * dense(w | {"factor": w["other"]})),
        lambda w: np.sum(dense_size(w) * dense_size(w | {"factor": w["other"]})),
    ),
    "relative_error": (
        lambda n: jp.relative_error(jp.LowRank(n["other"], n["diagonal"]), low_rank(n)),
        lambda w: (
            np.sqrt(np.sum((dense(w | {"factor": w["other"]}) - dense(w)) ** 2))
            / np.sqrt(np.sum(dense(w) ** 2))
        ),
        lambda w: np.linalg.norm(dense_size(w)) / np.linalg.norm(dense(w).astype(float)) * 2,
    ),
    "spectral_error": (
        lambda n: jp.spectral_error(jp.LowRank(n["other"], n["diagonal"]), low_rank(n)),
        lambda w: (
            np.linalg.norm((dense(w | {"factor": w["other"]}) - dense(w)).astype(float), 2)
            / np.linalg.norm(dense(w).astype(float), 2)
        ),
        lambda w: np.linalg.norm(dense_size(w)) / np.linalg.norm(dense(w).astype(float), 2) * 2,
    ),
    "network": (
        lambda n: network(n)(n["inputs"]),
        lambda w: forms(w) + w["inputs"] @ w["other"][:, 0] + w["weight"][0],
        lambda w: (
            forms(w, np.abs)
            + np.abs(w["inputs"]) @ np.abs(w["other"][:, 0])
            + np.abs(w["weight"][0])
        ),
    ),
    "EighThreshold": (
        lambda n: jp.to_dense(
            jp.EighThreshold(R)(partial(lowrank.apply, low_rank(n)), P, basis=n["other"])[0]
        ),
        dense,
        lambda w: np.linalg.norm(dense_size(w)),
    ),
    "KrylovThreshold": (
        lambda n: jp.to_dense(
            jp.KrylovThreshold(R)(partial(lowrank.apply, low_rank(n)), P, KEY, n["other"])[0]
        ),
        dense,
        lambda w: np.linalg.norm(dense_size(w)),
    ),
    "whiten and restore": (
        lambda n: _there_and_back(n),
        dense,
        lambda w: np.linalg.norm(dense_size(w)) * np.linalg.cond(w["inputs"].astype(float)) ** 2,
    ),
}


def _there_and_back(n):
    whitening, _ = jp.whiten(lifting(n), centred=False)
    white = jp.LowRank(whitening.inverse @ n["factor"], jnp.asarray(n["diagonal"]))
    nothing = jnp.zeros((P,), n["factor"].dtype)
    return jp.to_dense(jp.restore(whitening, white, nothing, nothing[0])[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_forward_error_is_a_few_eps_of_the_terms_and_the_dtype_stays(name, dtype):
    compute, exact, size = FUNCTIONS[name]
    narrow, wide = drawn(dtype)
    found = compute({key: jnp.asarray(array) for key, array in narrow.items()})
    assert found.dtype == dtype
    error = np.abs(np.asarray(found).astype(WIDE) - exact(wide))
    # Sums of p or m terms; random signs of rounding keep them far below the bound m eps.
    assert np.max(error / size(wide)) < 10 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_angles_and_matches_of_equal_things_are_zero_to_rounding(dtype):
    narrow, _ = drawn(dtype)
    matrix = low_rank({key: jnp.asarray(array) for key, array in narrow.items()})
    eps = np.finfo(dtype).eps
    angle = jp.subspace_angle(matrix, jp.LowRank(-2 * matrix.factor, matrix.diagonal))
    assert angle.dtype == dtype
    assert angle < 10 * np.linalg.cond(narrow["factor"]) * eps
    net = jp.QuadraticNetwork.from_low_rank(matrix)
    flipped = jp.QuadraticNetwork(
        -net.neurons[::-1], net.output_weights[::-1], net.linear, net.intercept
    )
    match = jp.match_neurons(flipped, net)
    for leaf in jax.tree.leaves(match):
        assert leaf.dtype in (dtype, jnp.int32, jnp.int64, bool)


@pytest.mark.parametrize(
    "build",
    [jp.ep_rom, jp.gauss_newton, *map(slow, (jp.ap_rom, jp.factored_descent))],
    ids=lambda b: b.__name__,
)
def test_float32_solvers_reach_what_the_rounded_data_allow(build):
    problem = jp.sample_problem(jax.random.key(3), 160, 16, 2)
    inputs, targets = (
        np.asarray(array, np.float32) for array in (problem.lifting.inputs, problem.targets)
    )
    exact = jp.solve(
        jp.gauss_newton(2), jp.Lifting(inputs.astype(float)), targets.astype(float), KEY
    )
    assert exact.status in (Status.CONVERGED, Status.STATIONARY)
    found = jp.solve(build(2), jp.Lifting(inputs), targets, KEY, 2000, rtol=0.0)
    best, mine = np.asarray(jp.to_dense(exact.value)), np.asarray(jp.to_dense(found.value), float)
    # Least squares on the tangent space: the norm of y over its smallest singular value.
    basis = np.linalg.qr(np.asarray(exact.value.factor))[0]
    tangent = [
        np.outer(direction, column) + np.outer(column, direction)
        for column in basis.T
        for direction in np.eye(16)
    ]
    tangent = np.stack(tangent).reshape(len(tangent), -1)
    span = np.linalg.svd(tangent, full_matrices=False)
    tangent = span[2][span[1] > 1e-10]
    rows = inputs.astype(float)
    lifted = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1) @ tangent.T
    smallest = np.linalg.svd(lifted - lifted.mean(axis=0), compute_uv=False)[-1]
    terms = np.linalg.norm(np.abs(rows @ basis) * (np.abs(rows) @ np.abs(basis)) @ [1.0, 1.0])
    condition = np.abs(exact.value.diagonal).max() * terms / smallest / np.linalg.norm(best)
    assert np.linalg.norm(mine - best) / np.linalg.norm(best) < 10 * 1.2e-7 * condition
    assert condition < 100


CHILD = """
import warnings
import jax, numpy as np
import jaxpoly as jp

problem = jp.sample_problem(jax.random.key(0), 60, 5, 1)
wide = np.asarray(problem.lifting.inputs, np.float64)
targets = np.asarray(problem.targets)
calls = {
    "solve": lambda: jp.solve(jp.ap_rom(1), jp.Lifting(wide), targets, jax.random.key(1)),
    "measure": lambda: jp.measure(jp.Lifting(wide), problem.truth),
    "whiten": lambda: jp.whiten(jp.Lifting(wide), centred=True),
    "dense_gradient": lambda: jp.dense_gradient(jp.Lifting(wide), targets),
    "recover": lambda: jp.recover(wide, targets, 1, key=jax.random.key(1)),
}
for name, call in calls.items():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = call()
    texts = [str(one.message) for one in told if "float64" in str(one.message)]
    floats = {str(x.dtype) for x in jax.tree.leaves(result) if str(x.dtype).startswith("float")}
    print(name, len(texts), *sorted(floats))
"""


def test_without_x64_wide_inputs_warn_once_and_give_float32():
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == 5
    for line in lines:
        assert line.split()[1:] == ["1", "float32"], line
