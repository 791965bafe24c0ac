"""What the regressor and the classifier share: checks, reports and predictions."""

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from jaxpoly.estimator_fit import Choice, Network
from jaxpoly.state import Status, describe

FLOATS = (np.float64, np.float32)


class QuadraticEstimator(BaseEstimator):
    """What regression and classification share: checks and predictions."""

    def _validated(self, X: Any, y: Any, sample_weight: Any, numeric: bool):
        X, y = validate_data(self, X, y, dtype=FLOATS, y_numeric=numeric)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if np.any(weight < 0):
            raise ValueError("sample_weight has negative entries; expected weights >= 0")
        if not np.any(weight > 0):
            raise ValueError("sample_weight is all zero; expected some positive weight")
        return X, y, weight

    def _options(self) -> tuple[int | None, float | None]:
        """Return rank and ridge, None where they are to be chosen."""
        rank, ridge = self.rank, self.ridge
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
        X = validate_data(self, X, dtype=FLOATS, reset=False)
        deviations = X.astype(self.center_.dtype, copy=False) - self.center_
        products = deviations @ np.swapaxes(self.neurons_, -1, -2)
        squares = products**2 @ self.output_weights_[..., None]
        outputs = squares[..., 0].T + deviations @ self.coef_.T + self.intercept_
        return outputs.astype(self.neurons_.dtype, copy=False)

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))
