"""The limits experiment at its smallest size: what it counts, and what it compares with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxpoly as jp
from experiments import limits_cases, results
from experiments.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    sizes = "--trials 4 --dim 10 --rank 1 --ratios 3.0 --only uniform"
    main(["limits", *sizes.split(), "--out", str(folder)])
    return folder


def test_every_method_is_counted_for_both_signs(folder):
    curves = results.read(folder / "limits.json")["curves"]
    assert set(curves) == {"mixed", "positive"}
    for methods in curves.values():
        assert len(methods) == 6
        for points in methods.values():
            assert [point["ratio"] for point in points] == [3.0]
            assert points[0]["rate"] in np.arange(5) / 4
        assert methods["recover"][0]["rate"] == 1


def test_a_row_tells_successes_with_their_interval(folder):
    saved = results.read(folder / "limits.json")
    (row,) = saved["rows"]
    assert row["successes"] == row["trials"] == 4
    assert row["interval"][0] < 1 <= row["interval"][1] + 1e-12
    assert row["worst_over_oracle"] is None
    assert saved["provenance"]["config"]["only"] == "uniform"


def test_the_figure_is_a_picture_with_content(folder):
    with Image.open(folder / "limits.png") as picture:
        assert picture.width > 600
        assert np.asarray(picture.convert("L")).std() > 10


def test_the_oracle_is_exact_without_noise_and_has_the_expected_error_with_it():
    problem = jp.sample_problem(jax.random.key(0), 600, 12, 2, condition=1.0)
    assert limits_cases.oracle_error(problem, problem.targets) < 1e-12
    noise = jax.random.normal(jax.random.key(1), (40, 600))
    squares = jax.vmap(
        lambda errors: limits_cases.oracle_error(problem, problem.targets + 0.1 * errors) ** 2
    )(noise)
    # |L - L*|_F^2 is about sigma^2 dof / (2 (m - dof)), and |L*|_F^2 = 2.
    expected = 0.01 * 23 / (2 * (600 - 23)) / 2
    assert jnp.mean(squares) == pytest.approx(expected, rel=0.25)


def test_laws_of_inputs_have_the_moments_they_are_named_for():
    inputs = limits_cases.correlated(jax.random.key(0), (40000, 8), jnp.float64)
    eigenvalues = np.linalg.eigvalsh(np.cov(np.asarray(inputs).T))
    assert eigenvalues[-1] / eigenvalues[0] == pytest.approx(100, rel=0.1)
    assert jnp.mean(limits_cases.shifted(100.0, jax.random.key(1), (400, 5), jnp.float64)) == (
        pytest.approx(100, abs=0.2)
    )
