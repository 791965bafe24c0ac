"""What the page on gradients shows is what runs."""

import re
from pathlib import Path

import jax.numpy as jnp
import pytest
from scipy import stats

PAGE = Path(__file__).parents[1] / "docs" / "gradients.md"


@pytest.fixture(scope="module")
def shown():
    namespace: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), namespace)
    return namespace


@pytest.mark.slow
def test_the_precisions_that_are_learnt_are_better_than_equal_ones(shown):
    assert shown["losses"][-1] < 0.5 * shown["losses"][0]
    assert shown["errors"][1] < 0.5 * shown["errors"][0]
    middle, worst = shown["log_precision"]
    assert worst < middle < 0
    assert max(shown["losses"]) == shown["losses"][0]


@pytest.mark.slow
def test_the_intervals_hold_and_their_numbers_are_those_of_the_page(shown):
    found = shown["errors_of"]
    spare = float(found.degrees_of_freedom)
    assert f", {spare:.0f} here" in PAGE.read_text()
    assert round(float(stats.t.ppf(0.975, spare)), 2) in (1.97, 1.98)
    assert shown["inside"].mean() > 0.85
    wrong = jnp.abs(shown["learnt"].value.diagonal)
    assert jnp.all(found.eigenvalues < 0.1 * wrong)
