import stat
import sys
import time

import pytest
from sqlalchemy import make_url

from mp_asgi.ledger import LedgerUnavailable, UnusableLedger
from mp_asgi.ledger.servers import _bounds, bound_statements, make_server_engine
from mp_asgi.ledger.sqlite import create_file, make_sqlite_engine
from mp_asgi.ledger.store import Store
from tests.ledger.acts import USER, make_act, make_ledger, run_sql
from tests.support import TIMEOUT

SECRET = "hunter2"


def test_a_file_and_its_log_are_for_their_owner_only(tmp_path):
    path = tmp_path / "ledger.db"
    path.touch(mode=0o666)
    ledger = make_ledger(str(path))
    ledger.open()

    ledger.append([make_act()])
    with ledger._store.reading():
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}

    assert modes == dict.fromkeys(["ledger.db", "ledger.db-wal", "ledger.db-shm"], 0o600)


@pytest.mark.parametrize("prefix", ["", "sqlite:///", "sqlite+pysqlite:///"])
def test_a_file_is_named_by_its_path_or_its_url(tmp_path, prefix):
    ledger = make_ledger(f"{prefix}{tmp_path}/led ger.db")

    ledger.open()

    assert (tmp_path / "led ger.db").exists()


def test_a_relative_path_stays_where_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledger = make_ledger("ledger.db")
    monkeypatch.chdir("/")

    ledger.open()

    assert (tmp_path / "ledger.db").exists()


def test_a_file_that_went_away_is_not_made_again_in_silence(tmp_path):
    ledger = make_ledger(str(tmp_path / "ledger.db"))
    ledger.open()
    (tmp_path / "ledger.db").unlink()

    with pytest.raises(LedgerUnavailable):
        ledger.append([make_act()])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_something_else_is_unavailable(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_bytes(b"something else" * 1000)

    with pytest.raises(LedgerUnavailable, match=r"ledger\.db gave no answer: DatabaseError"):
        make_ledger(str(path)).open()


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UnusableLedger, match=r"none/ledger\.db cannot be written .* directory"):
        make_ledger(str(tmp_path / "none" / "ledger.db")).open()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("sqlite://", "names no file", id="memory"),
        pytest.param("sqlite:///:memory:", "names no file", id="memory-by-name"),
        pytest.param(f"mssql://sa:{SECRET}@host/db", "cannot use mssql", id="another-database"),
        pytest.param(
            f"postgresql+asyncpg://u:{SECRET}@host/db", "asyncpg", id="a-driver-that-awaits"
        ),
        pytest.param(f"://u:{SECRET}@host", "cannot be read", id="no-url"),
        pytest.param(f"mysql://u:{SECRET}@host:port/db", "cannot be read", id="no-port"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url, words):
    with pytest.raises(UnusableLedger, match=words) as raised:
        Store(url, 1.0)

    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        pytest.param("postgres://h/d", "psycopg", id="postgres"),
        pytest.param("postgresql://h/d", "psycopg", id="postgresql"),
        pytest.param("mysql://h/d", "pymysql", id="mysql"),
        pytest.param("mariadb://h/d", "pymysql", id="mariadb"),
    ],
)
def test_a_missing_driver_is_named(monkeypatch, url, driver):
    monkeypatch.setitem(sys.modules, driver, None)

    with pytest.raises(UnusableLedger, match=f"pip install {driver}"):
        Store(url, 1.0)


def test_a_server_that_does_not_run_is_unavailable_and_its_password_untold():
    ledger = make_ledger(f"postgresql://u:{SECRET}@127.0.0.1:1/db", timeout_seconds=1.0)

    with pytest.raises(LedgerUnavailable, match=r"postgresql at 127\.0\.0\.1") as raised:
        ledger.open()

    assert SECRET not in str(raised.value)
    assert SECRET not in str(raised.value.__cause__)


def test_a_statement_on_postgresql_ends_in_time(postgresql):
    store = Store(postgresql, 0.2)

    with pytest.raises(LedgerUnavailable, match="QueryCanceled"), store.reading() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(30)")
    store.close()


def test_a_statement_on_mariadb_ends_in_time(mariadb):
    store = Store(mariadb, 0.2)

    with pytest.raises(LedgerUnavailable, match="OperationalError"), store.reading() as connection:
        connection.exec_driver_sql("SELECT SLEEP(30)")
    store.close()


def test_the_waits_for_mysql_are_bounded_in_whole_seconds():
    bounds = _bounds(make_url("mysql+pymysql://h/d"), 0.2)

    assert bounds == {
        "connect_timeout": 1,
        "read_timeout": 1,
        "write_timeout": 1,
        "init_command": "SET SESSION innodb_lock_wait_timeout = 1",
    }


def test_only_postgresql_is_told_for_each_transaction(tmp_path):
    create_file(tmp_path / "any.db")

    with make_sqlite_engine(tmp_path / "any.db", 1.0).connect() as connection:
        bound_statements(connection, 1.0)  # SQLite would refuse the words


def test_what_the_engine_shows_of_itself_hides_the_password():
    pytest.importorskip("psycopg")
    engine = make_server_engine(make_url(f"postgresql+psycopg://u:{SECRET}@h/d"), 1.0)

    assert SECRET not in repr(engine)


@pytest.mark.parametrize("name", ["open", "append"])
def test_waiting_for_a_writer_ends_in_time(tmp_path, name):
    ledger = make_ledger(str(tmp_path / "ledger.db"), timeout_seconds=0.2)
    ledger.open()

    arguments = {"open": [], "append": [[make_act()]]}[name]

    with ledger._store.writing():
        start = time.monotonic()
        with pytest.raises(LedgerUnavailable):
            getattr(ledger, name)(*arguments)
        waited = time.monotonic() - start

    assert 0.1 < waited < TIMEOUT


def test_an_answer_is_not_read_from_a_store_that_was_locked_whole(tmp_path):
    path = str(tmp_path / "ledger.db")
    ledger = make_ledger(path, timeout_seconds=0.1)
    ledger.open()
    run_sql(path, "PRAGMA journal_mode=DELETE")

    other = ledger._store._make_engine()
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerUnavailable):
            ledger.standings([USER])
        with pytest.raises(LedgerUnavailable):
            ledger.open()
