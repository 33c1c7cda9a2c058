"""Lend connections to one database, made late and per process. What fails here ends here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from .errors import LedgerUnavailable, UnusableLedger
from .servers import DRIVERS, bound_statements, make_server_engine
from .sqlite import create_file, empty_log, make_sqlite_engine, start_log

_ALIASES: Final = {**DRIVERS, "sqlite+pysqlite": "sqlite"}


class Store:
    """One database; nothing connects before it is used.

    Args:
        url: A path, `sqlite:///PATH`, or the URL of a PostgreSQL, MySQL or MariaDB.
        timeout_seconds: How long a statement, a lock or a connection may take.

    Raises:
        UnusableLedger: The URL names no database that we can use.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url = _read_url(url)
        self._path = _read_path(self._url)
        self._timeout_seconds = timeout_seconds
        # By process: what a fork inherits stays as it is, and neither is used nor closed there.
        self._engines: dict[int, Engine] = {}

    @property
    def name(self) -> str:
        """The database as a message may name it, without user, password and options."""
        place = self._url.host or "a local socket"
        return str(self._path or f"{self._url.get_backend_name()} at {place}")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection whose statements all see the same moment."""
        with self._connected() as connection:
            if self._path is None:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                self._begin(connection, "BEGIN")
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend a connection whose changes are kept together, or not at all."""
        with self._connected() as connection, connection.begin():
            self._begin(connection, "BEGIN IMMEDIATE")
            yield connection

    def prepare(self) -> None:
        """Make sure that there is something to connect to."""
        if self._path is None:
            return
        try:
            create_file(self._path)
        except OSError as error:
            raise UnusableLedger(
                f"The ledger's file {self._path} cannot be written ({error.strerror}). "
                "Create its directory, or let this user write there."
            ) from error
        with self._connected() as connection:
            start_log(connection)

    def require(self) -> None:
        """Make sure that a file is there already.

        Raises:
            UnusableLedger: It is not.
        """
        if self._path is not None and not self._path.is_file():
            raise UnusableLedger(f"There is no ledger at {self._path}.")

    def scrub(self) -> None:
        """Leave nothing of what was deleted in SQLite's log. A server's own vacuum does this.

        Raises:
            LedgerUnavailable: A reader was in the way for the whole timeout.
        """
        if self._path is None:
            return
        with self._connected() as connection:
            if not empty_log(connection):
                raise LedgerUnavailable(
                    f"The ledger {self.name} is being read; its log still holds what was erased. "
                    "Erase again."
                )

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            with self._engine().connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = _name(getattr(error, "orig", None) or error)
            raise LedgerUnavailable(f"The ledger {self.name} gave no answer: {reason}") from error

    def _engine(self) -> Engine:
        pid = os.getpid()
        # Of two threads that come first, one engine stays and the other never connects.
        return self._engines.get(pid) or self._engines.setdefault(pid, self._make_engine())

    def _make_engine(self) -> Engine:
        if self._path is not None:
            return make_sqlite_engine(self._path, self._timeout_seconds)
        return make_server_engine(self._url, self._timeout_seconds)

    def _begin(self, connection: Connection, words: str) -> None:
        if self._path is not None:
            connection.exec_driver_sql(words)
        else:
            bound_statements(connection, self._timeout_seconds)


def _name(error: object) -> str:
    """Answer what happened in the database's own short word, which quotes nothing."""
    word = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {word}" if isinstance(word, str) else type(error).__name__


def _read_url(text: str) -> URL:
    try:
        url = make_url(text if "://" in text else f"sqlite:///{text}")
    except (ArgumentError, ValueError):
        url = None
    if url is None:  # outside of the handler: the cause would show the URL, with its password
        raise UnusableLedger(
            "The ledger's URL cannot be read. Use a path, sqlite:///PATH, "
            "or postgresql://USER:PASSWORD@HOST/DATABASE."
        )
    if "@" in (url.host or ""):
        raise UnusableLedger("The ledger's URL has an @ in its password. Write it as %40.")
    url = url.set(drivername=_ALIASES.get(url.drivername, url.drivername))
    if url.drivername not in {"sqlite", *DRIVERS.values()}:
        raise UnusableLedger(
            f"The ledger cannot use {url.drivername}. Use sqlite, {', '.join(DRIVERS)}."
        )
    if url.drivername != "sqlite":
        _require_driver(url)
    return url


def _read_path(url: URL) -> Path | None:
    if url.drivername != "sqlite":
        return None
    if url.database in {None, "", ":memory:"}:
        raise UnusableLedger("The ledger's URL names no file. Use sqlite:///PATH.")
    return Path(str(url.database)).expanduser().absolute()


def _require_driver(url: URL) -> None:
    try:
        url.get_dialect().import_dbapi()
    except ImportError as error:
        driver = url.get_driver_name()
        raise UnusableLedger(
            f"The ledger's URL needs the driver {driver}: pip install {driver}"
        ) from error
