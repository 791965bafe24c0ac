"""A crash-safe ledger of what an experiment has computed: one SQLite file in WAL mode.

A record is written whole or not at all, one transaction a batch, so that a kill at any
moment loses what was being computed and nothing else.  The file is locked while it is
open, and the system frees the lock of a process that died.
"""

import json
import sqlite3
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import jax
import numpy as np

FORMAT = "jaxpoly ledger 1"
TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE records "
    "(key TEXT PRIMARY KEY, payload TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT",
)


class RefusedError(RuntimeError):
    """The results on disk are not those of this run; nothing was changed."""


class Ledger:
    """Records by key, with the fingerprint of the run they belong to.

    Args:
        path: the file, made if it is not there; None keeps everything in memory.
        fingerprint: what must agree for the records to be of this run.
        resume: continue a run that is there.
        force: continue though code, versions or device differ; never another config.

    Raises:
        RefusedError: a file of another run, a damaged one, one in use by another process, an
            unfinished one without `resume`; a folder that cannot be written.
    """

    def __init__(
        self,
        path: Path | None = None,
        fingerprint: Mapping[str, Any] | None = None,
        resume: bool = False,
        force: bool = False,
    ):
        self.path = path
        self._began = time.perf_counter()
        self._lock = Lock()
        self._claim: sqlite3.Connection | None = None
        self._fingerprint = json.loads(json.dumps(fingerprint or {}, default=plain))
        if path is None:
            self._database = sqlite3.connect(":memory:", check_same_thread=False)
        else:
            self._claim = _claim(path)
            try:
                self._database = self._take(path, resume, force)
            except BaseException:
                self._claim.close()
                raise
        # A ledger in memory has no owner that would close it.
        weakref.finalize(self, self._database.close)
        self.is_new = _is_empty(self._database)
        self._make()
        self._before = float(self._fact("seconds") or 0)

    def _take(self, path: Path, resume: bool, force: bool) -> sqlite3.Connection:
        """Open a file that is ours, or a new one."""
        if path.exists():
            self._check(path, resume, force)
        try:
            database = _open(path)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            raise RefusedError(f"{path} cannot be written: {error}") from error
        return database

    def _check(self, path: Path, resume: bool, force: bool) -> None:
        """Refuse a file that is not ours; set a finished one aside unless it is resumed."""
        database = None
        try:
            database = _open(path)
            if _is_empty(database):
                return
            if database.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("its pages are inconsistent")
            facts = dict(database.execute("SELECT name, value FROM facts"))
            if facts.get("format") != FORMAT:
                raise sqlite3.DatabaseError(f"its format is {facts.get('format')!r}")
            found = json.loads(facts["fingerprint"])
            found["config"], float(facts.get("seconds", 0))
            num_records = 0
            for key, payload, checksum in database.execute("SELECT * FROM records"):
                num_records += 1
                if _checksum(key, payload) != checksum:
                    raise sqlite3.DatabaseError(f"record {key!r} does not match its checksum")
        except (sqlite3.Error, LookupError, TypeError, ValueError) as error:
            raise RefusedError(
                f"{path} is damaged or no ledger ({error}); move it away, or use --out"
            ) from error
        finally:
            if database is not None:
                database.close()
        if not num_records and "finished" not in facts:
            # Of a run that ended before it had computed anything.
            path.unlink()
            return
        # A finished run is set aside whatever the code; only its config is protected.
        self._compare(path, found, force if resume else "finished" in facts)
        if resume:
            return
        if "finished" not in facts:
            raise RefusedError(
                f"{path} holds an unfinished run of this config; continue it with --resume, "
                "or use --out"
            )
        set_aside(path)

    def _compare(self, path: Path, found: dict[str, Any], force: bool) -> None:
        differing = [
            name
            for name in sorted(found.keys() | self._fingerprint.keys())
            if found.get(name) != self._fingerprint.get(name)
        ]
        if not differing or (force and "config" not in differing):
            return
        name = differing[0]
        before, now = found.get(name), self._fingerprint.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            changed = [key for key in before | now if before.get(key) != now.get(key)]
            before = {key: before.get(key) for key in changed}
            now = {key: now.get(key) for key in changed}
        hint = "use another --out" + ("" if "config" in differing else ", or --resume --force")
        raise RefusedError(
            f"{path} holds results of another run: {', '.join(differing)} differ "
            f"({name} was {before}, now {now}); {hint}"
        )

    def _make(self) -> None:
        if self.is_new:
            facts = {"format": FORMAT, "fingerprint": json.dumps(self._fingerprint)}
            with self._writing():
                self._database.execute("BEGIN IMMEDIATE")
                for statement in TABLES:
                    self._database.execute(statement)
                self._database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        elif self._fingerprint not in self.fingerprints:
            with self._writing():
                self._set("continued", json.dumps([*self.fingerprints[1:], self._fingerprint]))

    @property
    def fingerprints(self) -> list[dict[str, Any]]:
        """What the records were computed under: more than one where `force` continued a run."""
        first = json.loads(self._fact("fingerprint") or "{}")
        return [first, *json.loads(self._fact("continued") or "[]")]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Run a transaction; a failure leaves what was there and is an OSError."""
        try:
            with self._lock, self._database:
                yield
        except sqlite3.OperationalError as error:
            raise OSError(f"cannot write to {self.path}: {error}") from error

    def _fact(self, name: str) -> str | None:
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    @property
    def seconds(self) -> float:
        """Wall time spent on this run, in all its parts."""
        return self._before + time.perf_counter() - self._began

    def add(self, records: Mapping[str, Any]) -> None:
        """Write records in one transaction; payloads are anything JSON holds, and arrays.

        Raises:
            OSError: the disk is full or gone; what was there is intact.
        """
        rows = []
        for key, value in records.items():
            payload = json.dumps(value, default=plain)
            rows.append((key, payload, _checksum(key, payload)))
        with self._writing():
            self._database.executemany("INSERT INTO records VALUES (?, ?, ?)", rows)
            self._set("seconds", repr(self.seconds))

    def recall(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return the record, computed and written first where it is not there."""
        row = self._database.execute("SELECT payload FROM records WHERE key = ?", (key,)).fetchone()
        if row is None:
            self.add({key: compute()})
            return self.recall(key, compute)
        return json.loads(row[0])

    def has(self, key: str) -> bool:
        """Return whether there is a record of this key; from any thread."""
        with self._lock:
            found = self._database.execute("SELECT 1 FROM records WHERE key = ?", (key,))
            return found.fetchone() is not None

    def count(self, prefix: str) -> int:
        """Return the number of records whose key begins with the prefix."""
        counted = self._database.execute(
            "SELECT count(*) FROM records WHERE substr(key, 1, ?) = ?", (len(prefix), prefix)
        )
        return counted.fetchone()[0]

    def records(self, prefix: str) -> Iterator[tuple[str, Any]]:
        """Yield keys and payloads of all records whose key begins with the prefix, by key."""
        rows = self._database.execute(
            "SELECT key, payload FROM records WHERE substr(key, 1, ?) = ? ORDER BY key",
            (len(prefix), prefix),
        )
        for key, payload in rows:
            yield key, json.loads(payload)

    def finish(self) -> None:
        """Mark the run as finished."""
        with self._writing():
            self._set("seconds", repr(self.seconds))
            self._set("finished", "yes")

    def _set(self, name: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def close(self) -> None:
        """Free the lock."""
        self._database.close()
        if self._claim is not None:
            self._claim.close()


def set_aside(path: Path) -> None:
    """Rename a file to one of the same name with the time; nothing is overwritten."""
    stamp, number = time.strftime("%Y%m%dT%H%M%S"), 0
    while True:
        mark = f"-{number}" if number else ""
        target = path.with_name(f"{path.stem}-{stamp}{mark}{path.suffix}")
        if not target.exists():
            path.rename(target)
            return
        number += 1


def _checksum(key: str, payload: str) -> int:
    return zlib.crc32(f"{key}\n{payload}".encode())


def _claim(path: Path) -> sqlite3.Connection:
    """Lock the run of a ledger for this process, until it closes the lock or dies."""
    file = path.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = sqlite3.connect(file, timeout=0.5, isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN EXCLUSIVE")
    except (OSError, sqlite3.Error) as error:
        if "locked" in str(error):
            raise RefusedError(
                f"{path} is in use by another process; wait, or use --out"
            ) from error
        raise RefusedError(f"{path} cannot be written: {error}") from error
    return lock


def _open(path: Path) -> sqlite3.Connection:
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


def _is_empty(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0


def plain(value: Any) -> Any:
    """Return arrays as lists and paths as text, for JSON."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} to JSON")
