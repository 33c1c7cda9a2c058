import sqlite3
from contextlib import closing

import pytest

from mp_asgi.delivery.outbox import schema
from mp_asgi.delivery.outbox.schema import APPLICATION_ID, prepare
from mp_asgi.errors import OutboxUnavailable

MANY = "CREATE TABLE numbers (number); INSERT INTO numbers VALUES (42);"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.sqlite"


@pytest.fixture
def connection(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def pragma(connection, name):
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_an_empty_file_becomes_an_outbox(connection, path):
    prepare(connection, path)

    assert pragma(connection, "application_id") == APPLICATION_ID
    assert pragma(connection, "user_version") == 2
    assert connection.execute("SELECT count(*) FROM lines").fetchone() == (5,)


def test_what_ended_the_upgrade_is_said_though_it_ended_the_transaction_too(
    connection, path, monkeypatch
):
    """As a full disk does (sqlite.org/lang_transaction.html section 2.3)."""
    monkeypatch.setattr(schema, "_STEPS", (("ROLLBACK", "SELECT * FROM nowhere"),))

    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
        prepare(connection, path)


def test_an_outbox_stays_as_it_is(connection, path):
    prepare(connection, path)
    connection.execute("UPDATE state SET next_id = 7")

    prepare(connection, path)

    assert connection.execute("SELECT next_id FROM state").fetchone() == (7,)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(MANY, id="tables"),
        pytest.param(f"{MANY} PRAGMA user_version=1", id="version"),
        pytest.param("PRAGMA application_id=1; PRAGMA user_version=1", id="application"),
        pytest.param("PRAGMA user_version=1", id="version-without-tables"),
    ],
)
def test_a_database_of_another_program_is_refused_untouched(connection, path, make):
    connection.executescript(make)
    before = path.read_bytes()

    with pytest.raises(OutboxUnavailable, match="another program"):
        prepare(connection, path)

    assert path.read_bytes() == before


def test_an_outbox_of_a_newer_version_is_refused_untouched(connection, path):
    prepare(connection, path)
    connection.executescript("PRAGMA journal_mode=DELETE; PRAGMA user_version=9")
    before = path.read_bytes()

    with pytest.raises(OutboxUnavailable, match=r"newer mp-asgi \(version 9.*knows 2"):
        prepare(connection, path)

    assert path.read_bytes() == before


def test_an_older_outbox_is_brought_up_to_date_with_what_is_in_it(connection, path, monkeypatch):
    prepare(connection, path)
    connection.execute("UPDATE state SET next_id = 7")
    later = ("ALTER TABLE state ADD COLUMN extra INTEGER NOT NULL DEFAULT 5",)
    monkeypatch.setattr(schema, "_STEPS", (*schema._STEPS, later))

    prepare(connection, path)

    assert connection.execute("SELECT next_id, extra FROM state").fetchone() == (7, 5)
    assert pragma(connection, "user_version") == 3


def test_the_letters_of_an_outbox_of_before_are_counted(connection, path, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(schema, "_STEPS", schema._STEPS[:1])
        prepare(connection, path)
    letter = "INSERT INTO letters VALUES (NULL, 0, 'rejected', '', 0, 0, 1, 0, 'd', 'u', x'313233')"
    connection.execute(letter)
    connection.execute(letter)

    prepare(connection, path)
    connection.execute("DELETE FROM letters WHERE id = 1")

    assert connection.execute("SELECT letters, letter_bytes FROM state").fetchone() == (1, 3)


def test_what_cannot_be_made_whole_is_not_made_at_all(connection, path):
    connection.execute("PRAGMA max_page_count=3")

    with pytest.raises(sqlite3.Error, match="full"):
        prepare(connection, path)

    assert pragma(connection, "user_version") == 0
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_step_that_fails_leaves_the_older_outbox(connection, path, monkeypatch):
    prepare(connection, path)
    later = ("ALTER TABLE state ADD COLUMN extra INTEGER", "no statement")
    monkeypatch.setattr(schema, "_STEPS", (*schema._STEPS, later))

    with pytest.raises(sqlite3.Error, match="syntax"):
        prepare(connection, path)

    assert not connection.in_transaction
    assert pragma(connection, "user_version") == 2
    columns = [name for name, *_ in connection.execute("SELECT * FROM state").description]
    assert "extra" not in columns


def test_a_place_without_a_write_ahead_log_is_refused(path):
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with closing(connection), pytest.raises(OutboxUnavailable, match="a local disk"):
        prepare(connection, path)
