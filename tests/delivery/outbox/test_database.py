import contextlib
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mp_asgi.delivery.outbox import database as database_module
from mp_asgi.delivery.outbox.database import Database
from mp_asgi.errors import OutboxUnavailable
from tests.support import TIMEOUT, FakeClock

PATIENCE = 60.0  # seconds for a process of its own on a busy machine

FORKING = """
import ctypes, gc, os, sys
from collections import Counter
from pathlib import Path
from mp_asgi.delivery.outbox.database import Database
from tests.delivery.outbox.test_database import bump, bumps, opened

fork = {"hooks": os.fork, "no-hooks": ctypes.PyDLL(None).fork}[sys.argv[2]]
path = Path(sys.argv[1])
database = Database(path, lambda aside, connection: None)
database.write(bump)
child = fork()
if not child:
    inherited = Counter(opened(path))
    assert bool(inherited) == (sys.argv[2] == "no-hooks"), inherited
    database.write(bump)
    database.close()
    del database
    gc.collect()
    assert not inherited - Counter(opened(path)), "what the parent opened is closed"
    sys.exit(0)
_, status = os.waitpid(child, 0)
database.write(bump)
assert database.read(bumps) == 3
sys.exit(status and 1)
"""


FORKING_IN_A_TRANSACTION = """
import os, sys, threading
from pathlib import Path
from mp_asgi.delivery.outbox.database import Database
from tests.delivery.outbox.test_database import bump, bumps

path = Path(sys.argv[1])
database = Database(path, lambda aside, connection: None)
ready = threading.Event()

def write(connection):
    bump(connection)
    ready.set()
    threading.Event().wait(0.5)  # a slow disk

thread = threading.Thread(target=database.write, args=(write,))
thread.start()
ready.wait()
child = os.fork()
if not child:
    Database(path, lambda aside, connection: None).write(bump)
    os._exit(0)
_, status = os.waitpid(child, 0)
thread.join()
assert database.read(bumps) == 2
sys.exit(status and 1)
"""


def bump(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO totals VALUES ('bumps', '', 1) "
        "ON CONFLICT (name, reason) DO UPDATE SET number = number + 1"
    )


