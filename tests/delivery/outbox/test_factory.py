"""Prove what an operator gets where the files can be kept, and what they are told where not."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.outbox.base import Outbox
from mp_asgi.delivery.outbox.factory import check_outbox, make_outbox, open_outbox
from mp_asgi.delivery.outbox.location import find_location
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.outbox.redis import RedisOutbox
from mp_asgi.delivery.outbox.spooled import Spooled
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from mp_asgi.delivery.outbox.standby import Standby
from mp_asgi.errors import OutboxUnavailable, SettingsError
from tests.delivery.outbox.contract import names, take
from tests.support import NOW, make_entry, make_settings

REDIS = "redis://user:hunter2@127.0.0.1:1/0"


def make(counters: Counters | None = None, **settings: object) -> Outbox:
    return make_outbox(make_settings(**settings), counters or Counters())


def texts_of(caplog: pytest.LogCaptureFixture) -> Sequence[str]:
    return [record.getMessage() for record in caplog.records]


def opened_files() -> Sequence[Path]:
    """Answer what this process has open, where the kernel tells."""
    names = Path("/proc/self/fd").glob("*")
    return sorted(name.readlink() for name in names if name.is_symlink())


@pytest.fixture
def unusable(tmp_path):
    """Answer the path of a directory that cannot be made."""
    (tmp_path / "file").touch()
    return str(tmp_path / "file" / "state")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"outbox": "memory"}, MemoryOutbox, id="memory"),
        pytest.param({"outbox": "sqlite"}, Standby, id="sqlite"),
        pytest.param({"outbox": REDIS}, Spooled, id="redis"),
        pytest.param({"outbox": "sqlite", "enabled": False}, MemoryOutbox, id="switched-off"),
        pytest.param({"outbox": REDIS, "enabled": False}, MemoryOutbox, id="switched-off-redis"),
    ],
)
def test_the_settings_choose(settings, expected):
    assert type(make(**settings)) is expected


@pytest.mark.parametrize("outbox", ["memory", "sqlite", REDIS])
def test_a_switched_off_assembly_touches_no_directory(tmp_path, outbox):
    make(outbox=outbox, enabled=False, state_directory=str(tmp_path / "state"))
    make(outbox="memory", state_directory=str(tmp_path / "state"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("outbox", ["sqlite", REDIS])
def test_nothing_is_opened_before_the_first_use(tmp_path, outbox):
    before = opened_files()

    made = make(outbox=outbox, state_directory=str(tmp_path))

    assert list(tmp_path.iterdir()) == []
    assert opened_files() == before
    assert made.is_durable


def test_two_of_one_process_share_one_file(tmp_path):
    one, other = (make(outbox="sqlite", state_directory=str(tmp_path)) for _ in range(2))

    one.put([make_entry("a")], NOW)
    other.put([make_entry("b")], NOW)

    assert names(take(one)) == [["a"], ["b"]]
    assert other.stats().leased == 2
    one.close()
    other.close()


@pytest.mark.parametrize("outbox", ["sqlite", REDIS])
def test_where_files_cannot_be_kept_events_wait_in_memory_and_one_warning_says_why(
    caplog, unusable, outbox
):
    made = make(outbox=outbox, state_directory=unusable)

    assert isinstance(made, Spooled if outbox == REDIS else MemoryOutbox)
    (text,) = texts_of(caplog)
    assert caplog.records[0].levelno == logging.WARNING
    assert f"{unusable} (from MP_ASGI_STATE_DIRECTORY) cannot be used: Not a directory." in text
    assert "events wait in memory" in text
    assert "MP_ASGI_OUTBOX=memory" in text
    assert "hunter2" not in text


def test_a_strict_process_that_cannot_keep_files_says_it_as_an_error(caplog, unusable):
    make(outbox="sqlite", durability="strict", state_directory=unusable)

    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_where_files_cannot_be_kept_that_is_counted(unusable):
    counters = Counters()

    made = make(counters, outbox="sqlite", state_directory=unusable)
    counters.tell(made.tally)

    assert made.stats().totals == {("outbox_failed", ""): 1}


def test_who_has_no_home_gets_memory_and_a_warning(caplog, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/nonexistent")

    made = make(outbox="sqlite")

    assert isinstance(made, MemoryOutbox)
    assert "/nonexistent (from HOME) does not exist." in texts_of(caplog)[0]


@pytest.mark.parametrize("outbox", ["sqlite", REDIS])
def test_strict_durability_that_cannot_be_had_is_an_error_at_the_start(unusable, outbox):
    settings = make_settings(outbox=outbox, durability="strict", state_directory=unusable)

    with pytest.raises(SettingsError) as caught:
        check_outbox(settings)

    (problem,) = caught.value.problems
    assert problem.startswith("MP_ASGI_DURABILITY is 'strict'. ")
    assert "Name a directory of this user" in problem
    assert "hunter2" not in problem


def test_a_redis_url_with_a_wrong_option_is_an_error_at_the_start():
    pytest.importorskip("redis", reason="no client: the extra mp-asgi[redis] is missing")
    settings = make_settings(outbox="redis://:s3cret@host:6379/0?socket_timeout=x")

    with pytest.raises(SettingsError, match="MP_ASGI_OUTBOX cannot be used") as caught:
        check_outbox(settings)

    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_none_of_ours_is_an_error_at_a_strict_start(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "mine.db").mkdir()
    settings = make_settings(outbox=f"sqlite:///{tmp_path}/state/mine.db", durability="strict")

    with pytest.raises(SettingsError, match=r"mine\.db"):
        check_outbox(settings)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"outbox": "sqlite", "durability": "relaxed"}, id="relaxed"),
        pytest.param({"outbox": "memory"}, id="memory"),
    ],
)
def test_who_asks_for_no_strict_durability_is_not_checked(unusable, settings):
    check_outbox(make_settings(state_directory=unusable, **settings))


def test_a_strict_start_leaves_nothing_open(tmp_path):
    settings = make_settings(
        outbox="sqlite", durability="strict", state_directory=str(tmp_path / "state")
    )

    check_outbox(settings)

    assert find_location(settings).outbox.exists()
    assert [path for path in opened_files() if tmp_path in path.parents] == []


def test_a_file_that_fails_later_does_not_stop_events(caplog, tmp_path):
    directory = tmp_path / "state"
    outbox = make(outbox="sqlite", state_directory=str(directory))
    find_location(make_settings(outbox="sqlite", state_directory=str(directory))).outbox.mkdir()

    result = outbox.put([make_entry("a")], NOW)

    assert result.stored == 1
    assert names(take(outbox)) == [["a"]]
    assert not outbox.is_durable
    assert "are sent from there" in texts_of(caplog)[0]


# --- for operators' commands ----------------------------------------------------------------------


def test_an_operator_opens_the_storage_itself(tmp_path):
    settings = make_settings(outbox="sqlite", state_directory=str(tmp_path))
    serving = make_outbox(settings, Counters())
    serving.put([make_entry("a")], NOW)

    outbox = open_outbox(settings, creates=False)

    assert type(outbox) is SQLiteOutbox
    assert outbox.stats().depth == 1
    outbox.close()
    serving.close()


def test_an_operator_may_make_the_storage(tmp_path):
    settings = make_settings(outbox="sqlite", state_directory=str(tmp_path / "new"))

    outbox = open_outbox(settings)

    assert outbox.stats().depth == 0
    outbox.close()


def test_an_operator_is_told_where_no_outbox_is(tmp_path):
    settings = make_settings(outbox="sqlite", state_directory=str(tmp_path / "state"))

    with pytest.raises(OutboxUnavailable) as caught:
        open_outbox(settings, creates=False)

    assert f"There is no outbox {find_location(settings).outbox}" in str(caught.value)
    assert "nothing was tracked yet" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_operator_is_told_why_the_storage_cannot_be_made(unusable):
    with pytest.raises(OutboxUnavailable, match="Not a directory"):
        open_outbox(make_settings(outbox="sqlite", state_directory=unusable))


def test_an_operator_is_told_that_memory_cannot_be_seen():
    with pytest.raises(OutboxUnavailable, match="MP_ASGI_OUTBOX is 'memory'"):
        open_outbox(make_settings(outbox="memory"))


def test_an_operator_reaches_redis_itself():
    outbox = open_outbox(make_settings(outbox=REDIS), creates=False)

    assert type(outbox) is RedisOutbox
