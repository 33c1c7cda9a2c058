"""Say which tables an outbox's file has, and whether a file is one.

Newer code brings an older file up to date; older code leaves a newer file alone.
"""

import sqlite3
from pathlib import Path
from typing import Final

from mp_asgi.errors import OutboxUnavailable

APPLICATION_ID: Final = 0x6D704173  # "mpAs", in the header of each of our files
SOME_FREE_BYTES: Final = 8_000_000  # of the write-ahead log that stay on the disk after a burst

# `line` is the endpoint while an entry is in its place, and `ASIDE` while it waits for an alias.
# Leases have a table of their own: who takes an entry does not write its messages again. Sums have
# one, too: how full the outbox is costs the same at every depth.
_FIRST: Final = (
    """CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        line INTEGER NOT NULL,
        endpoint INTEGER NOT NULL,
        count INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        put_at REAL NOT NULL,
        tracked_at REAL NOT NULL,
        is_repeatable INTEGER NOT NULL,
        is_identity INTEGER NOT NULL,
        device_key BLOB NOT NULL,
        user_key BLOB NOT NULL,
        messages BLOB NOT NULL
    )""",
    "CREATE INDEX entries_by_line ON entries (line)",
    "CREATE INDEX entries_by_device ON entries (device_key)",
    "CREATE INDEX entries_by_user ON entries (user_key) WHERE user_key <> x''",
    """CREATE TABLE holds (
        id INTEGER PRIMARY KEY,
        held_until REAL NOT NULL,
        lease_seconds REAL NOT NULL,
        attempts INTEGER NOT NULL
    )""",
    "CREATE INDEX holds_by_time ON holds (held_until)",
    """CREATE TABLE lines (
        line INTEGER PRIMARY KEY,
        messages INTEGER NOT NULL DEFAULT 0,
        size_bytes INTEGER NOT NULL DEFAULT 0
    )""",
    "INSERT INTO lines (line) VALUES (0), (1), (2), (3), (4)",
    """CREATE TABLE state (
        next_id INTEGER NOT NULL,
        forgotten_until REAL NOT NULL,
        project TEXT NOT NULL
    )""",
    "INSERT INTO state VALUES (0, -9e999, '')",
    """CREATE TABLE totals (
        name TEXT NOT NULL,
        reason TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (name, reason)
    ) WITHOUT ROWID""",
    """CREATE TABLE marks (
        number INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        at REAL NOT NULL
    )""",
    "CREATE INDEX marks_by_time ON marks (at)",
    """CREATE TABLE tickets (
        source TEXT PRIMARY KEY,
        number INTEGER NOT NULL,
        seen_at REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        endpoint INTEGER NOT NULL,
        reason TEXT NOT NULL,
        reply BLOB NOT NULL,
        buried_at REAL NOT NULL,
        tracked_at REAL NOT NULL,
        is_repeatable INTEGER NOT NULL,
        is_identity INTEGER NOT NULL,
        device_key BLOB NOT NULL,
        user_key BLOB NOT NULL,
        message BLOB NOT NULL
    )""",
    "CREATE INDEX letters_by_time ON letters (buried_at)",
)
# How many dead letters there are and what they take, in the measure of what waits.
_SECOND: Final = (
    "ALTER TABLE letters ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0",
    "UPDATE letters SET size_bytes = length(message)",
    "ALTER TABLE state ADD COLUMN letters INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE state ADD COLUMN letter_bytes INTEGER NOT NULL DEFAULT 0",
    """UPDATE state SET (letters, letter_bytes) =
        (SELECT count(*), coalesce(sum(size_bytes), 0) FROM letters)""",
    """CREATE TRIGGER letter_comes AFTER INSERT ON letters BEGIN
        UPDATE state SET letters = letters + 1, letter_bytes = letter_bytes + NEW.size_bytes;
    END""",
    """CREATE TRIGGER letter_goes AFTER DELETE ON letters BEGIN
        UPDATE state SET letters = letters - 1, letter_bytes = letter_bytes - OLD.size_bytes;
    END""",
)
_STEPS: Final = (_FIRST, _SECOND)  # from each version to the next; 0 is an empty file

_PRAGMAS: Final = (
    # A process that dies loses nothing that was committed; power loss may take the last moments.
    "PRAGMA synchronous=NORMAL",
    "PRAGMA secure_delete=ON",
    "PRAGMA temp_store=MEMORY",
    f"PRAGMA journal_size_limit={SOME_FREE_BYTES}",
)


def prepare(
    connection: sqlite3.Connection, path: Path, *, first_id: int = 0, project: str = ""
) -> None:
    """Make sure that the file is this project's outbox, of this version, alone with it.

    Args:
        connection: To the file.
        path: Of the file, for errors.
        first_id: Of the first entry if the file is new.
        project: Whose a new file becomes: its events must not leave with another's credentials.

    Raises:
        OutboxUnavailable: It is something else, or another project's, which is left as it is; or
            its file system has no write-ahead log.
        sqlite3.Error: It cannot be read or written.
    """
    version = _find_version(connection, path)
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    if version == 0:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        _start_log(connection, path)
    if version < len(_STEPS):
        _upgrade(connection, version, first_id, project)
    (owner,) = connection.execute("SELECT project FROM state").fetchone()
    if owner != project:
        raise OutboxUnavailable(
            f"{path} is the outbox of another MIXPANEL_TOKEN. Name a file for each project in "
            "MP_ASGI_OUTBOX."
        )


def _find_version(connection: sqlite3.Connection, path: Path) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise OutboxUnavailable(
            f"{path} is a database of another program. Name another file in MP_ASGI_OUTBOX."
        )
    if version > len(_STEPS):
        raise OutboxUnavailable(
            f"{path} was made by a newer mp-asgi (version {version} of its tables; this one knows "
            f"{len(_STEPS)}). Update mp-asgi here, or name another file in MP_ASGI_OUTBOX."
        )
    return int(version)


def _start_log(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise OutboxUnavailable(
            f"The file system of {path} has no shared memory for SQLite's write-ahead log. Name a "
            "file on a local disk in MP_ASGI_OUTBOX."
        )


def _upgrade(connection: sqlite3.Connection, version: int, first_id: int, project: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in _STEPS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version == 0:
            connection.execute("UPDATE state SET next_id = ?, project = ?", (first_id, project))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={len(_STEPS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise
