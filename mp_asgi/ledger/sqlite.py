"""Keep the ledger in one SQLite file that only its owner reads and that forgets what it deletes."""

import errno
import os
import sqlite3
import stat
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, NullPool, create_engine

# FULL: with NORMAL the last acts could be gone after a power loss, and one may be a denial.
_PRAGMAS: Final = ("PRAGMA secure_delete=ON", "PRAGMA synchronous=FULL", "PRAGMA temp_store=MEMORY")


def make_sqlite_engine(path: Path, timeout_seconds: float) -> Engine:
    """Answer an engine that opens the file anew for each use and never creates it.

    No connection outlives its use: one that a fork inherits would share locks with its parent
    (sqlite.org/howtocorrupt.html section 2.6).
    """
    uri = f"{path.as_uri()}?mode=rw"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, timeout=timeout_seconds, uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(pragma)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    return create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)


def create_file(path: Path) -> None:
    """Make sure that the file is there and private; SQLite gives -wal and -shm the same mode.

    Raises:
        OSError: There is no such directory, or it is not ours to write; or something else than a
            file is there.
    """
    # Whatever else is there by mistake, a directory above all, keeps its mode.
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "this is no file")
        if found.st_size == 0:
            os.fchmod(file, 0o600)
    finally:
        os.close(file)


def start_log(connection: Connection) -> None:
    """Let readers read while a writer writes."""
    if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")


def empty_log(connection: Connection) -> bool:
    """Move the log into the file and cut it off. Return whether no reader was in the way."""
    is_busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    return not is_busy
