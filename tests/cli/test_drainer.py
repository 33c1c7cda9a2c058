import logging
import signal
import time
from dataclasses import replace

import pytest

from mp_asgi.cli.drainer import Drainer
from mp_asgi.dev import Fault
from mp_asgi.errors import OutboxUnavailable
from tests.cli.depot import Broken
from tests.support import TIMEOUT


class RecordingProgress:
    """Remembers what it was told."""

    def __init__(self):
        self.shown = []

    def show(self, title, done, total):
        self.shown.append((title, done, total))

    def close(self):
        """Leave nothing behind."""


def test_an_outbox_that_is_away_may_come_back(depot):
    broken, progress = Broken(depot.outbox), RecordingProgress()
    broken.is_away = False
    looks = [True, True, False]

    def is_done():
        broken.is_away = looks.pop(0)
        broken.stats()
        return True

    with Drainer(depot.settings, broken, progress, "drain") as drainer:
        assert drainer.deliver_until(is_done)

    _, err = depot.capsys.readouterr()
    assert err.count("mp-asgi drain: it is away\n") == 1
    assert progress.shown == []


def test_what_is_reached_already_is_not_shown(depot):
    progress = RecordingProgress()

    with Drainer(depot.settings, depot.outbox, progress, "drain") as drainer:
        assert drainer.deliver_until(lambda: True)

    assert progress.shown == []


def test_what_has_no_time_left_is_not_flushed_again_at_the_end(depot):
    depot.put_sendable(1)
    depot.standin.misbehave(Fault.HANG, times=None)
    settings = replace(depot.settings, close_timeout=60.0)

    began = time.monotonic()
    with Drainer(settings, depot.outbox, RecordingProgress(), "drain") as drainer:
        assert not drainer.deliver_until(lambda: False, 0.2)

    assert time.monotonic() - began < TIMEOUT / 2


def test_only_what_happens_meanwhile_is_counted(depot):
    depot.bury("Before")

    with Drainer(depot.settings, depot.outbox, RecordingProgress(), "drain") as drainer:
        depot.bury("Meanwhile")
        counts = drainer.count()

    assert (counts.accepted, counts.buried) == (1, 1)


def test_the_signals_and_the_log_are_given_back(depot):
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    handlers = list(logging.getLogger("mp_asgi").handlers)

    with Drainer(depot.settings, depot.outbox, RecordingProgress(), "drain"):
        assert [signal.getsignal(number) for number in numbers] != before

    assert [signal.getsignal(number) for number in numbers] == before
    assert logging.getLogger("mp_asgi").handlers == handlers


def test_a_second_signal_is_what_it_was_before(depot):
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append("second"))
    try:
        with Drainer(depot.settings, depot.outbox, RecordingProgress(), "drain") as drainer:
            signal.raise_signal(signal.SIGTERM)
            is_stopped = drainer.is_stopped
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert is_stopped
    assert came == ["second"]


def test_an_outbox_that_does_not_answer_at_the_start_leaves_nothing_behind(depot):
    before = signal.getsignal(signal.SIGTERM)
    broken = Broken(depot.outbox)

    with (
        pytest.raises(OutboxUnavailable),
        Drainer(depot.settings, broken, RecordingProgress(), "drain"),
    ):
        pass  # pragma: no cover

    assert signal.getsignal(signal.SIGTERM) == before


def test_who_delivers_for_ever_ends_when_nothing_delivers_any_more(depot):
    with Drainer(depot.settings, depot.outbox, RecordingProgress(), "drain") as drainer:
        drainer._analytics.close()

        assert not drainer.deliver_for_ever()

    assert "The threads that deliver do not run." in depot.capsys.readouterr().err


def test_who_delivers_until_something_ends_when_nothing_delivers_any_more(depot):
    class Ending(RecordingProgress):
        def show(self, title, done, total):
            analytics._worker._crew._run.stop(time.monotonic() + TIMEOUT)

    depot.put_sendable(1)
    depot.standin.misbehave(Fault.UNAUTHORIZED, times=None)
    with Drainer(depot.settings, depot.outbox, Ending(), "drain") as drainer:
        analytics = drainer._analytics

        assert not drainer.deliver_until(lambda: False)

    assert "The threads that deliver do not run." in depot.capsys.readouterr().err


def test_what_the_log_says_again_is_told_again(depot):
    with Drainer(depot.settings, depot.outbox, RecordingProgress(), "drain"):
        for _ in range(2):
            logging.getLogger("mp_asgi.delivery").warning("It is away.")

    assert depot.capsys.readouterr().err.count("mp-asgi drain: It is away.\n") == 2
