"""The limits experiment at its smallest size: what it counts, and what it compares with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxpoly as jp
from experiments import limits, limits_cases, results
from experiments.session import Session

SMOKE = limits.PRESETS["smoke"]


@pytest.fixture(scope="module")
def session():
    return Session()


@pytest.fixture(scope="module")
def found(session):
    return limits.run(SMOKE, session)


@pytest.fixture
def saved(found, tmp_path):
    results.write(
        tmp_path / "limits.json",
        found,
        results.provenance([results.fingerprint("limits", SMOKE)], 0.0),
    )
    return results.read(tmp_path / "limits.json")


@pytest.mark.slow
def test_every_method_is_counted_for_both_signs(saved):
    curves = saved["curves"]
    assert set(curves) == {"mixed", "positive"}
    for methods in curves.values():
        assert len(methods) == 6
        for points in methods.values():
            assert [point["ratio"] for point in points] == [2.0]
            assert points[0]["rate"] in np.arange(5) / 4
        assert methods["recover"][0]["rate"] == 1


@pytest.mark.slow
def test_a_row_tells_successes_with_their_interval(saved):
    (row,) = saved["rows"]
    assert row["successes"] == row["trials"] == 4
    assert row["interval"][0] < 1 <= row["interval"][1] + 1e-12
    assert row["worst_over_oracle"] is None
    assert "uniform" in row["name"]


@pytest.mark.slow
def test_nothing_finished_is_computed_again(found, session):
    # Seconds would differ.
    assert limits.run(SMOKE, session) == found


@pytest.mark.slow
def test_the_table_prints_the_saved_numbers(saved):
    lines = limits.table(saved).splitlines()
    assert "2 dof" in lines[0]
    assert len([line for line in lines if line.split()[:2] == ["recover", "1.00"]]) == 2
    assert lines[-1].startswith(saved["rows"][0]["name"])
    assert "oracle" not in lines[-1]


@pytest.mark.slow
def test_rows_without_curves_make_a_table_and_no_figure(saved, tmp_path):
    rows_only = saved | {"curves": {}}
    limits.draw(rows_only, tmp_path)
    assert limits.table(rows_only) in limits.table(saved)
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.slow
def test_the_figure_is_a_picture_with_content(saved, tmp_path):
    limits.draw(saved, tmp_path)
    assert (tmp_path / "limits.svg").stat().st_size > 0
    with Image.open(tmp_path / "limits.png") as picture:
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
