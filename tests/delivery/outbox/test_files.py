import os
import stat
from pathlib import Path

import pytest

from mp_asgi.delivery.outbox.database import Database
from mp_asgi.errors import OutboxUnavailable
from tests.delivery.outbox.test_database import bump, database, in_thread, path, renew
from tests.support import FakeClock

__all__ = ["database", "path"]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077], ids=["open", "usual", "private"])
def test_only_the_owner_reads_what_is_made(database, path, mask):
    before = os.umask(mask)
    try:
        database.write(bump)
    finally:
        os.umask(before)

    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert modes == {f"outbox.sqlite{suffix}": 0o600 for suffix in ("", "-wal", "-shm", ".lock")}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(Path.mkdir, "is no file", id="directory"),
        pytest.param(
            lambda path: path.symlink_to("away"), "is a symbolic link. Name the file", id="link"
        ),
    ],
)
def test_what_is_no_file_is_left_alone(database, path, make, said):
    path.parent.mkdir()
    make(path)

    with pytest.raises(OutboxUnavailable, match=said):
        database.write(bump)
    assert not path.is_file()


def test_what_others_could_read_becomes_private(database, path):
    """A copy, a restored backup, a file that the shell of SQLite made."""
    database.write(bump)
    names = [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm", ".lock")]
    for name in names:
        name.chmod(0o644)

    in_thread(lambda: database.write(bump))

    assert [stat.S_IMODE(name.stat().st_mode) for name in names] == [0o600] * 4


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "damaged"])
def test_what_root_makes_belongs_to_whoever_uses_it(path, monkeypatch, is_there):
    """An operator looks as root; the app has to go on with what that leaves."""
    path.parent.mkdir()
    if is_there:
        path.write_bytes(b"not a database " * 1000)
    given = {}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, *owner: given.update({path.name: owner}))
    database = Database(path, renew, FakeClock())

    database.write(bump)
    database.close()

    owner = (path.parent.stat().st_uid, path.parent.stat().st_gid)
    made = {"outbox.sqlite.lock", "outbox.sqlite.new" if is_there else "outbox.sqlite"}
    assert given == dict.fromkeys(made, owner)


def test_who_is_not_root_gives_nothing_away(database, monkeypatch):
    given = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "chown", lambda *arguments: given.append(arguments))

    database.write(bump)

    assert given == []
