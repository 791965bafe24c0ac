"""Quadratic networks as scikit-learn estimators; needs the extra `jaxpoly[estimator]`."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from jaxpoly.estimator_base import QuadraticEstimator
from jaxpoly.estimator_fit import fit_networks, without_outliers
from jaxpoly.estimator_table import prepare
from jaxpoly.network import QuadraticNetwork


class QuadraticNetworkRegressor(RegressorMixin, QuadraticEstimator):
    """Regression by a quadratic network of few neurons.

        f(x) = sum_j a_j (w_j . d)^2 + b . d + c,      d = x - mean of the training rows

    with the r neurons w_j orthonormal.  Every pairwise interaction is in the model, at
    the price of r (p + 1) + p + 1 numbers.  In standardised columns and targets the fit
    minimises `E[(f(x) - y)^2] + ridge (|L|_F^2 + 0.03 |b|^2)`, `L = sum_j a_j w_j w_j^T`.

    Parameters
    ----------
    rank : "auto" or int, default="auto"
        Number of neurons r, 0 to p; 0 is a linear model.  "auto" chooses up to 8 by
        the least error in five-fold cross-validation.
    affine : bool, default=True
        Fit the linear terms b.  Without, d = x: a purely quadratic form and an intercept.
    positive : bool, default=False
        Keep all output weights >= 0, so that L is positive semidefinite.
    ridge : "auto" or float, default="auto"
        Penalty, >= 0.  "auto" chooses from 1e-6, 1e-5, ..., 1 by the same
        cross-validation, and 0 for targets without noise.
    robust : bool, default=False
        Take samples with gross errors in y for what they are, and give them no weight.
    drop_nonfinite : bool, default=False
        Give samples with NaN or infinity no weight; otherwise they are refused.
    max_steps : int, default=100
        Gauss-Newton steps at most.
    random_state : int, RandomState instance or None, default=None
        Draws folds and random starts.

    Attributes
    ----------
    neurons_ : ndarray of shape (rank_, n_features)
        Orthonormal rows w_j, by descending `|a_j|`.  Comparable features make them
        readable: standardise first where units differ.
    output_weights_ : ndarray of shape (rank_,)
        a_j, of either sign.
    coef_ : ndarray of shape (n_features,)
        b, the slope at the mean of the training rows; zeros without `affine`.
    intercept_ : float
        c, the value there.
    center_ : ndarray of shape (n_features,)
        The mean of the training rows; zeros without `affine`.
    scale_ : ndarray of shape (n_features,)
        The standard deviation of the features (the root mean square without `affine`).
    rank_ : int
        As chosen or given.
    ridge_ : float
        As chosen or given.
    ridge_grid_ : ndarray of shape (k,)
        The ridges tried, where rank or ridge was chosen.  None otherwise, as the next two.
    rank_curve_ : ndarray of shape (k, R + 1)
        The held-out mean squared error over the variance of y, for each of the ridges and
        the ranks 0 to R.
    rank_curve_error_ : ndarray of shape (k, R + 1)
        The standard error of that.
    sample_weight_ : ndarray of shape (n_samples,)
        The weights that the fit was made with: with `robust` zero for outliers.
    n_dropped_ : int
        Samples that `drop_nonfinite` gave no weight.
    n_iter_ : int
        Gauss-Newton steps of the last fit.
    status_ : str
        Name of a `jaxpoly.Status`.  A ConvergenceWarning says that the fit is
        visibly short of an optimum.

    Notes
    -----
    Equal rows are merged and their weights added, so that a weight is a repetition.
    Computes in the dtype of X, also where `jax_enable_x64` is off.  With `ridge=0` the
    fit is that of `jaxpoly.recover`, which finds planted networks exactly.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from jaxpoly.estimator import QuadraticNetworkRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = QuadraticNetworkRegressor(rank=1, ridge=0.1, random_state=0).fit(X, y)
    >>> model.neurons_.shape, round(model.score(X, y), 2)
    ((1, 10), 0.55)
    """

    def __init__(
        self,
        rank: int | Literal["auto"] = "auto",
        *,
        affine: bool = True,
        positive: bool = False,
        ridge: float | Literal["auto"] = "auto",
        robust: bool = False,
        drop_nonfinite: bool = False,
        max_steps: int = 100,
        random_state: Any = None,
    ):
        self.rank = rank
        self.affine = affine
        self.positive = positive
        self.ridge = ridge
        self.robust = robust
        self.drop_nonfinite = drop_nonfinite
        self.max_steps = max_steps
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "QuadraticNetworkRegressor":
        """Fit to inputs (n_samples, n_features) and targets (n_samples,).

        Raises ValueError or TypeError for data and parameters out of range.
        """
        X, y, weight = self._validated(X, y, sample_weight, numeric=True)
        rank, ridge = self._options()
        y, seed = y.astype(X.dtype, copy=False), self._seed()
        forms = {"affine": bool(self.affine), "positive": bool(self.positive)}
        if self.robust:
            weight = without_outliers(X, y, weight, rank, ridge, seed=seed, **forms)
        table = prepare(X, y[None, :], weight, bool(self.affine))
        networks, choice = fit_networks(
            table,
            rank,
            ridge,
            **forms,
            exact=True,
            max_steps=self.max_steps,
            seed=seed,
        )
        (network,) = networks
        self.center_, self.scale_ = table.center.astype(X.dtype), table.deviation.astype(X.dtype)
        self.sample_weight_ = weight
        self.neurons_, self.output_weights_ = network.neurons, network.output_weights
        self.coef_, self.intercept_ = network.coef, network.intercept
        self._keep(networks, choice)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return predictions, (n_samples,), for inputs (n_samples, n_features)."""
        return self._outputs(X)

    def to_network(self) -> QuadraticNetwork:
        """Return the fitted function of x itself, `sum_j a_j (w_j . x)^2 + b . x + c`, for JAX.

        In float32 without `jax_enable_x64`.  Far from zero the three terms cancel,
        which `predict` avoids.
        """
        check_is_fitted(self)
        projected = self.neurons_ @ self.center_
        turned = 2 * (self.output_weights_ * projected) @ self.neurons_
        at_zero = self.output_weights_ @ projected**2 - self.coef_ @ self.center_
        parts = (
            self.neurons_,
            self.output_weights_,
            self.coef_ - turned,
            self.intercept_ + at_zero,
        )
        return QuadraticNetwork(*map(jnp.asarray, parts))


