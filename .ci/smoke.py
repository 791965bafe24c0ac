"""Try an installed jaxpoly: every solver, recover, vmap, a network, a file.  Needs nothing else."""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxpoly as jp

SOLVERS = {
    "ep_rom": jp.ep_rom(2),
    "ap_rom": jp.ap_rom(2),
    "factored_descent": jp.factored_descent(2),
    "gauss_newton": jp.gauss_newton(2),
}

jax.config.update("jax_enable_x64", True)
assert jp.__version__ == sys.argv[1], f"version {jp.__version__}, expected {sys.argv[1]}"
assert Path(jp.__file__).is_relative_to(sys.prefix), f"{jp.__file__} is not the installed one"
assert Path(jp.__file__).with_name("py.typed").exists()

key = jax.random.key(0)
problem = jp.sample_problem(key, num_samples=300, dim=20, rank=2)
X, y = problem.lifting.inputs, problem.targets
for name, solver in SOLVERS.items():
    solution = jp.solve(solver, problem.lifting, y, key)
    jp.raise_if_failed(solution)
    assert jp.relative_error(solution.value, problem.truth) < 1e-10, name

found = jp.recover(np.asarray(X), np.asarray(y), rank="auto", key=key)
assert found.status == jp.Status.CONVERGED
assert found.value.diagonal.shape == (2,)
network = jp.QuadraticNetwork.from_low_rank(found.value, found.linear, found.intercept)
assert jnp.allclose(network(X), y, atol=1e-6)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "found.npz"
    jp.save(path, found)
    for new, old in zip(jax.tree.leaves(jp.load(path)), jax.tree.leaves(found), strict=True):
        assert new.dtype == old.dtype
        assert np.array_equal(new, old)

keys = jax.random.split(key, 3)
batch = jax.vmap(lambda key: jp.sample_problem(key, num_samples=200, dim=12, rank=2))(keys)
solve = jax.vmap(lambda lifting, y, key: jp.solve(jp.ap_rom(2), lifting, y, key))
batched = jax.jit(solve)(batch.lifting, batch.targets, keys)
assert batched.status.tolist() == [jp.Status.CONVERGED] * 3
assert (jax.vmap(jp.relative_error)(batched.value, batch.truth) < 1e-10).all()

packages = {"jax": jax, "numpy": np, "optax": optax}
versions = ", ".join(f"{name} {package.__version__}" for name, package in packages.items())
print(f"jaxpoly {jp.__version__} works: Python {sys.version.split()[0]}, {versions}")