def bumps(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT coalesce(sum(number), 0) FROM totals").fetchone()[0]


def renew(aside: Path, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO totals VALUES ('renewed', '', 1000)")


def opened(path: Path) -> list[str]:
    """Answer what this process has open of a file, its log and its lock included."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of this very listing
            found.append(str(link.readlink()))
    return [name for name in found if name.startswith(str(path))]


def in_thread(work: Callable[[], object]) -> None:
    """Do it on another thread and wait for its end."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(TIMEOUT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox.sqlite"


@pytest.fixture
def database(path: Path):
    database = Database(path, renew, FakeClock())
    yield database
    database.close()


def asides(path: Path) -> list[str]:
    found = sorted(found.name for found in path.parent.glob("*.corrupt-*"))
    return [name for name in found if not name.endswith(("-wal", "-shm"))]


def test_a_number_that_no_file_can_hold_is_an_error_of_the_storage(tmp_path):
    database = Database(tmp_path / "outbox.sqlite3", renew)

    with pytest.raises(OutboxUnavailable, match="too large"):
        database.write(lambda connection: connection.execute("SELECT ?", (10**20,)))

    database.write(bump)
    assert database.read(bumps) == 1
    database.close()


def test_nothing_is_opened_before_it_is_needed(path):
    Database(path, renew).close()

    assert not path.parent.exists()


def test_the_connection_is_set_up_for_crashes_privacy_and_others(database):
    names = ["journal_mode", "synchronous", "secure_delete", "auto_vacuum"]
    values = database.read(
        lambda connection: [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
    )

    assert values == ["wal", 1, 1, 2]


def test_a_name_with_strange_characters_is_only_a_name(tmp_path):
    database = Database(tmp_path / "a?mode=memory&%20#é.sqlite", renew)
    database.write(bump)
    database.close()

    assert (tmp_path / "a?mode=memory&%20#é.sqlite").stat().st_size > 0


def test_a_relative_path_stays_where_it_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database = Database(Path("outbox.sqlite"), renew)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    database.write(bump)
    database.close()

    assert (tmp_path / "outbox.sqlite").exists()


@pytest.mark.parametrize(
    "error", [KeyError("bug"), KeyboardInterrupt()], ids=["error", "interrupt"]
)
def test_work_that_fails_changes_nothing_and_locks_nobody_out(database, path, error):
    def fail(connection: sqlite3.Connection) -> None:
        bump(connection)
        raise error

    with pytest.raises(type(error)):
        database.write(fail)

    other = Database(path, renew)
    other.write(bump)
    assert database.read(bumps) == 1
    other.close()


def test_a_full_disk_is_said_and_nothing_is_half_written(database, path):
    def fill(connection: sqlite3.Connection) -> None:
        bump(connection)
        connection.execute("PRAGMA max_page_count=1")
        connection.execute("INSERT INTO tickets VALUES (hex(randomblob(100000)), 1, 1)")

    with pytest.raises(
        OutboxUnavailable, match=rf"{path} cannot be used \(database or disk is full"
    ):
        database.write(fill)

    assert database.read(bumps) == 0
    database.write(bump)
    assert database.read(bumps) == 1


def test_a_file_that_may_not_grow_is_said_and_works_again(path):
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from tests.delivery.outbox.test_database import *\n"
        "database = Database(Path(sys.argv[1]), renew); database.write(bump)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))\n"
        "big = lambda c: c.execute('INSERT INTO tickets VALUES (hex(randomblob(100000)), 1, 1)')\n"
        "try: database.write(big)\n"
        "except OutboxUnavailable as error: print('said', error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "database.write(big); database.write(bump); print(database.read(bumps))\n"
    )
    done = run_script(script, path)

    said, count = done.stdout.splitlines()
    assert said.startswith(f"said The outbox {path} cannot be used (")
    assert count == "2"


def test_a_file_that_another_holds_too_long_is_said(database, path, monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.01)
    database.write(bump)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    in_place = Database(path, renew)
    with pytest.raises(OutboxUnavailable, match="database is locked"):
        in_place.write(bump)
    other.execute("ROLLBACK")
    other.close()

    in_place.write(bump)
    in_place.close()
    assert database.read(bumps) == 2


@pytest.mark.parametrize("name", ["outbox.sqlite", "outbox.sqlite.lock"], ids=["file", "lock"])
def test_who_waits_for_another_waits_in_python_and_keeps_nothing(database, path, name):
    """Where gevent patches `time.sleep`, all others go on meanwhile."""
    database.write(bump)
    if name.endswith(".lock"):
        database.close()
    other = sqlite3.connect(path.with_name(name), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        lent = database._local.lent
        assert not lent.in_use.locked()
        assert not database._opening.locked()
        if len(pauses) == 3:
            other.execute("ROLLBACK")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_module.time, "sleep", sleep)
        database.write(bump)

    assert len(pauses) == 3
    assert max(database_module._TRY_SECONDS, *pauses) < 0.05
    assert database.read(bumps) == 2
    other.close()


def test_a_file_that_another_keeps_for_itself_is_said_and_left_alone(path, monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.01)
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None)
    other.executescript("PRAGMA locking_mode=EXCLUSIVE; CREATE TABLE numbers (number)")

    with pytest.raises(OutboxUnavailable, match="database is locked"):
        Database(path, renew).write(bump)
    other.close()

    assert asides(path) == []


def test_a_directory_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    database = Database(tmp_path / "file" / "outbox.sqlite", renew)

    with pytest.raises(OutboxUnavailable, match=r"outbox\.sqlite cannot be used \(.*file"):
        database.read(bumps)


def test_a_new_file_gives_no_id_that_an_earlier_one_gave(path):
    clock = FakeClock()
    firsts = []
    for _ in range(2):
        database = Database(path, renew, clock)
        firsts += database.read(
            lambda connection: connection.execute("SELECT next_id FROM state").fetchone()
        )
        database.close()
        path.unlink()
        clock.advance(1.0)

    assert firsts[0] == clock.now * 1e6 - 2e6
    assert firsts[1] == firsts[0] + 1e6  # no process stores a million messages in a second


def test_each_thread_has_a_connection_that_ends_with_it(database, path):
    database.write(bump)
    in_thread(lambda: database.write(bump))
    before = opened(path)

    for _ in range(9):
        in_thread(lambda: database.write(bump))

    assert database.read(bumps) == 11
    assert sorted(opened(path)) == sorted(before)


def test_closing_lets_go_of_all_files_and_later_use_opens_them_again(database, path):
    database.write(bump)
    ready, over = threading.Event(), threading.Event()

    def wait() -> None:
        database.write(bump)
        ready.set()
        assert over.wait(TIMEOUT)
        database.write(bump)

    thread = threading.Thread(target=wait)
    thread.start()
    assert ready.wait(TIMEOUT)
    database.close()
    assert opened(path) == []
    over.set()
    thread.join(TIMEOUT)

    assert database.read(bumps) == 3


def test_closing_waits_for_nobody_and_leaves_nothing_open(database, path):
    ready, over = threading.Event(), threading.Event()

    def hang(connection: sqlite3.Connection) -> None:
        ready.set()
        assert over.wait(TIMEOUT)
        bump(connection)

    thread = threading.Thread(target=database.write, args=(hang,))
    thread.start()
    assert ready.wait(TIMEOUT)
    database.close()
    over.set()
    thread.join(TIMEOUT)

    assert opened(path) == []
    assert database.read(bumps) == 1


@pytest.mark.parametrize("way", ["hooks", "no-hooks"])
def test_a_forked_child_opens_its_own_and_never_closes_its_parents(path, way):
    run_script(FORKING, path, way)


def test_a_fork_waits_for_what_is_being_written(database, path):
    ready = threading.Event()

    def write(connection: sqlite3.Connection) -> None:
        bump(connection)
        ready.set()
        assert not threading.Event().wait(0.05)

    thread = threading.Thread(target=database.write, args=(write,))
    thread.start()
    assert ready.wait(TIMEOUT)
    database._before_fork()
    is_closed = opened(path) == []
    database._after_fork()
    thread.join(TIMEOUT)

    assert is_closed
    assert database.read(bumps) == 1


def test_nobody_opens_the_file_while_a_process_forks(database):
    database.write(bump)
    database._before_fork()
    thread = threading.Thread(target=database.write, args=(bump,))
    thread.start()
    thread.join(0.05)
    is_waiting = thread.is_alive()
    database._after_fork()
    thread.join(TIMEOUT)

    assert is_waiting
    assert database.read(bumps) == 2


def test_a_fork_does_not_wait_for_ever(database, path, monkeypatch):
    monkeypatch.setattr(database_module, "FORK_SECONDS", 0.01)
    ready, over = threading.Event(), threading.Event()

    def hang() -> None:
        with database._opening:
            ready.set()
            assert over.wait(TIMEOUT)

    thread = threading.Thread(target=hang)
    thread.start()
    assert ready.wait(TIMEOUT)
    database._before_fork()
    database._after_fork()
    over.set()
    thread.join(TIMEOUT)

    database.write(bump)
    assert not database._opening.locked()


def test_two_forks_at_once_leave_nothing_locked(database, monkeypatch):
    monkeypatch.setattr(database_module, "FORK_SECONDS", 0.01)
    database._before_fork()

    def fork() -> None:
        database._before_fork()
        database._after_fork()

    in_thread(fork)
    is_kept = database._opening.locked()
    database._after_fork()

    assert is_kept
    assert not database._opening.locked()


def test_a_fork_does_not_wait_for_a_transaction_for_ever(database, monkeypatch):
    monkeypatch.setattr(database_module, "FORK_SECONDS", 0.01)
    ready, over = threading.Event(), threading.Event()

    def hang(connection: sqlite3.Connection) -> None:
        bump(connection)
        ready.set()
        assert over.wait(TIMEOUT)

    threads = [threading.Thread(target=database.write, args=(hang,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert ready.wait(TIMEOUT)
    database._before_fork()
    database._after_fork()
    over.set()
    for thread in threads:
        thread.join(TIMEOUT)

    assert database.read(bumps) == 2


def test_a_child_that_is_forked_in_a_long_transaction_can_write(path):
    run_script(FORKING_IN_A_TRANSACTION, path)


def test_a_child_may_open_what_its_parent_kept_closed(database):
    database._before_fork()
    database_module._call(weakref.WeakMethod(database._become_child))

    database.write(bump)

    assert database.read(bumps) == 1


def test_what_is_inherited_is_neither_used_nor_closed(database, path):
    database.write(bump)
    inherited = database._local.lent
    inherited.pid = -1

    database.write(bump)
    database.close()

    assert bumps(inherited.connection) == 2
    inherited.pid = os.getpid()
    inherited.close()
    assert opened(path) == []


def test_what_is_gone_hears_of_no_fork(path):
    database = Database(path, renew)
    forking = weakref.WeakMethod(database._before_fork)
    del database

    database_module._call(forking)

    assert forking() is None


def test_a_closed_connection_is_closed_for_good(database, path):
    database.write(bump)
    database.close()
    database.close()
    gc.collect()

    assert opened(path) == []


def test_the_log_is_emptied_unless_another_reads(database, path):
    database.write(bump)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM state").fetchall()
    database.write(bump)

    is_clear_before = database.clear_log(0.05)
    reader.close()

    assert not is_clear_before
    assert database.clear_log()
    assert path.with_name("outbox.sqlite-wal").stat().st_size == 0


def test_a_log_that_cannot_be_reached_is_not_said_to_be_empty(tmp_path):
    (tmp_path / "file").touch()

    assert not Database(tmp_path / "file" / "outbox.sqlite", renew).clear_log()


def test_what_somebody_wrote_into_the_lock_is_no_trouble(database, path):
    path.parent.mkdir()
    path.with_name("outbox.sqlite.lock").write_bytes(b"\x01" * 4096)

    database.write(bump)

    assert database.read(bumps) == 1


def test_where_nothing_forks_nothing_is_watched(path, monkeypatch):
    monkeypatch.delattr(os, "register_at_fork")

    database = Database(path, renew)

    database.write(bump)
    database.close()


def test_what_was_written_into_a_file_that_is_gone_is_written_again(database, path):
    database.write(bump)
    is_first = [True]

    def work(connection: sqlite3.Connection) -> None:
        if is_first:
            is_first.pop()
            path.unlink()
        bump(connection)

    database.write(work)

    assert database.read(bumps) == 1


def test_a_file_that_vanishes_each_time_is_said(database, path):
    with pytest.raises(OutboxUnavailable, match="again and again"):
        database.write(lambda connection: path.unlink())


def test_tidying_up_may_fail_in_peace(database, path):
    database.tidy("no statement")
    path.parent.joinpath("file").touch()
    Database(path.parent / "file" / "outbox.sqlite", renew).tidy("PRAGMA incremental_vacuum")

    database.write(bump)
    assert database.read(bumps) == 1


def test_a_process_that_is_killed_gives_back_its_locks(database, path):
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.delivery.outbox.test_database import *\n"
        "database = Database(Path(sys.argv[1]), renew)\n"
        "def hang(connection):\n"
        "    bump(connection)\n"
        "    with database._alone():\n"
        "        print('in', flush=True); sys.stdin.read()\n"
        "database.write(hang)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)

    database.write(bump)

    assert database.read(bumps) == 1


def run_script(script: str, path: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), *more],
        timeout=PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_on_a_full_disk_the_log_makes_room_and_the_write_is_tried_once_more(path):
    database = Database(path, renew)
    database.write(bump)
    log = path.with_name(f"{path.name}-wal")
    sizes = []

    def fail_at_first(connection):
        sizes.append(log.stat().st_size)
        if len(sizes) == 1:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    database.write(fail_at_first)

    assert sizes[0] > 0
    assert sizes[1] == 0
    database.close()


def test_a_log_that_is_not_there_takes_nothing(database, path):
    assert database.log_bytes() == 0

    database.write(bump)

    assert database.log_bytes() == path.with_name("outbox.sqlite-wal").stat().st_size > 0
