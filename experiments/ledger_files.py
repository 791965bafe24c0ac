"""The files of a ledger: locked, opened, inspected and set aside."""

import json
import sqlite3
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = "jaxpoly ledger 1"


class RefusedError(RuntimeError):
    """The results on disk are not those of this run; nothing was changed."""


class Contents(NamedTuple):
    """What a file holds.

    Attributes:
        facts: what is known of the run, by name.
        fingerprint: of the run, one of the facts.
        records: the payloads that match their checksums, as text by key.
        damage: what is wrong with the rest, empty if nothing is.
    """

    facts: dict[str, str]
    fingerprint: dict[str, Any]
    records: dict[str, str]
    damage: str


def inspect(path: Path) -> Contents | None:
    """Return what a ledger holds, None of an empty database.

    Raises:
        RefusedError: no ledger, or so damaged that nobody can tell of which run it is.
    """
    database = None
    try:
        database = open_database(path)
        if is_empty(database):
            return None
        facts = dict(database.execute("SELECT name, value FROM facts"))
        if facts.get("format") != FORMAT:
            raise sqlite3.DatabaseError(f"its format is {facts.get('format')!r}")
        fingerprint = json.loads(facts["fingerprint"])
        fingerprint["config"], float(facts.get("seconds", 0))
        database.execute("SELECT key, payload, checksum FROM records LIMIT 0").fetchall()
        records, damage = _sound_records(database)
        return Contents(facts, fingerprint, records, damage)
    except (sqlite3.Error, LookupError, TypeError, ValueError) as error:
        raise RefusedError(
            f"{path} is damaged or no ledger ({error}); move it away, or use --out"
        ) from error
    finally:
        if database is not None:
            database.close()


def _sound_records(database: sqlite3.Connection) -> tuple[dict[str, str], str]:
    """Return the records that are whole, read from both ends, and what the others suffer from."""
    records, damage = {}, ""
    try:
        if database.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            damage = "its pages are inconsistent"
    except sqlite3.Error as error:
        damage = str(error)
    for order in ("ASC", "DESC") if damage else ("ASC",):
        try:
            for key, payload, found in database.execute(
                f"SELECT key, payload, checksum FROM records ORDER BY rowid {order}"
            ):
                if checksum(key, payload) == found:
                    records[key] = payload
                else:
                    damage = damage or f"record {key!r} does not match its checksum"
        except sqlite3.Error as error:
            damage = damage or str(error)
    return records, damage


def checksum(key: str, payload: str) -> int:
    """Return a number by which a changed record is noticed."""
    return zlib.crc32(f"{key}\n{payload}".encode())


def is_empty(database: sqlite3.Connection) -> bool:
    """Return whether nothing was ever written."""
    return database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0


def open_database(path: Path) -> sqlite3.Connection:
    """Open and lock a file."""
    database = sqlite3.connect(path, timeout=0.5, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        # The lock is taken at the first write.
        database.execute("BEGIN IMMEDIATE")
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def claim(path: Path) -> sqlite3.Connection:
    """Lock the run of a ledger for this process, until it closes the lock or dies.

    Raises:
        RefusedError: another process has it, or the folder cannot be written.
    """
    file = path.with_suffix(".lock")
    lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = sqlite3.connect(file, timeout=0.5, isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN EXCLUSIVE")
    except (OSError, sqlite3.Error) as error:
        if lock is not None:
            lock.close()
        if "locked" in str(error):
            raise RefusedError(
                f"{path} is in use by another process; wait, or use --out"
            ) from error
        raise RefusedError(f"{path} cannot be written: {error}") from error
    return lock


def set_aside(path: Path) -> Path:
    """Rename a file to one of the same name with the time; nothing is overwritten.

    The log that SQLite may have left beside a database goes with it: it would be applied to
    the next database of this name.
    """
    stamp = time.strftime("%Y%m%dT%H%M%S")
    for target in _names(path, stamp):
        if not target.exists():
            for suffix in ("", "-wal", "-shm"):
                file = path.with_name(path.name + suffix)
                if file.exists():
                    file.rename(target.with_name(target.name + suffix))
            return target
    raise AssertionError("the names never end")


def _names(path: Path, stamp: str) -> Iterator[Path]:
    yield path.with_name(f"{path.stem}-{stamp}{path.suffix}")
    number = 0
    while True:
        number += 1
        yield path.with_name(f"{path.stem}-{stamp}-{number}{path.suffix}")
