import pytest

from mp_asgi.cli.outbox import (
    count_messages,
    lend_outbox,
    name_place,
    render_bytes,
    render_seconds,
    render_time,
    render_waiting,
)
from mp_asgi.cli.people import Missing
from mp_asgi.errors import OutboxUnavailable
from tests.support import NOW, make_settings


def test_an_extra_that_is_missing_is_named(depot, monkeypatch):
    def fail(*_, **__):
        raise ImportError('pip install "mp-asgi[redis]"')

    monkeypatch.setattr("mp_asgi.cli.outbox.open_outbox", fail)

    with pytest.raises(Missing, match=r"mp-asgi\[redis\]"), lend_outbox(depot.settings):
        pass  # pragma: no cover


def test_what_waits_in_memory_is_out_of_reach():
    with pytest.raises(OutboxUnavailable, match="memory"), lend_outbox(make_settings()):
        pass  # pragma: no cover


@pytest.mark.parametrize(
    ("outbox", "name"),
    [
        pytest.param("sqlite:////var/outbox.db", "sqlite /var/outbox.db", id="file"),
        pytest.param("rediss://me:secret@r.example:7/1", "rediss://r.example:7/1", id="redis"),
        pytest.param("redis://r.example?password=secret", "redis://r.example", id="query"),
    ],
)
def test_a_place_is_named_without_secrets(outbox, name):
    assert name_place(make_settings(outbox=outbox)) == name


def test_a_time_is_in_utc():
    assert render_time(NOW) == "2027-01-15T08:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (120, "2 min"), (7_200, "2 h"), (172_800, "2 d")],
)
def test_a_duration_is_told_in_its_largest_unit(seconds, text):
    assert render_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(999, "999 bytes"), (1_500, "1.5 kB"), (2_000_000_000, "2,000.0 MB")]
)
def test_a_size_is_told_in_a_fitting_unit(size, text):
    assert render_bytes(size) == text


@pytest.mark.parametrize(
    ("number", "counted", "waiting"),
    [
        (0, "0 messages", "nothing waits"),
        (1, "1 message", "1 message waits"),
        (1_200, "1,200 messages", "1,200 messages wait"),
    ],
)
def test_messages_are_counted_in_words(number, counted, waiting):
    assert (count_messages(number), render_waiting(number)) == (counted, waiting)
