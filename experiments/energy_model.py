"""Energy model: the filters of a visual cell from its spikes, beside spike-triggered covariance.

The cell fires `max(0, c + (w1.x)^2 + (w2.x)^2 - a (w3.x)^2)` spikes a stimulus on average: two
excitatory Gabor filters in quadrature and a suppressive one of orthogonal orientation, a
quadratic network of three neurons but for the rectification, which silences the cell where
suppression exceeds all else.

Spike-triggered covariance (STC) reads the filters off the eigenvectors of the covariance of the
stimuli that led to spikes, minus that of all.  It is right for white Gaussian stimuli.  With the
stimuli whitened it is right for any Gaussian ones, but noisier than least squares, since all that
the filters explain of the counts is noise to it.

Data tell the plane of w1 and w2, not the two filters: with equal weights every rotation of them
gives the same response.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxpoly as jp
from experiments.energy_model_estimators import (
    RANK,
    Estimate,
    align,
    learn,
    spike_triggered_covariance,
    whitening,
)
from experiments.energy_model_figures import plot_errors, plot_filters
from experiments.figures import save
from experiments.session import Session

Kind = Literal["white", "1/f"]
KINDS: tuple[Kind, ...] = ("white", "1/f")


@dataclass(frozen=True)
class Config:
    """The cell, its noise and the sizes of the experiment."""

    size: int = 12
    """Side n of the square patch, in pixels; p = n^2 inputs."""
    baseline: float = 2.0
    """Constant c of the rate, in spikes a stimulus."""
    suppression: float = 1.0
    """Weight a of the suppressive filter; the excitatory ones have weight 1."""
    noise: Literal["poisson", "gaussian"] = "poisson"
    """Poisson spike counts, or normal noise of variance equal to the mean rate."""
    sample_sizes: tuple[int, ...] = (1000, 2000, 4000, 8000, 16000)
    """Numbers of stimuli m, ascending; a smaller set is the beginning of the largest."""
    num_test: int = 4000
    """Held-out stimuli, scored against the rate without noise."""
    repeats: int = 3
    """Independent experiments; numbers are medians over them."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(size=8, sample_sizes=(1000, 3000), num_test=1000),
    "paper": Config(),
    "full": Config(sample_sizes=(1000, 2000, 4000, 8000, 16000, 32000, 64000), repeats=20),
}


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return the errors of all estimators on both kinds of stimuli."""
    session = session or Session()
    stimuli = {}
    with session.progress("energy-model", len(KINDS) * config.repeats, unit="run") as progress:
        for kind in KINDS:
            experiments = []
            for repeat in range(config.repeats):
                compute = partial(run_experiment, config, kind, repeat)
                experiments.append(session.ledger.recall(f"{kind}/{repeat}", compute))
                progress.advance()
            stimuli[kind] = summary(experiments)
    return {
        "sample_sizes": list(config.sample_sizes),
        "noise": config.noise,
        "truth": images(gabor_filters(config.size)).tolist(),
        "stimuli": stimuli,
    }


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw the filters, and their error against the number of stimuli."""
    save(plot_filters(saved), folder, "energy-model-filters")
    save(plot_errors(saved), folder, "energy-model-error")


def summary(experiments: list[dict[str, Any]]) -> dict[str, Any]:
    """Return errors (repeats, sizes) on one kind of stimuli, and filters of the first repeat."""
    estimators = {}
    for name, last in experiments[0]["scores"].items():
        scores = [experiment["scores"][name] for experiment in experiments]
        estimators[name] = {
            quantity: [[score[quantity] for score in row] for row in scores]
            for quantity in ("angle_degrees", "r_squared", "status")
        } | {quantity: last[-1][quantity] for quantity in ("filters", "cosines")}
    means = {
        quantity: float(np.mean([experiment[quantity] for experiment in experiments]))
        for quantity in ("condition", "mean_rate", "silent_fraction")
    }
    return means | {"estimators": estimators}


def run_experiment(config: Config, kind: Kind, repeat: int) -> dict[str, Any]:
    """Return the scores of every estimator at every number of stimuli, in one experiment."""
    truth = gabor_filters(config.size)
    covariance = stimulus_covariance(kind, truth)
    key = jax.random.split(jax.random.key(config.seed), config.repeats)[repeat]
    train_key, test_key, noise_key, solver_key = jax.random.split(key, 4)
    inputs = sample_stimuli(train_key, config.sample_sizes[-1], covariance)
    held_out = sample_stimuli(test_key, config.num_test, covariance)
    rates, held_out_rates = (response(config, part, truth) for part in (inputs, held_out))
    counts = add_noise(noise_key, rates, config.noise)
    scores: dict[str, list[dict[str, Any]]] = {}
    for num_samples in config.sample_sizes:
        data = inputs[:num_samples], counts[:num_samples]
        estimates = {
            "jaxpoly": learn(*data, solver_key),
            "whitened STC": spike_triggered_covariance(*data, whitening(data[0])),
            "STC": spike_triggered_covariance(*data, np.eye(len(covariance))),
        }
        for name, estimate in estimates.items():
            scores.setdefault(name, []).append(assess(estimate, truth, held_out, held_out_rates))
    return {
        "scores": scores,
        "condition": np.linalg.cond(covariance),
        "mean_rate": np.mean(rates),
        "silent_fraction": np.mean(rates == 0),
    }


