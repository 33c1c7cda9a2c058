"""Run transactions on one SQLite file, on a connection of each thread's own.

Decides what a moved, a busy and an unusable file mean; `quarantine.py`, what a damaged one does.
What is in the tables is not known here.
"""

import contextlib
import ctypes
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from mp_asgi.errors import OutboxUnavailable

from .files import Identity, create, identify
from .quarantine import Quarantine, is_damage
from .schema import prepare

BUSY_SECONDS: Final = 5.0  # of waiting for other processes; 4 writers wait 2 s at worst (measured)
# A fork waits so long for a transaction; giving up 60,000 entries takes 0.4 s (measured). What is
# inherited in the middle of one costs the child the file for life; only a disk stands still longer.
FORK_SECONDS: Final = 5.0
# SQLite waits in C, where gevent's hub stands still with it: shortly there, then in Python.
_TRY_SECONDS: Final = 0.02
_PAUSE_SECONDS: Final = 0.02
_TRIES: Final = 3  # the file was found moved or damaged in the others

T = TypeVar("T")


class _Lent:
    """A connection of one thread, which is closed with it, but never by a forked child.

    SQLite forbids a child to close what it inherited (sqlite.org/howtocorrupt.html section 2.6),
    and Python closes what nobody refers to: one reference more keeps it open.
    """

    def __init__(self, connection: sqlite3.Connection, identity: Identity) -> None:
        self.connection = connection
        self.identity = identity
        self.pid = os.getpid()
        self.in_use = threading.Lock()
        self.is_closed = False
        self.is_leaving = False
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def close(self) -> None:
        if self.is_closed or self.pid != os.getpid():
            return
        self.is_closed = True
        self.connection.close()
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(self.connection))

    def __del__(self) -> None:
        self.close()