class QuadraticNetworkClassifier(ClassifierMixin, QuadraticEstimator):
    """Classification by quadratic networks, one class against the rest.

    A network for each class is fitted to targets of +-1 by least squares, as
    `QuadraticNetworkRegressor` does, all with the same rank and ridge and in one vmapped
    call; the largest output wins.  Two classes take one network, whose sign decides.  There is no
    `predict_proba`: least squares gives no probabilities; calibrate with
    `sklearn.calibration.CalibratedClassifierCV` where they are needed.

    Parameters
    ----------
    rank : "auto" or int, default="auto"
        Number of neurons of each network, 0 to n_features.  "auto" chooses up to 8 by five-fold
        cross-validation of the squared error, as for `QuadraticNetworkRegressor`.
    affine : bool, default=True
        Fit linear terms.
    ridge : "auto" or float, default="auto"
        Penalty, >= 0; "auto" chooses from 1e-6, 1e-5, ..., 1.
    drop_nonfinite : bool, default=False
        Give samples with NaN or infinity no weight; otherwise they are refused.
    max_steps : int, default=100
        Gauss-Newton steps at most.
    random_state : int, RandomState instance or None, default=None
        Draws folds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    neurons_ : ndarray of shape (n_networks, rank_, n_features)
        Orthonormal rows, by descending `|output weight|`; n_networks is n_classes, or 1
        for two classes.
    output_weights_ : ndarray of shape (n_networks, rank_)
    coef_ : ndarray of shape (n_networks, n_features)
    intercept_ : ndarray of shape (n_networks,)
    n_dropped_ : int
        Samples that `drop_nonfinite` gave no weight.

    Notes
    -----
    `center_`, `scale_`, `rank_`, `ridge_`, `ridge_grid_`, `rank_curve_` and
    `rank_curve_error_` are as for `QuadraticNetworkRegressor`, and so are `n_iter_` and
    `status_`, which are the worst of all networks.

    Examples
    --------
    >>> import numpy as np
    >>> from jaxpoly.estimator import QuadraticNetworkClassifier
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> inside = X[:, 0] ** 2 + X[:, 1] ** 2 < 1
    >>> model = QuadraticNetworkClassifier(rank=2, ridge=0.01).fit(X, inside)
    >>> model.score(X, inside) > 0.9
    True
    """

    def __init__(
        self,
        rank: int | Literal["auto"] = "auto",
        *,
        affine: bool = True,
        ridge: float | Literal["auto"] = "auto",
        drop_nonfinite: bool = False,
        max_steps: int = 100,
        random_state: Any = None,
    ):
        self.rank = rank
        self.affine = affine
        self.ridge = ridge
        self.drop_nonfinite = drop_nonfinite
        self.max_steps = max_steps
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "QuadraticNetworkClassifier":
        """Fit to inputs (n_samples, n_features) and labels (n_samples,).

        Raises ValueError or TypeError for data and parameters out of range.
        """
        X, y, weight = self._validated(X, y, sample_weight, numeric=False)
        check_classification_targets(y)
        rank, ridge = self._options()
        X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
        self.classes_ = np.unique(y)
        against_rest = self.classes_[1:] if len(self.classes_) <= 2 else self.classes_
        # One class alone: a network of a constant target, so that the rest need not know.
        labels = against_rest if len(against_rest) else self.classes_
        targets = np.where(y == labels[:, None], 1, -1).astype(X.dtype)
        table = prepare(X, targets, weight, bool(self.affine))
        networks, choice = fit_networks(
            table,
            rank,
            ridge,
            affine=bool(self.affine),
            positive=False,
            exact=False,
            max_steps=self.max_steps,
            seed=self._seed(),
        )
        self.center_, self.scale_ = table.center.astype(X.dtype), table.deviation.astype(X.dtype)
        self.neurons_ = np.stack([network.neurons for network in networks])
        self.output_weights_ = np.stack([network.output_weights for network in networks])
        self.coef_ = np.stack([network.coef for network in networks])
        self.intercept_ = np.stack([network.intercept for network in networks])
        self._keep(networks, choice)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the outputs, (n_samples, n_classes), or (n_samples,) for two classes."""
        outputs = self._outputs(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def predict(self, X: Any) -> np.ndarray:
        """Return labels, (n_samples,)."""
        outputs = self.decision_function(X)
        if outputs.ndim == 2:
            return self.classes_[outputs.argmax(axis=1)]
        if len(self.classes_) == 1:
            return np.repeat(self.classes_, len(outputs))
        return self.classes_[(outputs > 0).astype(int)]
