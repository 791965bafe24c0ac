"""The ledger keeps what was finished, whatever happens, and never mixes two runs."""

import sqlite3

import pytest

from experiments.ledger import Ledger
from experiments.ledger_files import RefusedError

MARKS = {"config": {"dim": 3}, "versions": {"jax": "1"}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.db"
    ledger = Ledger(path, MARKS)
    ledger.add({"a/1": [1, float("nan"), float("inf")], "a/2": {"x": 0.1}})
    ledger.close()
    return path


def test_a_record_comes_back_as_it_was_and_is_computed_once(path):
    ledger = Ledger(path, MARKS, resume=True)
    assert ledger.recall("a/2", lambda: pytest.fail("computed again")) == {"x": 0.1}
    assert ledger.recall("b", lambda: [2]) == ledger.recall("b", lambda: [3]) == [2]
    keys, rows = zip(*ledger.records("a/"), strict=True)
    assert keys == ("a/1", "a/2")
    assert rows[0][0] == 1
    assert rows[0][1] != rows[0][1]
    assert rows[0][2] == float("inf")
    assert ledger.count("a/") == 2
    ledger.close()


def test_an_unfinished_run_goes_on_only_if_asked(path):
    with pytest.raises(RefusedError, match="--resume"):
        Ledger(path, MARKS)
    Ledger(path, MARKS, resume=True).close()


def test_a_finished_run_is_set_aside_for_a_new_one(path):
    ledger = Ledger(path, MARKS, resume=True)
    ledger.finish()
    ledger.close()
    # Also one of other code.
    fresh = Ledger(path, MARKS | {"versions": {"jax": "2"}})
    assert fresh.count("") == 0
    fresh.close()
    (aside,) = path.parent.glob("run-*.db")
    kept = Ledger(aside, MARKS, resume=True)
    assert kept.count("") == 2
    kept.close()


@pytest.mark.fault(7)
def test_another_config_is_refused_even_by_force_and_left_as_it_is(path):
    before = path.read_bytes()
    other = MARKS | {"config": {"dim": 4}}
    for options in ({}, {"resume": True}, {"resume": True, "force": True}):
        with pytest.raises(RefusedError, match=r"config.*was \{'dim': 3\}, now \{'dim': 4\}"):
            Ledger(path, other, **options)
    assert path.read_bytes() == before


@pytest.mark.fault(7)
def test_other_versions_are_refused_unless_forced(path):
    other = MARKS | {"versions": {"jax": "2"}}
    with pytest.raises(RefusedError, match=r"versions.*--resume --force"):
        Ledger(path, other, resume=True)
    Ledger(path, other, resume=True, force=True).close()


def damaged(whole: bytes, damage: str) -> bytes:
    if damage == "text":
        return b"no database, but long enough to look like a file of results" * 99
    if damage == "truncated":
        return whole[: len(whole) // 2]
    place = whole.rindex(b'"x": 0.1')
    return whole[:place] + whole[place:].replace(b"0.1", b"0.2", 1)


@pytest.mark.fault(4)
@pytest.mark.parametrize(
    ("damage", "resume"), [("text", True), ("truncated", True), ("flipped", False)]
)
def test_what_cannot_be_read_or_is_not_resumed_is_refused_and_left_as_it_is(path, damage, resume):
    path.write_bytes(damaged(path.read_bytes(), damage))
    before = path.read_bytes()
    with pytest.raises(RefusedError, match="damaged"):
        Ledger(path, MARKS, resume=resume)
    assert path.read_bytes() == before


def test_a_database_that_is_no_ledger_is_refused(tmp_path):
    path = tmp_path / "run.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE facts (name, value)")
    database.close()
    with pytest.raises(RefusedError, match="no ledger"):
        Ledger(path, MARKS, resume=True)


@pytest.mark.fault(4)
def test_of_a_damaged_run_the_sound_records_are_kept_and_the_file_set_aside(path, capsys):
    broken = damaged(path.read_bytes(), "flipped")
    path.write_bytes(broken)
    ledger = Ledger(path, MARKS, resume=True)
    assert "was damaged (record 'a/2' does not match its checksum)" in capsys.readouterr().err
    assert ledger.notes
    assert [key for key, _ in ledger.records("")] == ["a/1"]
    assert ledger.recall("a/2", lambda: "anew") == "anew"
    assert ledger.fingerprints == [MARKS]
    ledger.close()
    (aside,) = path.parent.glob("run-*.db")
    assert aside.read_bytes() == broken


@pytest.mark.fault(4)
def test_of_inconsistent_pages_all_that_can_be_read_is_kept(tmp_path):
    path = tmp_path / "run.db"
    ledger = Ledger(path, MARKS)
    ledger.add({f"a/{number:04d}": {"text": "x" * 500} for number in range(400)})
    ledger.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = bytes(4096)
    path.write_bytes(content)
    rescued = Ledger(path, MARKS, resume=True)
    assert 300 < rescued.count("") < 400
    assert all(value == {"text": "x" * 500} for _, value in rescued.records(""))
    rescued.close()


@pytest.mark.fault(5)
def test_two_processes_are_kept_apart_until_the_first_is_done(path):
    first = Ledger(path, MARKS, resume=True)
    with pytest.raises(RefusedError, match="in use"):
        Ledger(path, MARKS, resume=True)
    first.close()
    Ledger(path, MARKS, resume=True).close()


def test_a_batch_is_written_whole_or_not_at_all(path):
    ledger = Ledger(path, MARKS, resume=True)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.add({"b/1": 1, "a/1": 2})
    assert ledger.count("b/") == 0
    ledger.close()


@pytest.mark.fault(8)
def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match="cannot be written"):
        Ledger(tmp_path / "file" / "run.db", MARKS)


def test_the_lock_is_held_while_a_finished_run_is_set_aside(path):
    ledger = Ledger(path, MARKS, resume=True)
    ledger.finish()
    ledger.close()
    fresh = Ledger(path, MARKS)
    with pytest.raises(RefusedError, match="in use"):
        Ledger(path, MARKS)
    fresh.add({"new": 1})
    fresh.finish()
    fresh.close()
    again = Ledger(path, MARKS)
    assert len(list(path.parent.glob("run-*.db"))) == 2
    again.close()


def test_a_run_that_computed_nothing_blocks_no_other(tmp_path):
    path = tmp_path / "run.db"
    Ledger(path, MARKS).close()
    other = Ledger(path, MARKS | {"config": {"dim": 9}})
    assert other.fingerprints == [MARKS | {"config": {"dim": 9}}]
    other.close()


def test_a_forced_run_tells_what_it_was_computed_under(path):
    other = MARKS | {"versions": {"jax": "2"}}
    ledger = Ledger(path, other, resume=True, force=True)
    assert ledger.fingerprints == [MARKS, other]
    ledger.close()
