"""The models that the real data are learned with, each a scikit-learn estimator.

All see standardised inputs, and all choose their regularisation by cross-validation on
the rows they are fitted to, so that a fit includes the choice.
"""

import io
from contextlib import redirect_stderr
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVC

from experiments.real_data_sets import Task
from jaxpoly.estimator import QuadraticNetworkClassifier, QuadraticNetworkRegressor

PENALTIES = np.logspace(-6, 6, 25)


def models(
    task: Task, seed: int, *, inner_folds: int = 3, sweeps: int = 200, trees: int = 100
) -> dict[str, BaseEstimator]:
    """Return the models of a task by name, not fitted; fewer sweeps and trees are quicker.

    Regression, the quicker task here, takes twice the sweeps and trees of classification.
    """
    if task == "regression":
        inner = KFold(inner_folds, shuffle=True, random_state=seed)
        linear = standardised(RidgeCV(PENALTIES))
        features = degree_two_features(RidgeCV(PENALTIES))
        kernel = search(
            TransformedTargetRegressor(
                KernelRidge(kernel="poly", degree=2), transformer=StandardScaler()
            ),
            {"regressor__alpha": np.logspace(-8, 2, 11), "regressor__coef0": [0.01, 0.1, 1, 10]},
            inner,
        )
        boosting = HistGradientBoostingRegressor(max_iter=2 * trees, random_state=seed)
        rates = [0.02, 0.1]
        machine, ranks = FactorisationMachineRegressor(2, 2 * sweeps, seed), [2, 4, 8]
        network = QuadraticNetworkRegressor(random_state=seed)
    else:
        inner = StratifiedKFold(inner_folds, shuffle=True, random_state=seed)
        logistic = LogisticRegression(max_iter=10_000)
        linear = search(logistic, {"C": np.logspace(-4, 3, 8)}, inner)
        features = degree_two_features(RidgeClassifierCV(PENALTIES))
        kernel = search(
            SVC(kernel="poly", degree=2),
            {"C": np.logspace(-3, 1, 5), "coef0": [0.01, 0.1, 1, 10]},
            inner,
        )
        boosting = HistGradientBoostingClassifier(max_iter=trees, random_state=seed)
        rates = [0.1]
        # One rank: a machine for each class takes minutes to sample.
        machine, ranks = FactorisationMachineClassifier(6, sweeps, seed), [6]
        network = QuadraticNetworkClassifier(random_state=seed)
    # The sampler of the factorisation machine mixes badly on correlated inputs.
    machine_search = search(machine, {"rank": ranks}, inner, PCA())
    return {
        "quadratic network": standardised(network),
        "linear": linear,
        "ridge, degree-2 features": features,
        "degree-2 kernel machine": kernel,
        "factorisation machine": machine_search,
        "gradient boosting": search(
            boosting, {"learning_rate": rates, "max_leaf_nodes": [6, 31]}, inner
        ),
    }


def standardised(*steps: BaseEstimator) -> Pipeline:
    """Return a pipeline that standardises its inputs first; its last step is called `model`."""
    names = [f"step{i}" for i in range(len(steps) - 1)] + ["model"]
    return Pipeline([("scale", StandardScaler()), *zip(names, steps, strict=True)])


def degree_two_features(model: BaseEstimator) -> Pipeline:
    """Return a pipeline that puts all squares and products, standardised, before the model."""
    return standardised(PolynomialFeatures(2, include_bias=False), StandardScaler(), model)


def search(
    model: BaseEstimator, grid: dict[str, Any], inner: Any, *steps: BaseEstimator
) -> GridSearchCV:
    """Return a standardising pipeline whose model takes the best of a grid, inner CV deciding."""
    grid = {f"model__{name}": values for name, values in grid.items()}
    return GridSearchCV(standardised(*steps, model), grid, cv=inner)


