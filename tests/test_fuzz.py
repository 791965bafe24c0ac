"""Laws that hold of every problem hypothesis can think of; more of them in the slow run.

Examples at which a law broke are kept in `.hypothesis` and tried first.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis.database import DirectoryBasedExampleDatabase
from PIL import Image

import jaxpoly as jp
from experiments import fuzz
from experiments.fuzz_examples import SHAPES, Example, problem

DATABASE = DirectoryBasedExampleDatabase(Path(__file__).parents[1] / ".hypothesis" / "examples")
USUAL = Example(
    solver="Gauss-Newton",
    shape="usual",
    dtype="float64",
    seed=0,
    num_samples=50,
    weights="unequal",
    law="gaussian",
    num_columns=8,
    num_distinct=60,
    eigenvalues=(2.0, -1.0),
    input_exponent=0,
    target_exponent=0,
    noise=0.0,
    offset=0.0,
)


def assert_lawful(example: Example) -> None:
    _, broken = fuzz.check(example)
    assert broken == []


def explore(config: fuzz.Config) -> int:
    """Try the examples of a config, simplify one that breaks a law; return their number."""
    visited = []

    def visit(example: Example) -> None:
        visited.append(example)
        assert_lawful(example)

    fuzz.explore(config, visit, config.examples, config.seed, DATABASE)
    return len(visited)


def test_sixty_problems_keep_the_laws():
    assert explore(fuzz.Config(examples=60, shapes=("usual",), dtypes=("float64",))) >= 60


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_thousand_problems_keep_the_laws():
    assert explore(fuzz.Config(examples=2000)) >= 2000


def test_a_usual_example_is_solved():
    assert fuzz.check(USUAL) == ("CONVERGED", [])


def test_an_answer_that_lies_breaks_the_laws(monkeypatch):
    solve = fuzz.solve

    def lie(example, data):
        return replace(solve(example, data), status=np.int32(jp.Status.CONVERGED))

    def crash(example, data):
        raise RuntimeError("no answer")

    monkeypatch.setattr(fuzz, "solve", lie)
    assert fuzz.check(replace(USUAL, noise=10.0))[1] == [fuzz.FALSE_SUCCESS]
    monkeypatch.setattr(fuzz, "solve", crash)
    assert fuzz.check(USUAL) == ("RuntimeError", ["no exception: no answer"])


def test_an_example_has_the_rows_columns_and_scales_it_says():
    data = problem(replace(USUAL, num_samples=7, num_columns=3, num_distinct=5, input_exponent=4))
    assert data.inputs.shape == (60, SHAPES["usual"][1])
    assert np.count_nonzero(data.weight) == 7
    assert np.all(np.any(data.inputs != 0, axis=0) == (np.arange(8) < 3))
    assert len(np.unique(data.inputs, axis=0)) == 5
    assert 1e3 < np.std(data.inputs[:, :3]) < 1e5


def test_the_experiment_counts_its_examples(tmp_path):
    config = replace(fuzz.PRESETS["smoke"], examples=20)
    found = fuzz.run(config)
    assert found["examples"] == sum(found["statuses"]["Gauss-Newton"].values()) == 20
    assert found == fuzz.run(config)
    text = fuzz.table(found)
    assert "examples: 20; that break a law: 0; false successes: 0" in text
    broken = [{"example": {"solver": "none"}, "laws": [fuzz.FALSE_SUCCESS, "no exception: why"]}]
    text = fuzz.table(found | {"broken": broken})
    assert "that break a law: 1; false successes: 1" in text
    assert "no exception: 1" in text
    fuzz.draw(found, tmp_path)
    with Image.open(tmp_path / "fuzz.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
