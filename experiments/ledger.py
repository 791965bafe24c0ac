"""A crash-safe ledger of what an experiment has computed: one SQLite file in WAL mode.

A record is written whole or not at all, one transaction a batch, so that a kill at any
moment loses what was being computed and nothing else.  The file is locked while it is
open, and the system frees the lock of a process that died.
"""

import json
import sqlite3
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import jax
import numpy as np

from experiments.ledger_files import (
    FORMAT,
    Contents,
    RefusedError,
    checksum,
    claim,
    inspect,
    is_empty,
    open_database,
    set_aside,
)

TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE records "
    "(key TEXT PRIMARY KEY, payload TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT",
)


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
        self._rescued: Contents | None = None
        self._warning = ""
        if path is None:
            self._database = sqlite3.connect(":memory:", check_same_thread=False)
        else:
            self._claim = claim(path)
            try:
                self._database = self._take(path, resume, force)
            except BaseException:
                self._claim.close()
                raise
        # A ledger in memory has no owner that would close it.
        weakref.finalize(self, self._database.close)
        self.is_new = is_empty(self._database)
        self._make()
        self._before = float(self._fact("seconds") or 0)
        if self._rescued is not None:
            self._write(self._rescued.records)
            self.note(self._warning)

    def _take(self, path: Path, resume: bool, force: bool) -> sqlite3.Connection:
        """Open a file that is ours, or a new one."""
        if path.exists():
            self._check(path, resume, force)
        try:
            database = open_database(path)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as error:
            raise RefusedError(f"{path} cannot be written: {error}") from error
        return database

    def _check(self, path: Path, resume: bool, force: bool) -> None:
        """Refuse a file that is not ours; set a finished one aside unless it is resumed.

        Of a damaged one that is resumed the sound records are kept, and the file set aside.
        """
        found = inspect(path)
        if found is None:
            return
        finished = "finished" in found.facts
        if not (found.records or found.damage or finished):
            # Of a run that ended before it had computed anything.
            path.unlink()
            return
        # A finished run is set aside whatever the code; only its config is protected.
        self._compare(path, found.fingerprint, force if resume else finished)
        if found.damage and not resume:
            raise RefusedError(
                f"{path} is damaged ({found.damage}); go on with --resume, which keeps what is "
                "sound, or use --out"
            )
        if not resume and not finished:
            raise RefusedError(
                f"{path} holds an unfinished run of this config; continue it with --resume, "
                "or use --out"
            )
        if not resume:
            set_aside(path)
        elif found.damage:
            self._rescued = found
            self._warning = (
                f"{path} was damaged ({found.damage}): {len(found.records)} sound records are "
                f"kept, the rest is computed anew; the damaged file is {set_aside(path)}"
            )

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
            if self._rescued is not None:
                facts = {k: text for k, text in self._rescued.facts.items() if k != "finished"}
            with self._writing():
                self._database.execute("BEGIN IMMEDIATE")
                for statement in TABLES:
                    self._database.execute(statement)
                self._database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        if self._fingerprint not in self.fingerprints:
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
        self._write({key: json.dumps(value, default=plain) for key, value in records.items()})

    def _write(self, payloads: Mapping[str, str]) -> None:
        rows = [(key, payload, checksum(key, payload)) for key, payload in payloads.items()]
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

    def note(self, text: str) -> None:
        """Tell the reader of the terminal, and of the results, what happened to the run."""
        print(f"note: {text}", file=sys.stderr, flush=True)
        with self._writing():
            self._set("notes", json.dumps([*self.notes, text]))

    @property
    def notes(self) -> list[str]:
        """What happened to the run, damage and lack of memory for instance."""
        return json.loads(self._fact("notes") or "[]")

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


def plain(value: Any) -> Any:
    """Return arrays as lists and paths as text, for JSON."""
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} to JSON")