class FactorisationMachineRegressor(RegressorMixin, BaseEstimator):
    """A second-order factorisation machine, sampled by `myfm`, on standardised targets.

    The prediction is the mean over the second half of the Gibbs sweeps.
    """

    def __init__(self, rank: int = 2, sweeps: int = 200, seed: int = 0):
        self.rank, self.sweeps, self.seed = rank, sweeps, seed

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> "FactorisationMachineRegressor":
        """Sample machines given inputs (m, p) and targets (m,)."""
        self.mean_, self.scale_ = np.mean(targets), np.std(targets)
        import myfm  # of the extra real-data, which the other experiments do without

        machine = myfm.MyFMRegressor(self.rank, random_seed=self.seed)
        self.machines_ = [
            _sample(machine, inputs, (targets - self.mean_) / self.scale_, self.sweeps)
        ]
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return predictions (m,)."""
        return self.mean_ + self.scale_ * self.machines_[0].predict(inputs)


class FactorisationMachineClassifier(ClassifierMixin, BaseEstimator):
    """Second-order factorisation machines with a probit link, one against the rest.

    Two classes take one machine.  The probability is the mean over the second half of
    the Gibbs sweeps.
    """

    def __init__(self, rank: int = 2, sweeps: int = 200, seed: int = 0):
        self.rank, self.sweeps, self.seed = rank, sweeps, seed

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> "FactorisationMachineClassifier":
        """Sample machines given inputs (m, p) and labels (m,)."""
        import myfm

        self.classes_ = np.unique(targets)
        against_rest = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        self.machines_ = [
            _sample(
                myfm.MyFMClassifier(self.rank, random_seed=self.seed),
                inputs,
                targets == label,
                self.sweeps,
            )
            for label in against_rest
        ]
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return labels (m,)."""
        scores = np.stack([machine.predict_proba(inputs) for machine in self.machines_], axis=-1)
        if len(self.machines_) == 1:
            return self.classes_[(scores[:, 0] > 0.5).astype(int)]
        return self.classes_[np.argmax(scores, axis=-1)]


def _sample(machine: Any, inputs: np.ndarray, targets: np.ndarray, sweeps: int) -> Any:
    with redirect_stderr(io.StringIO()):  # its progress bar cannot be switched off
        return machine.fit(
            inputs,
            targets,
            n_iter=sweeps,
            n_kept_samples=sweeps // 2,
            callback=lambda *_: (False, None),
        )


def num_parameters(fitted: BaseEstimator, num_inputs: int) -> int:
    """Return how many numbers the fitted function has, standardisation left out.

    Linear models: coefficients and intercepts.  Kernel machines: support vectors and
    their coefficients, or all coefficients of the quadratic polynomial that they sum up
    to, whichever are fewer.  Boosting: two numbers a split and one a leaf.
    Factorisation machines: one draw of the many whose mean predicts.  Quadratic
    networks: neurons, output weights, linear coefficients and intercepts.
    """
    model = getattr(fitted, "best_estimator_", fitted)[-1]
    model = getattr(model, "regressor_", model)
    match model:
        case QuadraticNetworkRegressor() | QuadraticNetworkClassifier():
            parts = model.neurons_, model.output_weights_, model.coef_, model.intercept_
            return sum(np.size(part) for part in parts)
        case KernelRidge():
            return _kernel_parameters(model.X_fit_, model.dual_coef_.size, 1)
        case SVC():
            num_outputs = model.intercept_.size
            return _kernel_parameters(
                model.support_vectors_, model.dual_coef_.size + num_outputs, num_outputs
            )
        case HistGradientBoostingRegressor() | HistGradientBoostingClassifier():
            trees = [tree for trees in model._predictors for tree in trees]
            leaves = sum(tree.get_n_leaf_nodes() for tree in trees)
            return leaves + 2 * (leaves - len(trees)) + model._baseline_prediction.size
        case FactorisationMachineRegressor() | FactorisationMachineClassifier():
            return len(model.machines_) * (num_inputs * (model.rank + 1) + 1)
        case _:
            return np.size(model.coef_) + np.size(model.intercept_)


def _kernel_parameters(vectors: np.ndarray, num_coefficients: int, num_outputs: int) -> int:
    num_inputs = vectors.shape[1]
    expanded = num_outputs * (num_inputs + 1) * (num_inputs + 2) // 2
    return min(vectors.size + num_coefficients, expanded)
