"""A ledger that cannot be trusted to know who has refused answers nothing."""

import shutil
import stat

import pytest

from mp_asgi.events import ActState
from mp_asgi.ledger import LedgerUnavailable, UnusableLedger
from tests.ledger.acts import USER, make_act, make_ledger, run_sql
from tests.support import NOW

OLD, NEW = "o" * 32, "n" * 32


def test_a_process_without_the_writers_key_is_told_nothing(open_ledger):
    old, new = open_ledger(OLD), open_ledger(OLD, NEW)
    old.append([make_act(ActState.GRANTED)])
    assert old.standings([USER])

    new.append([make_act(ActState.DENIED, at=NOW + 1)])

    with pytest.raises(LedgerUnavailable, match="does not list"):
        old.standings([USER])
    with pytest.raises(LedgerUnavailable, match="does not list"):
        old.append([make_act(ActState.GRANTED, at=NOW + 2)])


def test_a_ledger_whose_chain_is_gone_is_no_empty_one(open_ledger, url):
    ledger = open_ledger()
    ledger.append([make_act(ActState.DENIED)])
    for table in ("heads", "records"):
        run_sql(url, f"DELETE FROM mp_asgi_{table}")

    with pytest.raises(LedgerUnavailable, match="no chain"):
        ledger.standings([USER])


def test_a_new_ledger_in_the_place_of_a_lost_one_is_not_believed(open_ledger, url, make):
    ledger = open_ledger()
    ledger.append([make_act(ActState.DENIED)])
    assert ledger.standings([USER])
    for table in ("heads", "records"):
        run_sql(url, f"DELETE FROM mp_asgi_{table}")

    make().open()

    with pytest.raises(LedgerUnavailable, match="older copy"):
        ledger.standings([USER])


def test_an_older_copy_is_not_believed(tmp_path):
    path, backup = tmp_path / "ledger.db", tmp_path / "backup.db"
    ledger = make_ledger(str(path))
    ledger.open()
    ledger.append([make_act(ActState.GRANTED)])
    shutil.copy(path, backup)
    ledger.append([make_act(ActState.DENIED, at=NOW + 1)])
    assert ledger.standings([USER])[USER].is_denied
    ledger.close()

    for name in ("ledger.db-wal", "ledger.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.copy(backup, path)

    with pytest.raises(LedgerUnavailable, match="older copy"):
        ledger.standings([USER])


def test_who_only_reads_creates_nothing(make, url, tmp_path):
    with pytest.raises(UnusableLedger, match="There is no ledger"):
        make().open(creates=False)

    assert not (tmp_path / "ledger.db").exists()
    make().open()
    make().open(creates=False)


def test_a_ledger_of_another_project_is_none(make):
    make().open()

    with pytest.raises(UnusableLedger, match="no ledger of this project"):
        make(project=b"another").open(creates=False)


def test_a_directory_is_no_ledger_and_keeps_its_mode(tmp_path):
    place = tmp_path / "shop"
    place.mkdir(mode=0o755)

    with pytest.raises(UnusableLedger):
        make_ledger(str(place)).open()

    assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_a_file_that_was_there_keeps_its_mode(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and longer than nothing")
    path.chmod(0o640)

    with pytest.raises(LedgerUnavailable):
        make_ledger(str(path)).open()

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_password_that_would_be_taken_for_a_host_is_not_shown():
    with pytest.raises(UnusableLedger, match="%40") as caught:
        make_ledger("postgresql://shop:s3cr@t-TAIL@db.internal/x")

    assert "TAIL" not in str(caught.value)
