# %% [markdown]
# # From one problem to a phase diagram
#
# This tutorial learns one quadratic network, looks at what the answer says of itself, then
# solves a thousand problems and draws where recovery begins.  It is a script in cells: run it
# with `python docs/tutorial.py`, or open it as a notebook (VS Code, Jupyter with Jupytext).
# It takes about a minute; `python docs/tutorial.py --small` takes a few seconds, and is what the
# pages of the documentation show.

# %%
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

import jaxpoly as jp
from experiments.problems import Cell
from experiments.session import Session
from experiments.sweep import sweep

jax.config.update("jax_enable_x64", True)
SMALL = "--small" in sys.argv or "JAXPOLY_TUTORIAL_SMALL" in os.environ
FOLDER = Path("results")
FOLDER.mkdir(exist_ok=True)

# %% [markdown]
# ## One problem
#
# A network of three neurons with output weights of mixed signs,
# $y = \sum_j a_j \, (w_j^\top x)^2$, is the same thing as a symmetric matrix L of rank three,
# $y = x^\top L x$.  It has $p r - r (r - 1) / 2$ unknowns, here 147; we give ourselves four
# samples for each.

# %%
dim, rank = 50, 3
unknowns = dim * rank - rank * (rank - 1) // 2
problem = jp.sample_problem(jax.random.key(0), 4 * unknowns, dim, rank, signs="mixed")
X, y = problem.lifting.inputs, problem.targets

solution = jp.recover(X, y, rank, key=jax.random.key(1))
error = jp.relative_error(solution.value, problem.truth)
print(f"{jp.describe(solution.status)} Error {float(error):.0e}.")
assert solution.status == jp.Status.CONVERGED
assert error < 1e-8

# %% [markdown]
# ## What the data can tell
#
# L is found, and with it every prediction.  The neurons that were planted are not: other
# neurons have the same L.  `from_low_rank` returns those that are orthonormal.

# %%
network = jp.QuadraticNetwork.from_low_rank(solution.value, solution.linear, solution.intercept)
fresh = jax.random.normal(jax.random.key(2), (5, dim))
truth = jp.measure(jp.Lifting(fresh), problem.truth)
print("predictions", np.round(network(fresh), 4))
print("truth      ", np.round(truth, 4))
assert jnp.allclose(network(fresh), truth, atol=1e-6)

# %% [markdown]
# ## Watching a solver
#
# `recover` chooses for you.  The solvers below it are ordinary JAX functions; `trajectory`
# takes a number of steps and keeps every iterate.

# %%
solvers = {
    "EP-ROM": jp.ep_rom(rank),
    "factored descent": jp.factored_descent(rank),
    "Gauss-Newton": jp.gauss_newton(rank),
}
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for (name, solver), dashes in zip(solvers.items(), ("-", ":", "-."), strict=True):
    steps = 12 if name == "Gauss-Newton" else 100
    _, record = jp.trajectory(solver, problem.lifting, y, jax.random.key(1), num_steps=steps)
    errors = jax.vmap(jp.relative_error, in_axes=(0, None))(record.estimate, problem.truth)
    axes.semilogy(np.arange(1, steps + 1), errors, dashes, lw=2, label=name)
axes.set_xlabel("step")
axes.set_ylabel("relative error of L")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig(FOLDER / "tutorial-steps.png", dpi=120)

# %% [markdown]
# ## A thousand problems
#
# A solver runs under `jit`, `vmap` and `lax.map`.  The experiments of this repository build on
# that: a grid of cells, each of one kind of problem and a solver, is solved by all cores.
# The outcomes come as an xarray Dataset.

# %%
ratios = (0.8, 1.2, 1.6, 2.0, 2.6) if SMALL else tuple(np.arange(0.8, 3.3, 0.2).round(1).tolist())
trials = 4 if SMALL else 40
cells = [
    Cell("Gauss-Newton", 12, 2, round(ratio * 23), signs, condition=1.0, max_steps=50)
    for signs in ("mixed", "positive")
    for ratio in ratios
]
table = sweep("tutorial", cells, trials, seed=0, session=Session())
found = (table.relative_error < 1e-4).mean("trial")

figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for signs, style in (("mixed", "o-"), ("positive", "s--")):
    axes.plot(ratios, found[(table.signs == signs).values], style, label=f"{signs} signs")
axes.axvline(1, color="0.5", lw=1)
axes.set_xlabel("samples / unknowns, m / dof")
axes.set_ylabel(f"share of {trials} problems solved")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig(FOLDER / "tutorial-transition.png", dpi=120)
assert (found[table.num_samples < 23] == 0).all()
assert found[(table.num_samples > 58).values].mean() >= 0.75

# %% [markdown]
# Below one sample for each unknown nothing can be found; from about twice as many on, the
# spectral start leads Gauss-Newton to the truth most of the time, and `recover`, with its
# further starts, nearly always.  `python -m experiments phase-transition` is this with
# 10,000 problems, resumable, with its provenance on file.
