import sqlite3

import pytest

from mp_asgi.delivery.outbox.factory import check_outbox
from mp_asgi.delivery.outbox.location import find_location
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from mp_asgi.delivery.outbox.strays import Stray, find_strays
from tests.support import NOW, make_entry, make_settings

STAND_IN = {"api_host": "http://127.0.0.1:8000"}
REDIS = {"outbox": "redis://127.0.0.1:1/0"}


@pytest.fixture
def make(tmp_path):
    """Answer what makes settings of one directory."""

    def make(**settings):
        return make_settings(**{"outbox": "sqlite", "state_directory": str(tmp_path), **settings})

    return make


def put(settings, *events, is_spooled=False):
    """Put events where the settings lead. Answer the file."""
    location = find_location(settings, {})
    path = location.spool if is_spooled else location.outbox
    outbox = SQLiteOutbox(path, settings)
    outbox.put([make_entry(event) for event in events], NOW)
    outbox.stats()
    outbox.close()
    return path


def test_what_waits_under_another_host_is_found(make):
    path = put(make(**STAND_IN), "a", "b")

    assert find_strays(make()) == [Stray(path, 2)]


def test_what_was_put_before_redis_is_found(make):
    pytest.importorskip("redis", reason="no client: the extra mp-asgi[redis] is missing")
    path = put(make(), "a")

    assert find_strays(make(**REDIS)) == [Stray(path, 1)]


@pytest.mark.parametrize("now", [{}, {**REDIS, **STAND_IN}], ids=["sqlite", "another-host"])
def test_what_is_left_in_a_spool_is_found_with_who_hands_it_over(make, now):
    pytest.importorskip("redis", reason="no client: the extra mp-asgi[redis] is missing")
    path = put(make(**REDIS), "a", "b", is_spooled=True)

    (stray,) = find_strays(make(**now))

    assert stray == Stray(path, 2)
    assert "`mp-asgi drain` with them, hands them over" in stray.render()


def test_the_spool_in_use_is_no_stray(make):
    pytest.importorskip("redis", reason="no client: the extra mp-asgi[redis] is missing")
    put(make(**REDIS), "a", is_spooled=True)

    assert find_strays(make(**REDIS)) == []


def test_what_is_in_use_by_another_process_is_found_too(make):
    settings = make(**STAND_IN)
    outbox = SQLiteOutbox(find_location(settings, {}).outbox, settings)
    outbox.put([make_entry("a")], NOW)

    assert [stray.depth for stray in find_strays(make())] == [1]
    outbox.close()


@pytest.mark.parametrize(
    ("other", "events"),
    [
        pytest.param({}, "a", id="its-own"),
        pytest.param({"region": "eu"}, "a", id="its-own-in-another-region"),
        pytest.param(STAND_IN, "", id="empty"),
        pytest.param({"token": "0ther"}, "a", id="another-token"),
    ],
)
def test_nothing_else_is_a_stray(make, other, events):
    put(make(**other), *events)

    assert find_strays(make()) == []


def test_what_is_no_outbox_is_left_alone(make, tmp_path):
    (tmp_path / f"{'0' * 16}.sqlite3").write_bytes(b"no database" * 99)
    (tmp_path / f"{'1' * 16}.sqlite3").mkdir()
    (tmp_path / "notes.sqlite3").touch()
    with sqlite3.connect(tmp_path / f"{'2' * 16}.sqlite3") as other:
        other.execute("CREATE TABLE state (project)")
    other.close()

    assert find_strays(make()) == []


@pytest.mark.parametrize(
    "settings", [{"outbox": "memory"}, {"state_directory": "/nonexistent"}], ids=["memory", "none"]
)
def test_who_keeps_no_files_has_no_strays(make, settings):
    assert find_strays(make(**settings)) == []


def test_without_a_directory_there_are_none(make, monkeypatch):
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.delenv(name, raising=False)

    assert find_strays(make(state_directory="")) == []


def test_a_start_warns_of_each_once(make, caplog):
    path = put(make(**STAND_IN), *"abc")

    check_outbox(make())

    (said,) = caplog.messages
    assert said.startswith(f"Messages of this MIXPANEL_TOKEN (3) wait in {path}, ")


def test_what_waits_elsewhere_leaves_once_its_file_is_named(make):
    path = put(make(**STAND_IN), "a")

    outbox = SQLiteOutbox(path, make(outbox=f"sqlite:///{path}"))

    assert outbox.stats().depth == 1
    outbox.close()
