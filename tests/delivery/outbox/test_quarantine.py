import logging
import sqlite3
from pathlib import Path

import pytest

from mp_asgi.delivery.outbox.database import Database
from mp_asgi.delivery.outbox.quarantine import Damaged
from mp_asgi.errors import OutboxUnavailable
from tests.delivery.outbox.test_database import (
    asides,
    bump,
    bumps,
    database,
    path,
    renew,
    run_script,
)
from tests.support import FakeClock

__all__ = ["database", "path"]


def damage(path: Path) -> None:
    """Overwrite all but the first page, as a disk might."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def test_a_damaged_file_is_set_aside_and_a_new_one_goes_on(database, path, caplog):
    database.write(bump)
    database.close()
    damage(path)

    with caplog.at_level(logging.ERROR):
        database.write(bump)

    assert asides(path) == ["outbox.sqlite.corrupt-1800000000"]
    assert database.read(bumps) == 1001
    (record,) = caplog.records
    assert "outbox.sqlite.corrupt-1800000000" in record.message
    assert ".recover" in record.message


def test_what_is_no_database_is_set_aside_when_it_is_opened(database, path):
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 1000)

    database.write(bump)

    (aside,) = asides(path)
    assert (path.parent / aside).read_bytes().startswith(b"not a database")
    assert database.read(bumps) == 1001


def test_the_log_goes_with_its_file(database, path):
    other = Database(path, renew, FakeClock())
    other.write(bump)
    is_first = [True]

    def work(connection: sqlite3.Connection) -> None:
        bump(connection)
        if is_first:
            is_first.pop()
            raise Damaged("seen")

    database.write(work)

    assert path.with_name("outbox.sqlite.corrupt-1800000000-wal").stat().st_size > 0
    assert other.read(bumps) == 1001
    other.close()


@pytest.mark.parametrize("kept", range(8))
def test_a_kill_at_any_step_of_the_replacement_is_made_good(path, kept):
    """What was acknowledged in the log neither comes back nor hides; marks are taken over."""
    script = (
        "import os, sys; from pathlib import Path\n"
        "from mp_asgi.delivery.outbox.database import Database\n"
        "from mp_asgi.delivery.outbox.quarantine import Damaged\n"
        "from tests.delivery.outbox.test_database import bump, renew\n"
        "from tests.support import FakeClock\n"
        "path, left = Path(sys.argv[1]), [int(sys.argv[2])]\n"
        "other = Database(path, renew); other.write(bump)\n"
        "def die_after(function):\n"
        "    def call(*arguments, **options):\n"
        "        answer = function(*arguments, **options)\n"
        "        left[0] -= 1\n"
        "        left[0] >= 0 or os._exit(0)\n"
        "        return answer\n"
        "    return call\n"
        "def work(connection):\n"
        "    for name in ('rename', 'unlink'):\n"
        "        setattr(Path, name, die_after(getattr(Path, name)))\n"
        "    os.truncate = die_after(os.truncate)\n"
        "    raise Damaged('seen')\n"
        "Database(path, die_after(renew), FakeClock()).write(work)\n"
    )
    run_script(script, path, str(kept))
    later = Database(path, renew, FakeClock())

    found = later.read(bumps)
    later.close()

    names = sorted(found.name for found in path.parent.iterdir())
    is_begun = "outbox.sqlite.corrupt-1800000000" in names
    assert is_begun
    assert found == 1000
    assert "outbox.sqlite.corrupt-1800000000-wal" in names
    assert "outbox.sqlite.new" not in names


def test_what_was_begun_before_the_rename_changes_nothing(database, path):
    database.write(bump)
    database.close()
    path.with_name("outbox.sqlite.new").touch()

    assert database.read(bumps) == 1


def test_what_was_set_aside_goes_when_it_is_old(database, path):
    for _ in range(2):
        database.write(bump)
        database.close()
        damage(path)
    database.write(bump)
    first, second = asides(path)
    for name in (f"{first}-wal", "outbox.sqlite.corrupt-by-hand"):
        path.with_name(name).touch()

    database.quarantine.expire(1_800_000_001)

    left = [found.name for found in path.parent.iterdir() if "corrupt" in found.name]
    assert sorted(left) == [second, "outbox.sqlite.corrupt-by-hand"]
    assert [found.name for found in database.quarantine.asides()] == [second]


def test_damage_that_a_new_file_does_not_mend_is_said_after_one(database, path):
    def fail(connection: sqlite3.Connection) -> None:
        raise Damaged("seen")

    with pytest.raises(OutboxUnavailable, match=r"cannot be used \(seen\)"):
        database.write(fail)

    assert len(asides(path)) == 1


def test_two_damages_in_one_second_have_two_names(database, path):
    for _ in range(2):
        database.write(bump)
        database.close()
        damage(path)
        database.write(bump)

    assert asides(path) == [f"outbox.sqlite.corrupt-{1_800_000_000 + number}" for number in (0, 1)]


def test_two_that_meet_the_same_damage_set_one_file_aside(database, path):
    other = Database(path, renew, FakeClock())
    for each in (database, other):
        each.write(bump)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    damage(path)

    database.write(bump)
    other.write(bump)

    assert len(asides(path)) == 1
    assert database.read(bumps) == other.read(bumps) == 1002
    other.close()


def test_one_that_finds_the_damage_mended_leaves_the_new_file_alone(database, path):
    other = Database(path, renew, FakeClock())
    other.write(bump)
    is_first = [True]

    def work(connection: sqlite3.Connection) -> None:
        if is_first.pop() if is_first else False:
            path.rename(path.with_name("elsewhere"))
            Database(path, renew).write(bump)
            raise Damaged("seen")
        bump(connection)

    other.write(work)

    assert asides(path) == []
    assert other.read(bumps) == 2
    other.close()


def test_other_errors_set_nothing_aside(database, path):
    with pytest.raises(OutboxUnavailable, match="no such table"):
        database.write(lambda connection: connection.execute("SELECT * FROM nowhere"))

    assert asides(path) == []
