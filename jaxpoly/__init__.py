"""Learn two-layer quadratic networks by low-rank matrix estimation, in JAX.

`y = sum_j a_j (w_j . x)^2` is a linear measurement `x^T L x` of a symmetric
matrix L of rank r.  Lift, descend with a threshold to rank r or on the factor,
and read the neurons off L.
"""

from jaxpoly import exporting, lowrank
from jaxpoly.driver import Record, advance, finish, init_run, solve, trajectory
from jaxpoly.half_precision import HalfPrecision
from jaxpoly.implicit import implicit
from jaxpoly.inputs import Whitening, drop_nonfinite_rows, restore, whiten, with_linear_terms
from jaxpoly.lifting import Lifting, backproject, dense_gradient, gradient_map, measure
from jaxpoly.lowrank import LowRank, eigen_form, to_dense
from jaxpoly.metrics import (
    NeuronMatch,
    match_neurons,
    relative_error,
    spectral_error,
    subspace_angle,
)
from jaxpoly.network import QuadraticNetwork
from jaxpoly.rank_choice import RankCurve
from jaxpoly.recover import Recovery, recover
from jaxpoly.reweighted import reweighted_start
from jaxpoly.run import Run, Solver
from jaxpoly.sampling import Problem, sample_problem, sample_truth
from jaxpoly.sharding import shard_rows
from jaxpoly.solvers.factored import FactoredDescent, factored_descent
from jaxpoly.solvers.gauss_newton import GaussNewton, gauss_newton
from jaxpoly.solvers.hard_thresholding import ApRom, EpRom, ap_rom, ep_rom
from jaxpoly.state import Solution, SolveError, State, Status, describe, raise_if_failed
from jaxpoly.storage import load, save
from jaxpoly.streaming import StreamedRows
from jaxpoly.threshold import EighThreshold, KrylovThreshold, SubspaceThreshold
from jaxpoly.uncertainty import StandardErrors, standard_errors
from jaxpoly.version import __version__

exporting.register()

__all__ = [
    "ApRom",
    "EighThreshold",
    "EpRom",
    "FactoredDescent",
    "GaussNewton",
    "HalfPrecision",
    "KrylovThreshold",
    "Lifting",
    "LowRank",
    "NeuronMatch",
    "Problem",
    "QuadraticNetwork",
    "RankCurve",
    "Record",
    "Recovery",
    "Run",
    "Solution",
    "SolveError",
    "Solver",
    "StandardErrors",
    "State",
    "Status",
    "StreamedRows",
    "SubspaceThreshold",
    "Whitening",
    "__version__",
    "advance",
    "ap_rom",
    "backproject",
    "dense_gradient",
    "describe",
    "drop_nonfinite_rows",
    "eigen_form",
    "ep_rom",
    "factored_descent",
    "finish",
    "gauss_newton",
    "gradient_map",
    "implicit",
    "init_run",
    "load",
    "lowrank",
    "match_neurons",
    "measure",
    "raise_if_failed",
    "recover",
    "relative_error",
    "restore",
    "reweighted_start",
    "sample_problem",
    "sample_truth",
    "save",
    "shard_rows",
    "solve",
    "spectral_error",
    "standard_errors",
    "subspace_angle",
    "to_dense",
    "trajectory",
    "whiten",
    "with_linear_terms",
]