class Database:
    """One SQLite file that threads and processes share.

    Args:
        path: Of the file; it is made when it is first used, and its directory, too.
        renew: Begins a new file after one was damaged, which is now at the path that it is given.
        clock: Answers seconds since the epoch, for names and for the first id of a new file.
        project: Whose the file is; of another's nothing is read, and nothing is changed.

    Attributes:
        quarantine: Where a damaged file goes, so that a new one takes its place.
    """

    def __init__(
        self,
        path: Path,
        renew: Callable[[Path, sqlite3.Connection], None],
        clock: Callable[[], float] = time.time,
        *,
        project: str = "",
    ) -> None:
        self._path = path.absolute()
        self._project = project
        self.quarantine = Quarantine(self._path, clock)
        self._renew = renew
        self._clock = clock
        self._local = threading.local()
        self._lents: set[weakref.ref[_Lent]] = set()
        self._opening = threading.Lock()
        self._watch_forks()

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Answer what `work` finds, all of it as it is at one moment.

        Raises:
            OutboxUnavailable: The file cannot be used.
        """
        return self._run("BEGIN", work)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do all of `work` or nothing; it may be called again if the file had to be replaced.

        Raises:
            OutboxUnavailable: The file cannot be used.
        """
        # At once: who reads first and then wants to write is refused without waiting.
        try:
            return self._run("BEGIN IMMEDIATE", work)
        except OutboxUnavailable as error:
            # Without room for the log nothing can be deleted either, and it would stay full.
            if _is_full(error.__cause__) and self.clear_log():
                return self._run("BEGIN IMMEDIATE", work)
            raise

    def tidy(self, statement: str) -> None:
        """Run a statement outside of a transaction. It does no harm if it cannot be run now."""
        failures = (OutboxUnavailable, sqlite3.Error, OSError)
        with contextlib.suppress(*failures), self._using(self._take()) as connection:
            connection.executescript(statement)

    def clear_log(self, patience_seconds: float = 0.0) -> bool:
        """Empty the log, where what was deleted still is.

        Args:
            patience_seconds: How long to wait for those who read.

        Returns:
            Whether it is empty; not while another program reads what is of before.
        """
        deadline = time.monotonic() + patience_seconds
        while not (is_clear := self._try_to_clear_log()) and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        return is_clear

    def log_bytes(self) -> int:
        """Answer how much the log takes; it grows for as long as another program reads."""
        try:
            return Path(f"{self._path}-wal").stat().st_size
        except OSError:
            return 0

    def close(self, patience_seconds: float = 0.0) -> None:
        """Close all connections of this process, one in use as soon as it is not.

        Args:
            patience_seconds: How long to wait for those that are in use, together.
        """
        deadline = time.monotonic() + patience_seconds
        for reference in tuple(self._lents):
            if (lent := reference()) is None or lent.pid != os.getpid():
                continue
            lent.is_leaving = True
            if lent.in_use.acquire(timeout=max(0.0, deadline - time.monotonic())):
                lent.close()
                lent.in_use.release()

    def _try_to_clear_log(self) -> bool:
        try:
            with self._using(self._take()) as connection:
                is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except (OutboxUnavailable, sqlite3.Error, OSError):
            return False
        return not is_busy

    def _watch_forks(self) -> None:
        """Leave a forked child nothing: it would believe that it holds its parent's locks.

        SQLite knows files, not processes, so a child that opens the file again beside an
        inherited connection takes no lock of its own, and finds locked for ever what a transaction
        had locked at the fork. So a fork waits for the end of it. Where the disk stands still for
        longer, the child cannot write until it starts anew: the file is busy, and said to be so.
        Where the hooks do not run (uWSGI), what is inherited is at least never used nor closed.
        """
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=partial(_call, weakref.WeakMethod(self._before_fork)),
                after_in_parent=partial(_call, weakref.WeakMethod(self._after_fork)),
                after_in_child=partial(_call, weakref.WeakMethod(self._become_child)),
            )

    def _before_fork(self) -> None:
        deadline = time.monotonic() + FORK_SECONDS
        # Of this thread: another one may fork at the same time.
        self._local.is_forking = self._opening.acquire(timeout=FORK_SECONDS)
        self.close(max(0.0, deadline - time.monotonic()))

    def _after_fork(self) -> None:
        if self._local.is_forking:
            self._opening.release()

    def _become_child(self) -> None:
        self._opening = threading.Lock()

    def _run(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        deadline = time.monotonic() + BUSY_SECONDS
        try:
            while True:
                try:
                    return self._run_until_there(begin, work)
                except sqlite3.OperationalError as error:
                    # Nothing is in use meanwhile, so that a fork or a close need not wait.
                    if not _is_busy(error) or time.monotonic() >= deadline:
                        raise
                time.sleep(_PAUSE_SECONDS)
        # A number that SQLite cannot hold (OverflowError) is refused as its other errors are.
        except (sqlite3.Error, OSError, OverflowError) as error:
            reason = str(error) or type(error).__name__
            raise OutboxUnavailable(
                f"The outbox {self._path} cannot be used ({reason})."
            ) from error

    def _run_until_there(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        has_replaced = False
        for _ in range(_TRIES):
            lent = self._take()
            try:
                with self._using(lent) as connection:
                    result = _transact(connection, begin, work)
            except sqlite3.Error as error:
                if has_replaced or not is_damage(error):
                    raise
                self._replace(lent.identity, error)
                has_replaced = True
            else:
                # Somebody may have set the file aside meanwhile, with what was just written.
                if identify(self._path) == lent.identity:
                    return result
        raise OutboxUnavailable(f"The outbox {self._path} is replaced again and again.")

    @contextlib.contextmanager
    def _using(self, lent: _Lent) -> Iterator[sqlite3.Connection]:
        try:
            yield lent.connection
        except sqlite3.Error as error:
            lent.is_leaving |= not _is_busy(error)
            raise
        finally:
            lent.in_use.release()
            if lent.is_leaving:
                with lent.in_use:
                    lent.close()

    def _take(self) -> _Lent:
        """Answer this thread's connection, in use already, so that nobody closes it."""
        lent: _Lent | None = getattr(self._local, "lent", None)
        if lent is not None and lent.pid == os.getpid():
            lent.in_use.acquire()
            if not lent.is_leaving and identify(self._path) == lent.identity:
                return lent
            lent.in_use.release()
        lent = self._local.lent = self._open()
        return lent

    def _open(self) -> _Lent:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._opening, self._alone():
            self.quarantine.finish(self._begin_anew)
            try:
                connection = self._connect(self._path)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self.quarantine.set_aside(error, self._begin_anew)
                connection = self._connect(self._path)
            lent = _Lent(connection, identify(self._path))
            lent.in_use.acquire()
            self._lents.add(weakref.ref(lent, self._lents.discard))
        return lent

    def _connect(self, path: Path) -> sqlite3.Connection:
        create(path, self._path)
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw",
            timeout=_TRY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        try:
            # Ids above all that somebody may still hold of a file that was here before: what they
            # settle is not what waits in this one.
            first_id = int(self._clock() * 1e6)
            prepare(connection, path, first_id=first_id, project=self._project)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_anew(self, path: Path, aside: Path) -> None:
        """Make the whole of a new file after that one was damaged."""
        with contextlib.closing(self._connect(path)) as connection:
            _transact(connection, "BEGIN IMMEDIATE", partial(self._renew, aside))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # its log would stay behind

    def _replace(self, identity: Identity, error: sqlite3.Error) -> None:
        with self._opening, self._alone():
            if identify(self._path) == identity:  # nobody else was faster
                self.quarantine.set_aside(error, self._begin_anew)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep all others from opening or replacing the file: a name is not a lock.

        The lock is a database that stays empty: a process that ends gives it back.
        """
        path = Path(f"{self._path}.lock")
        create(path, self._path)
        if path.stat().st_size:
            os.truncate(path, 0)  # what anybody wrote into it would pass for a damaged database
        lock = sqlite3.connect(path, timeout=_TRY_SECONDS, isolation_level=None)
        try:
            lock.execute("BEGIN EXCLUSIVE")
            yield
        finally:
            lock.close()


def _transact(
    connection: sqlite3.Connection, begin: str, work: Callable[[sqlite3.Connection], T]
) -> T:
    connection.execute(begin)
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have ended it already
            connection.execute("ROLLBACK")
        raise
    return result


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    if (found := method()) is not None:
        found()


def _is_full(error: BaseException | None) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF == sqlite3.SQLITE_FULL


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