def gabor_filters(size: int) -> np.ndarray:
    """Return the orthonormal filters w1, w2, w3 of the cell, (3, n^2).

    Cosine and sine phase of a wave across the patch, and the sine phase of a wave down it.
    """
    offset = np.arange(size) - (size - 1) / 2
    down, across = np.meshgrid(offset, offset, indexing="ij")
    envelope = np.exp(-(across**2 + down**2) / (2 * (size / 6) ** 2))
    wavenumber = 2 * np.pi / (size / 2)
    waves = np.cos(wavenumber * across), np.sin(wavenumber * across), np.sin(wavenumber * down)
    filters = (envelope * np.stack(waves)).reshape(RANK, size**2)
    return filters / np.linalg.norm(filters, axis=1, keepdims=True)


def stimulus_covariance(kind: Kind, truth: np.ndarray) -> np.ndarray:
    """Return the covariance of the pixels, (p, p), at a contrast that drives the cell alike.

    "white" is the identity.  "1/f" has an amplitude that falls with one over the spatial
    frequency, as in natural images; the mean energy of the excitatory filters is that of "white".
    """
    dim = truth.shape[1]
    if kind == "white":
        return np.eye(dim)
    size = round(np.sqrt(dim))
    # On a torus of twice the side, so that opposite edges of the patch are no neighbours.
    frequency = np.fft.fftfreq(2 * size)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    autocorrelation = np.fft.ifft2(np.maximum(radius, frequency[1]) ** -2.0).real
    down, across = np.divmod(np.arange(dim), size)
    covariance = autocorrelation[down[:, None] - down, across[:, None] - across]
    energies = np.einsum("ri,ij,rj->r", truth, covariance, truth)
    return covariance / energies[:2].mean()


def sample_stimuli(key: Array, num_samples: int, covariance: np.ndarray) -> np.ndarray:
    """Return Gaussian stimuli of mean zero, (m, p)."""
    normal = jax.random.normal(key, (num_samples, len(covariance)))
    return np.asarray(normal) @ np.linalg.cholesky(covariance).T


def response(config: Config, inputs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the rate, (m,), in spikes a stimulus."""
    drive = (inputs @ truth.T) ** 2 @ np.array([1.0, 1.0, -config.suppression])
    return np.maximum(config.baseline + drive, 0)


def add_noise(key: Array, rates: np.ndarray, noise: Literal["poisson", "gaussian"]) -> np.ndarray:
    """Return spike counts, or rates with normal noise of the same mean variance, (m,)."""
    if noise == "poisson":
        return np.asarray(jax.random.poisson(key, rates), rates.dtype)
    normal = np.asarray(jax.random.normal(key, rates.shape))
    return rates + np.sqrt(rates.mean()) * normal


def assess(
    estimate: Estimate, truth: np.ndarray, held_out: np.ndarray, held_out_rates: np.ndarray
) -> dict[str, Any]:
    """Return the angle to the true filters, R^2 on held-out rates, and the aligned filters."""
    value, linear, intercept, status = estimate
    network = jp.QuadraticNetwork.from_low_rank(value, linear, intercept)
    missed = held_out_rates - np.asarray(network(held_out))
    planted = jp.LowRank(jnp.asarray(truth.T), jnp.ones(RANK))
    filters = align(np.asarray(network.neurons), np.asarray(network.output_weights), truth)
    return {
        "angle_degrees": np.degrees(float(jp.subspace_angle(value, planted))),
        "r_squared": 1 - np.mean(missed**2) / np.var(held_out_rates),
        "status": status,
        "filters": images(filters),
        "cosines": np.sum(filters * truth, axis=1),
    }


def images(filters: np.ndarray) -> np.ndarray:
    """Return filters, (3, n^2), as images, (3, n, n)."""
    size = round(np.sqrt(filters.shape[1]))
    return filters.reshape(RANK, size, size)


def table(saved: dict[str, Any]) -> str:
    """Return medians over the experiments as text."""
    sizes, size = saved["sample_sizes"], len(saved["truth"][0])
    repeats = len(saved["stimuli"]["white"]["estimators"]["jaxpoly"]["status"])
    lines = [
        f"Energy model: {size} x {size} pixels, {saved['noise']} noise, "
        f"medians of {repeats} experiments",
    ]
    for kind, part in saved["stimuli"].items():
        lines += [
            "",
            f"{kind} stimuli (condition {part['condition']:.0f}): {part['mean_rate']:.1f} spikes a "
            f"stimulus, silent on {100 * part['silent_fraction']:.0f} %",
            f"{'':<25}" + "".join(f"{f'm = {m}':>11}" for m in sizes),
        ]
        for quantity, title in (("angle_degrees", "angle"), ("r_squared", "R^2")):
            for name, row in part["estimators"].items():
                cells = "".join(
                    f"{x:>11.3g}" for x in np.median(np.array(row[quantity], float), axis=0)
                )
                lines.append(f"{title:<10}{name:<15}{cells}")
        statuses = [name for row in part["estimators"]["jaxpoly"]["status"] for name in row]
        ends = ", ".join(f"{statuses.count(name)} {name}" for name in sorted(set(statuses)))
        lines.append(f"jaxpoly's runs ended: {ends}")
    lines += ["", "angle: largest principal angle to the three filters, in degrees (0 is perfect)"]
    return "\n".join(lines)
