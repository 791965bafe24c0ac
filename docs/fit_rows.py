"""Fit one quadratic network to a table of which every process reads its own rows.

    python fit_rows.py X.npy y.npy --rank 3                       one process, all its devices
    python launch.py --processes 2 fit_rows.py X.npy y.npy --rank 3
    srun python launch.py fit_rows.py X.npy y.npy --rank 3        on a cluster

X.npy is (m, p), y.npy is (m,).  `--out` writes factor and diagonal of L and the intercept.
"""

import argparse

import jax
import numpy as np

import jaxpoly as jp

parser = argparse.ArgumentParser()
parser.add_argument("inputs")
parser.add_argument("targets")
parser.add_argument("--rank", type=int, required=True)
parser.add_argument("--out")
options = parser.parse_args()
jax.config.update("jax_enable_x64", True)

process, processes = jax.process_index(), jax.process_count()
inputs = np.load(options.inputs, mmap_mode="r")
targets = np.load(options.targets, mmap_mode="r")
num_samples = len(inputs)
if len(targets) != num_samples:
    raise SystemExit(f"{options.targets} has {len(targets)} numbers for {num_samples} rows")
first, last = (num_samples * number // processes for number in (process, process + 1))
lifting, targets = jp.shard_rows(inputs[first:last], targets[first:last])
print(f"process {process} has rows {first} to {last} of {num_samples}", flush=True)

solution = jp.solve(jp.gauss_newton(options.rank), lifting, targets, jax.random.key(0))
# The solution is whole in every process.
if process == 0:
    print(f"{jp.describe(solution.status)} Relative residual {solution.relative_residual:.1e}.")
    if options.out:
        value = solution.value
        np.savez(
            options.out,
            factor=value.factor,
            diagonal=value.diagonal,
            intercept=solution.intercept,
        )
jp.raise_if_failed(solution)
