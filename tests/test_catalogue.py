"""The catalogue of bad inputs: every row at every entry point it can be given to."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from experiments import bad_inputs, results
from experiments.bad_inputs_answers import EntryPoint
from experiments.bad_inputs_cases import NUM_ROWS, Refused
from experiments.bad_inputs_doors import entry_points
from experiments.cli import main

POINTS = {point.name: point for point in entry_points()}
FAMILIES = {point.family for point in POINTS.values()}
# Rows that an entry point cannot be given: what JAX cannot trace, under jit; what is the same for
# all of a batch, in one problem of it; what is no option there; and a cell has sizes alone.
NOT_GIVEN = {
    "jitted": {5, 6, 7, 9, 12, 16, 17, 25, 51},
    "batch": {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 25, 51, 52},
    "streamed": {17, 25, 47, 48, 49},
    "recover": {47, 48, 49},
    "regressor": {47, 48, 49, 51},
    "classifier": {4, 24, 33, 41, 42, 43, 44, 45, 46, 47, 48, 49, 51},
    "sweep": set(range(1, 53)) - {1, 2, 5, 6, 7, 9, 10, 11, 50},
}
# A batch is in the smallest run of the experiment, below.
QUICK = ("EP-ROM", "AP-ROM", "factored descent", "Gauss-Newton")
# Answered by the first start, so that no further programs are compiled.
AT_ONCE = {12, 16, 20, 22, 23, 24, 25, 26, 32, 33, 42, 46, 51}


def failures(point: EntryPoint, want) -> list[str]:
    """Return what went wrong with the cases of an entry point that `want` chooses, of some."""
    tried = [
        (case, bad_inputs.judge(case, point))
        for case in bad_inputs.cases()
        if point.applies(case) and want(case)
    ]
    assert tried
    return [
        f"{case.row}, {case.name}: {outcome}: {detail}"
        for case, (outcome, detail) in tried
        if outcome in bad_inputs.FAILURES
    ]


def is_refused(case, point: EntryPoint) -> bool:
    return isinstance(case.wanted_at(point.family, point.name), Refused)


def test_every_row_is_tried_at_every_entry_point_that_can_be_given_it():
    names = Counter(case.name for case in bad_inputs.cases())
    assert set(names.values()) == {1}
    given: dict[str, set[int]] = {family: set() for family in FAMILIES}
    for case, point in bad_inputs.pairs(bad_inputs.Config()):
        given[point.family].add(case.row)
    rows = set(range(1, NUM_ROWS + 1))
    for family in FAMILIES:
        assert rows - given[family] == NOT_GIVEN.get(family, set()), family


@pytest.mark.parametrize("name", POINTS)
def test_what_has_to_be_refused_is_with_words_that_help(name):
    point = POINTS[name]
    assert failures(point, lambda case: is_refused(case, point)) == []


@pytest.mark.parametrize("name", QUICK)
def test_bad_numbers_end_truthfully_and_good_ones_are_answered(name):
    point = POINTS[name]

    def want(case) -> bool:
        return not is_refused(case, point) and not case.own_program

    assert failures(point, want) == []


def test_recover_ends_truthfully_at_data_that_no_start_can_mend():
    point = POINTS["recover"]
    assert failures(point, lambda case: case.row in AT_ONCE and not is_refused(case, point)) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", POINTS)
def test_all_of_the_table_at_every_entry_point(name):
    assert failures(POINTS[name], lambda case: True) == []


SIZES = [
    case
    for case in bad_inputs.cases()
    if set(case.changed) <= {"rank", "max_steps"}
    and is_refused(case, POINTS["sweep"])
    # The text "2" is the number on a command line.
    and case.sizes
    and case.changed != {"rank": "2"}
]


@pytest.mark.parametrize("case", SIZES, ids=lambda case: case.name)
def test_the_command_line_refuses_sizes_and_limits_too(case, tmp_path, capsys):
    ((name, value),) = case.changed.items()
    words = ["--preset", "smoke", "--out", str(tmp_path), "--quiet", "--solvers", "Gauss-Newton"]
    try:
        code = main(["conditioning", *words, f"--{name.replace('_', '-')}", str(value)])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    said = capsys.readouterr()
    assert name.replace("_", "-") in (said.err + said.out).replace("_", "-")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad-inputs")
    config = bad_inputs.PRESETS["smoke"]
    found = bad_inputs.run(config)
    path = results.path_of(found, folder, "bad-inputs")
    results.write(path, found, results.provenance([results.fingerprint("bad-inputs", config)], 1.0))
    return results.read(path), folder


def test_the_experiment_counts_what_it_tried(saved):
    text = bad_inputs.table(saved[0])
    assert f"bad inputs tried: {len(saved[0]['rows'])} " in text
    assert "false successes: 0; unexpected: 0" in text
    outcomes = {row["outcome"] for row in saved[0]["rows"]}
    assert outcomes == {"refused", "truthful", "right"}


def test_the_figure_is_a_picture_with_content(saved):
    found, folder = saved
    bad_inputs.draw(found, folder)
    with Image.open(folder / "bad-inputs.png") as picture:
        assert picture.width > 600
        assert np.asarray(picture.convert("L")).std() > 10


def test_a_false_success_is_found_and_printed(saved):
    case = next(case for case in bad_inputs.cases() if case.name == "targets of noise")
    liar = EntryPoint(
        "liar",
        "solve",
        POINTS["AP-ROM"].takes,
        POINTS["AP-ROM"].kinds,
        lambda data: POINTS["AP-ROM"].answer(data)._replace(status=bad_inputs.Status.CONVERGED),
    )
    row = bad_inputs.attempt(case, liar)
    assert row["outcome"] == "false success"
    text = bad_inputs.table(saved[0] | {"rows": [*saved[0]["rows"], row]})
    assert "false successes: 1; unexpected: 0" in text
    assert "liar, targets of noise: false success: CONVERGED" in text
