"""The table of problems spans what it says, an oracle solves it, and no success is false."""

from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpoly as jp
from experiments import honesty
from experiments.honesty_problems import CAPACITY, problems, rank_asked
from jaxpoly import Status

TABLE = problems()
F64 = jnp.dtype("float64")


def solution_of(problem, **changes) -> jp.Solution:
    """The planted matrix as a solution that claims to have converged."""
    told = {"value": jp.LowRank(problem.factor, problem.diagonal), "intercept": 0.0}
    told |= {"status": Status.CONVERGED, "relative_residual": 0.0}
    told |= {"linear": 0.0, "num_steps": 0, "stationarity": 0.0, "underdetermined": False}
    return jp.Solution(**(told | changes))


def test_the_table_has_over_200_problems_of_all_families_scales_and_sizes():
    assert len(TABLE) > 200
    assert len({problem.name for problem in TABLE}) == len(TABLE)
    families = Counter(problem.name.split(":")[0] for problem in TABLE)
    assert min(families.values()) >= 3
    assert {p.inputs.shape[1] for p in TABLE} == set(CAPACITY) == {1, 3, 8, 60}
    peaks = np.array([[np.abs(p.inputs).max(), np.abs(p.targets).max()] for p in TABLE])
    sound = peaks[np.isfinite(peaks).all(axis=1) & (peaks > 0).all(axis=1)]
    assert np.all(sound.min(axis=0) < 1e-19)
    assert np.all(sound.max(axis=0) > 1e20)
    counted = [np.sum(p.weight > 0) / (2 * 8 - 1) for p in TABLE if p.inputs.shape[1] == 8]
    assert min(counted) < 0.55
    assert max(counted) > 19
    assert {np.count_nonzero(problem.diagonal) for problem in TABLE} == {1, 2, 3, 5, 8}
    assert sum(problem.start is not None for problem in TABLE) >= 14


def test_the_same_seed_gives_the_same_table():
    for one, other in zip(TABLE, problems(), strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.targets, other.targets)


def test_an_oracle_solves_what_is_called_exact_and_little_else():
    exact = [problem for problem in TABLE if problem.exact]
    assert 0.5 * len(TABLE) < len(exact) < 0.8 * len(TABLE)
    for problem in exact:
        assert np.count_nonzero(problem.diagonal) <= rank_asked(problem.inputs.shape[1])
        offset = 0.0
        if "offset" in problem.name:
            offset = float(problem.name.split(", ")[1])
        oracle = solution_of(problem, intercept=offset)
        if np.ptp(problem.targets[problem.weight > 0]) == 0:
            continue  # Nothing varies: +-1 entries and the identity, for instance.
        facts = honesty.recompute(problem, oracle, F64)
        assert facts["residual"] < 100 * np.finfo(float).eps * facts["cancellation"], problem.name


def test_a_lie_is_found():
    problem = next(p for p in TABLE if p.name == "samples: p = 8, 5 dof mixed")
    plain = jp.LowRank(problem.factor, problem.diagonal)
    off = jp.LowRank(problem.factor, problem.diagonal * (1 + 1e-10))
    for lie, claim in {
        "not finite": {"value": jp.LowRank(plain.factor, plain.diagonal * np.nan)},
        "CONVERGED at": {"value": off, "relative_residual": 1e-10},
        "told residual": {"value": off, "status": Status.STALLED},
        "STATIONARY at": {"value": off, "relative_residual": 1e-10, "status": Status.STATIONARY},
    }.items():
        found = honesty.find_lies(problem, solution_of(problem, **claim), F64, False, False)
        assert any(lie in told for told in found), (lie, found)
    assert honesty.find_lies(problem, solution_of(problem), F64, False, False) == []


@pytest.mark.parametrize("solver", ["EP-ROM", "AP-ROM", "factored descent", "Gauss-Newton"])
def test_the_stationarity_told_is_that_of_the_answer(solver):
    # Not that of the iterate before it: a step may lead from a small gradient to a large one.
    problem = next(p for p in TABLE if p.name == "noise: p = 8, 0.1 mixed")
    (solution,) = honesty._solve(honesty.Config(max_steps=1000), solver, [problem], F64)
    cosine = honesty.recompute(problem, solution, F64)["cosine"]
    assert solution.status == Status.STATIONARY
    np.testing.assert_allclose(solution.stationarity, cosine, rtol=0.02)


@pytest.fixture(scope="module")
def smoke():
    return honesty.run(honesty.PRESETS["smoke"])


def test_a_cut_of_the_table_has_no_false_success(smoke):
    ends = honesty.counts(smoke)["Gauss-Newton"]
    assert [lie for row in smoke["rows"] for lie in row["lies"]] == []
    assert ends["CONVERGED"] > 40
    assert ends["STATIONARY"] > 20


def test_the_printed_counts_are_those_of_the_run(smoke, tmp_path):
    (last,) = (line.split() for line in honesty.table(smoke).splitlines() if line[:4] == "all ")
    assert int(last[1]) == sum(sum(row["counts"].values()) for row in smoke["rows"])
    assert int(last[-1]) == 0
    honesty.draw(smoke, tmp_path)
    assert (tmp_path / "honesty.png").is_file()


@pytest.mark.slow
def test_the_whole_table_has_no_false_success():
    found = honesty.run(replace(honesty.PRESETS["paper"], recover_every=8))
    assert [lie for row in found["rows"] for lie in row["lies"]] == []
    total = sum(honesty.counts(found).values(), Counter())
    assert total["CONVERGED"] > 900
    assert jax.config.jax_enable_x64
