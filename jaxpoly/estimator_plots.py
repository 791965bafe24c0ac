"""Pictures of fitted estimators; matplotlib is imported where they are drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

# Readable in grey and with every kind of colour blindness: light hatched against dark.
SIGNS = {
    "positive": {"facecolor": "#0072B2", "edgecolor": "black", "hatch": ""},
    "negative": {"facecolor": "#F5C77E", "edgecolor": "black", "hatch": "///"},
}


def plot_neurons(
    estimator: Any,
    output: int = 0,
    image_shape: tuple[int, int] | None = None,
    feature_names: Sequence[str] | None = None,
    axes: Any = None,
) -> Any:
    """Draw every neuron, as bars by feature or as an image.

    Drawn is `w_j * scale_`, brought to unit length: what a feature contributes as it varies
    in the data, in whatever unit.  In images zero is mid grey.

    Args:
        estimator: a fitted `QuadraticNetworkRegressor` or `QuadraticNetworkClassifier`.
        output: which network of a classifier, in the order of its classes.
        image_shape: rows and columns of the image that a row of X is, or None for bars.
        feature_names: one a feature; None for those the estimator saw, or x0, x1, ...
        axes: one matplotlib axes a neuron; None for a new figure.

    Returns:
        An array of the axes, `(rank_,)`.

    Raises:
        ValueError: nothing to draw at rank 0; a shape, names or axes that do not fit.
        sklearn.exceptions.NotFittedError: not fitted.

    >>> from sklearn.datasets import load_diabetes
    >>> from jaxpoly.estimator import QuadraticNetworkRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = QuadraticNetworkRegressor(rank=1, ridge=0.1, random_state=0).fit(X, y)
    >>> plot_neurons(model).shape
    (1,)
    """
    neurons, weights = _network(estimator, output)
    num_neurons, dim = neurons.shape
    if num_neurons == 0:
        raise ValueError("the fitted rank is 0: a linear model has no neurons to draw")
    if image_shape is not None and np.prod(image_shape) != dim:
        raise ValueError(f"image_shape is {image_shape}; expected a product of {dim} features")
    if feature_names is None:
        feature_names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(dim)])
    if len(feature_names) != dim:
        raise ValueError(f"feature_names has length {len(feature_names)}; expected {dim}")
    if axes is None:
        axes = _new_axes(num_neurons, dim, image_shape is not None)
    axes = np.atleast_1d(axes).ravel()
    if len(axes) != num_neurons:
        raise ValueError(f"axes has {len(axes)} entries; expected one a neuron, {num_neurons}")
    drawn = neurons * estimator.scale_
    drawn = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    limit = np.abs(drawn).max()
    for index, (panel, neuron, weight) in enumerate(zip(axes, drawn, weights, strict=True)):
        panel.set_title(f"neuron {index + 1}, a = {weight:+.2g}", fontsize=9)
        if image_shape is not None:
            image = neuron.reshape(image_shape)
            panel.imshow(image, cmap="gray", vmin=-limit, vmax=limit)
            panel.set_xticks([])
            panel.set_yticks([])
            continue
        _signed_bars(panel, np.arange(dim), neuron, horizontal=True)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_xlim(-1.05 * limit, 1.05 * limit)
        panel.set_yticks(np.arange(dim), feature_names if index == 0 else [""] * dim, fontsize=8)
        panel.invert_yaxis()
        panel.tick_params(labelsize=8)
    return axes


def plot_spectrum(estimator: Any, output: int = 0, axes: Any = None) -> Any:
    """Draw the output weights by magnitude, and the held-out errors the rank was chosen by.

    Args:
        estimator: a fitted `QuadraticNetworkRegressor` or `QuadraticNetworkClassifier`.
        output: which network of a classifier, in the order of its classes.
        axes: one matplotlib axes, or two where rank or ridge was chosen; None for a
            new figure.

    Returns:
        An array of the axes, (1,) or (2,).

    Raises:
        ValueError: axes that do not fit.
        sklearn.exceptions.NotFittedError: not fitted.

    For an example see `plot_neurons`.
    """
    _, weights = _network(estimator, output)
    curve = estimator.rank_curve_
    num_panels = 1 if curve is None else 2
    if axes is None:
        axes = _figure(3.2 * num_panels, 2.8).subplots(1, num_panels, squeeze=False)
    axes = np.atleast_1d(axes).ravel()
    if len(axes) != num_panels:
        raise ValueError(f"axes has {len(axes)} entries; expected {num_panels}")
    ranks = np.arange(1, len(weights) + 1)
    _signed_bars(axes[0], ranks, weights, horizontal=False)
    axes[0].set_xticks(ranks)
    axes[0].set_xlim(0.4, max(len(weights), 4) + 0.6)
    axes[0].set_xlabel("neuron")
    axes[0].set_ylabel("|output weight|")
    if len(weights):
        axes[0].legend(fontsize=8)
    if curve is not None:
        index = int(np.flatnonzero(estimator.ridge_grid_ == _nearest(estimator))[0])
        error, spread = curve[index], estimator.rank_curve_error_[index]
        ranks = np.arange(len(error))
        axes[1].errorbar(ranks, error, spread, color="#0072B2", marker="o", markersize=4, capsize=2)
        axes[1].plot(
            estimator.rank_,
            error[estimator.rank_],
            "s",
            color="none",
            markeredgecolor="black",
            markersize=11,
            label=f"rank {estimator.rank_}, ridge {estimator.ridge_:g}",
        )
        axes[1].set_xticks(ranks)
        axes[1].set_xlabel("rank")
        axes[1].set_ylabel("held-out error / variance")
        axes[1].legend(fontsize=8)
    return axes


def _nearest(estimator: Any) -> float:
    """Return the tried ridge with the least error; a ridge of 0 is chosen from that one."""
    grid = estimator.ridge_grid_
    return grid[np.argmin(estimator.rank_curve_[:, estimator.rank_])]


def _network(estimator: Any, output: int) -> tuple[np.ndarray, np.ndarray]:
    check_is_fitted(estimator)
    neurons, weights = estimator.neurons_, estimator.output_weights_
    if neurons.ndim == 2:
        neurons, weights = neurons[None], weights[None]
    if not 0 <= output < len(neurons):
        raise ValueError(f"output is {output}; expected 0 to {len(neurons) - 1}")
    return neurons[output], weights[output]


def _signed_bars(panel: Any, positions: np.ndarray, values: np.ndarray, horizontal: bool) -> None:
    """Draw bars whose sign shows in colour and hatch; upright ones by their magnitude."""
    for name, style in SIGNS.items():
        chosen = values >= 0 if name == "positive" else values < 0
        if not chosen.any():
            continue
        if horizontal:
            panel.barh(positions[chosen], values[chosen], label=name, **style)
        else:
            panel.bar(positions[chosen], np.abs(values[chosen]), label=name, **style)


def _new_axes(num_neurons: int, dim: int, images: bool) -> np.ndarray:
    num_columns = min(num_neurons, 4)
    num_rows = -(-num_neurons // num_columns)
    height = 1.8 if images else max(1.8, 0.17 * dim + 0.7)
    width = 1.7 if images else 2.2
    figure = _figure(width * num_columns + (0 if images else 0.8), height * num_rows)
    grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for panel in grid[num_neurons:]:
        panel.set_visible(False)
    return grid[:num_neurons]


def _figure(width: float, height: float) -> Any:
    from matplotlib import pyplot as plt

    return plt.figure(figsize=(width, height), layout="constrained")
