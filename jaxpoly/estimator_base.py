"""What the regressor and the classifier share: checks, reports and predictions."""

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_consistent_length, check_random_state, check_X_y, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from jaxpoly.estimator_fit import Choice, Network
from jaxpoly.memory import check_dense
from jaxpoly.state import Status, describe
from jaxpoly.validation import check_count

FLOATS = (np.float64, np.float32)


class QuadraticEstimator(BaseEstimator):
    """What regression and classification share: checks and predictions."""

    def _validated(self, X: Any, y: Any, sample_weight: Any, numeric: bool):
        _refuse_masks(X=X, y=y, sample_weight=sample_weight)
        self.n_dropped_ = 0
        if self.drop_nonfinite:
            X, y, sample_weight = self._without_nonfinite(X, y, sample_weight)
            X, y = check_X_y(X, y, dtype=FLOATS, y_numeric=numeric)
        else:
            X, y = validate_data(self, X, y, dtype=FLOATS, y_numeric=numeric)
        instead = "jaxpoly.solve(jaxpoly.gauss_newton(rank), ...)"
        check_dense(type(self).__name__, X.shape[1], X.dtype, 4, instead)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if np.any(weight < 0):
            raise ValueError("sample_weight has negative entries; expected weights >= 0")
        if not np.any(weight > 0):
            raise ValueError("sample_weight is all zero; expected some positive weight")
        # By a power of two, so that their sum does not overflow.
        return X, y, np.ldexp(weight, 1 - np.frexp(weight.max())[1])

    def _without_nonfinite(self, X: Any, y: Any, sample_weight: Any):
        """Return data in which rows with NaN or infinity are harmless and have no weight."""
        X = validate_data(self, X, dtype=FLOATS, ensure_all_finite=False)
        y = column_or_1d(y, warn=True)
        weight = np.ones(len(X)) if sample_weight is None else column_or_1d(sample_weight)
        check_consistent_length(X, y, weight)
        kept = np.isfinite(X).all(axis=1) & np.isfinite(weight)
        if y.dtype.kind == "f":
            kept &= np.isfinite(y)
        if not kept.any():
            raise ValueError(f"all {len(X)} samples hold NaN or infinity; none is left to fit")
        self.n_dropped_ = int(np.sum(~kept & (weight != 0)))
        # A row of zeros and some label that occurs anyway.
        X, y = np.where(kept[:, None], X, 0), np.where(kept, y, y[kept.argmax()])
        return X, y, np.where(kept, weight, 0)

    def _options(self) -> tuple[int | None, float | None]:
        """Return rank and ridge, None where they are to be chosen."""
        rank, ridge = self.rank, self.ridge
        for name in ("affine", "positive", "robust", "drop_nonfinite"):
            flag = getattr(self, name, False)
            if not isinstance(flag, bool | np.bool_):
                raise TypeError(f"{name} is {flag!r}; expected True or False")
        check_count("max_steps", self.max_steps, 0)
        dim = self.n_features_in_
        if isinstance(rank, str) and rank == "auto":
            rank = None
        elif isinstance(rank, bool | np.bool_) or not isinstance(rank, int | np.integer):
            raise TypeError(f"rank is {rank!r}; expected 'auto' or an integer")
        elif not 0 <= rank <= dim:
            raise ValueError(f"rank is {rank}; expected 0 to {dim}, the number of features")
        if isinstance(ridge, str) and ridge == "auto":
            ridge = None
        elif isinstance(ridge, bool | np.bool_) or not isinstance(ridge, int | float | np.number):
            raise TypeError(f"ridge is {ridge!r}; expected 'auto' or a number")
        elif not 0 <= ridge < np.inf:
            raise ValueError(f"ridge is {ridge}; expected a finite number >= 0")
        return None if rank is None else int(rank), None if ridge is None else float(ridge)

    def _keep(self, networks: list[Network], choice: Choice) -> None:
        """Set the attributes that all networks share, and warn of unfinished fits."""
        self.rank_, self.ridge_ = choice.rank, choice.ridge
        self.ridge_grid_, self.rank_curve_ = choice.ridges, choice.error
        self.rank_curve_error_ = choice.standard_error
        self.n_iter_ = max(network.num_steps for network in networks)
        self.status_ = Status(max(network.status for network in networks)).name
        unfinished = [network for network in networks if network.unfinished]
        if unfinished:
            warnings.warn(
                f"{len(unfinished)} of {len(networks)} fits ended unfinished, the first after "
                f"{unfinished[0].num_steps} steps: {describe(unfinished[0].status)}",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _outputs(self, X: Any) -> np.ndarray:
        """Return what the networks answer, (m,) or (m, number of networks)."""
        check_is_fitted(self)
        _refuse_masks(X=X)
        X = validate_data(self, X, dtype=FLOATS, reset=False)
        deviations = X.astype(self.center_.dtype, copy=False) - self.center_
        products = deviations @ np.swapaxes(self.neurons_, -1, -2)
        squares = products**2 @ self.output_weights_[..., None]
        outputs = squares[..., 0].T + deviations @ self.coef_.T + self.intercept_
        return outputs.astype(self.neurons_.dtype, copy=False)

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))


def _refuse_masks(**arrays: Any) -> None:
    """Refuse masked arrays, whose masks scikit-learn drops without a word."""
    for name, array in arrays.items():
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array; fill it with NaN and set drop_nonfinite=True, or give "
                "sample_weight=0 to such rows"
            )
