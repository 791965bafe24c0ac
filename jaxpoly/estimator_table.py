"""Tables made ready: repeats merged, columns standardised, shapes rounded up."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Table:
    """Rows ready for a fit: no two equal, standardised, padded by rows and columns of zeros.

    Attributes:
        inputs: `(x - center) / scale` in the first m rows and p columns.
        targets: one row a target, `(y - mean) / spread`.
        weight: one a row, zero for padding.
        num_rows: m.
        center, scale: (p,).  A constant column has an infinite scale.
        mean, spread: (k,).  A constant target has spread 0.
    """

    inputs: np.ndarray
    targets: np.ndarray
    weight: np.ndarray
    num_rows: int
    center: np.ndarray
    scale: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """The scale, zero for a constant column, (p,)."""
        return np.where(np.isfinite(self.scale), self.scale, 0)


def merge_rows(
    inputs: np.ndarray, targets: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct rows with the sum of their weights, without rows of no weight.

    Then a weight is the same as a repetition, also for the folds: repeats of a row are
    never trained on and held out at once.
    """
    # Adding zero makes -0 and 0 one.
    rows = np.ascontiguousarray(np.column_stack([inputs, targets.T])[weight > 0]) + 0.0
    keys = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    dim = inputs.shape[1]
    merged = np.bincount(group, weight[weight > 0])
    return rows[first, :dim], rows[first, dim:].T, merged


def prepare(inputs: np.ndarray, targets: np.ndarray, weight: np.ndarray, centred: bool) -> Table:
    """Return the table of inputs (m, p), targets (k, m) and weights (m,) >= 0, not all zero.

    Raises:
        ValueError: columns so large or small beside the targets that the weights of a
            network of them do not fit into the dtype.
    """
    inputs, targets, weight = merge_rows(inputs, targets, weight)
    weight = weight / weight.sum()
    dtype = inputs.dtype
    tiny = 10 * np.finfo(dtype).eps
    dim = inputs.shape[1]
    # In float64: what is lost here no fit brings back.
    exact = inputs.astype(np.float64)
    center = weight @ exact if centred else np.zeros(dim)
    deviations = exact - center
    scale = _root_mean_square(deviations.T, weight)
    scale[scale <= tiny * np.abs(exact).max(axis=0)] = np.inf
    mean = targets.astype(np.float64) @ weight
    spread = _root_mean_square(targets - mean[:, None], weight)
    spread[spread <= tiny * np.abs(targets).max(axis=1)] = 0
    _check_scales(scale, spread, dtype)
    unit = (targets - mean[:, None]) / np.where(spread > 0, spread, 1)[:, None]

    num_rows = len(inputs)
    rows, columns = _padded(num_rows, dim)
    padding = rows - num_rows
    return Table(
        inputs=np.pad(deviations / scale, ((0, padding), (0, columns - dim))).astype(dtype),
        targets=np.pad(unit, ((0, 0), (0, padding))).astype(dtype),
        weight=np.pad(weight, (0, padding)).astype(dtype),
        num_rows=num_rows,
        center=center,
        scale=scale,
        mean=mean,
        spread=spread,
    )


def _root_mean_square(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the weighted root mean square of every row, at any scale."""
    peak = np.abs(rows).max(axis=1)
    unit = rows / np.where(peak > 0, peak, 1)[:, None]
    return peak * np.sqrt(unit**2 @ weight)


def _check_scales(scale: np.ndarray, spread: np.ndarray, dtype: np.dtype) -> None:
    """Refuse scales at which entries of L, in units of `spread / scale^2`, are lost."""
    varying, sizes = scale[np.isfinite(scale)], spread[spread > 0]
    if len(varying) == 0 or len(sizes) == 0:
        return
    limits = np.finfo(dtype)
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        largest = sizes.max() / varying.min() / varying.min()
        smallest = sizes.min() / varying.max() / varying.max()
    if not (smallest >= limits.tiny and largest <= limits.max):
        raise ValueError(
            f"columns of standard deviation {varying.min():.1e} to {varying.max():.1e} and targets "
            f"of {sizes.min():.1e} have a network whose weights do not fit into {limits.dtype}; "
            "scale them first, as with sklearn.preprocessing.StandardScaler"
        )


def _padded(num_rows: int, dim: int) -> tuple[int, int]:
    """Return a shape that many tables share, since compiling costs more than zeros."""
    step = 2 ** max((num_rows - 1).bit_length() - 3, 6)
    rows = max(256, -(-num_rows // step) * step)
    columns = max(4, 2 ** (dim - 1).bit_length()) if dim <= 32 else -(-dim // 16) * 16
    return rows, columns
