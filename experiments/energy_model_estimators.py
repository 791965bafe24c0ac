"""The estimators of the energy model: least squares and spike-triggered covariance."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

import jaxpoly as jp

RANK = 3


class Estimate(NamedTuple):
    """The rate as an estimator has it, `x^T L x + linear . x + intercept`.

    `status` is that of the run, None where nothing is iterated.
    """

    value: jp.LowRank
    linear: ArrayLike
    intercept: ArrayLike
    status: str | None = None


def learn(inputs: np.ndarray, counts: np.ndarray, key: Array) -> Estimate:
    """Fit a network of three neurons by least squares."""
    solution = jp.recover(inputs, counts, RANK, key=key)
    status = jp.Status(int(solution.status)).name
    return Estimate(solution.value, solution.linear, solution.intercept, status)


def whitening(inputs: np.ndarray) -> np.ndarray:
    """Return the inverse square root of the sample covariance, (p, p); needs m > p."""
    eigenvalues, vectors = np.linalg.eigh(np.cov(inputs.T))
    return vectors / np.sqrt(eigenvalues) @ vectors.T


def spike_triggered_covariance(
    inputs: np.ndarray, counts: np.ndarray, transform: np.ndarray
) -> Estimate:
    """Take the three eigenvectors of largest |eigenvalue| as filters, then fit the rate in them.

    The eigenvectors are those of the covariance of the inputs weighted by the counts, minus
    that of all inputs.  `transform` (p, p) is applied to the inputs before and to the
    eigenvectors after: the identity, or the whitening.  The rate is the least-squares quadratic
    function of the projections on the filters.
    """
    features = inputs @ transform
    deviation = features - counts @ features / counts.sum()
    triggered = (deviation * counts[:, None]).T @ deviation / counts.sum()
    eigenvalues, vectors = np.linalg.eigh(triggered - np.cov(features.T))
    filters = transform @ vectors[:, np.argsort(-np.abs(eigenvalues))[:RANK]]

    projections = inputs @ filters
    row, column = np.triu_indices(RANK)
    products = projections[:, row] * projections[:, column]
    design = np.column_stack([products, projections, np.ones(len(inputs))])
    coefficients = np.linalg.lstsq(design, counts)[0]
    square = np.zeros((RANK, RANK))
    square[row, column] = coefficients[: len(row)]
    weights, rotation = np.linalg.eigh((square + square.T) / 2)
    value = jp.LowRank(jnp.asarray(filters @ rotation), jnp.asarray(weights))
    return Estimate(value, filters @ coefficients[-4:-1], coefficients[-1])


def align(neurons: np.ndarray, weights: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Order the neurons, (3, p), as the truth is, and turn them within what data cannot tell.

    The two of largest weight are rotated or mirrored in their plane, the third is mirrored.
    """
    ordered = neurons[np.argsort(-weights)]
    aligned = []
    for part in (slice(0, 2), slice(2, 3)):
        left, _, right = np.linalg.svd(truth[part] @ ordered[part].T)
        aligned.append(left @ right @ ordered[part])
    return np.concatenate(aligned)
