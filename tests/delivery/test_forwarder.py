import logging
import signal
import threading

import pytest

from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.crew import Crew, Tools
from mp_asgi.delivery.forwarder import EXPIRE_SECONDS, Forwarder
from mp_asgi.delivery.home import Home
from mp_asgi.delivery.keeper import Keeper
from mp_asgi.delivery.outbox.base import OutboxStats
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.outbox.spooled import POLL_SECONDS, Spooled
from mp_asgi.errors import OutboxUnavailable
from tests.redis_server import RedisServer, server
from tests.support import (
    NOW,
    TIMEOUT,
    FakeClock,
    RecordingTransport,
    make_entry,
    make_settings,
    wait_for,
)

__all__ = ["server"]


class FailingSpool(MemoryOutbox):
    """A spool whose file is gone for a while."""

    error: Exception | None = None

    def stats(self) -> OutboxStats:
        if self.error is not None:
            raise self.error
        return super().stats()


class Scene:
    """A web process, its forwarder, and what it heard."""

    def __init__(self, server: RedisServer) -> None:
        self.clock = FakeClock()
        self.server = server
        self.primary = server.outbox()
        self.spool = FailingSpool(make_settings())
        # Time as it is: the pause after a failure is half a second.
        self.outbox = Spooled(self.primary, self.spool, random=lambda: 0.0)
        self.progress = threading.Event()
        self.forwarder = Forwarder(self.outbox, clock=self.clock, on_progress=self.progress.set)

    def home(self) -> Home:
        return Home(self.outbox, None, Keeper(None, Counters(), clock=lambda: NOW, max_bytes=1))

    def spool_one(self, name: str) -> None:
        self.server.stop(signal.SIGKILL)
        self.outbox.put([make_entry(name)], NOW)
        self.server.start()


@pytest.fixture
def scene(server):
    return Scene(server)


def test_a_thread_empties_the_spool_until_it_is_stopped(scene):
    stopping = threading.Event()
    thread = threading.Thread(target=scene.forwarder.run, args=(stopping,), daemon=True)
    scene.spool_one("a")

    thread.start()
    wait_for(lambda: not scene.outbox.spooled())
    stopping.set()
    scene.forwarder.wake.set()
    thread.join(TIMEOUT)

    assert not thread.is_alive()
    assert scene.primary.stats().depth == 1
    assert scene.progress.is_set()


def test_a_spool_that_fails_does_not_end_the_thread(scene, caplog):
    stopping = threading.Event()
    thread = threading.Thread(target=scene.forwarder.run, args=(stopping,), daemon=True)
    scene.spool.error = OutboxUnavailable("the file is gone, with a secret")

    thread.start()
    for _ in range(2):
        assert scene.progress.wait(TIMEOUT)
        scene.progress.clear()
        scene.forwarder.wake.set()
    scene.spool.error = None
    scene.spool_one("a")
    scene.forwarder.wake.set()
    wait_for(lambda: not scene.outbox.spooled())
    stopping.set()
    scene.forwarder.wake.set()
    thread.join(TIMEOUT)

    told = [record for record in caplog.records if "was not emptied" in record.message]
    assert len(told) == 1
    assert "OutboxUnavailable" in told[0].message
    assert "secret" not in caplog.text


def test_what_is_too_old_is_given_up_once_an_hour(scene):
    scene.spool_one("a")
    scene.forwarder.step()

    scene.clock.advance(31 * 86_400)
    scene.forwarder.step()
    scene.spool_one("b")
    scene.clock.advance(EXPIRE_SECONDS - 1)

    assert scene.spool.stats().totals["dropped", "too_old"] == 1
    scene.spool.put([make_entry("c")], NOW - 1)
    scene.forwarder._expired_at = scene.clock.now
    scene.forwarder.step()
    assert scene.spool.stats().totals["dropped", "too_old"] == 1


def test_a_server_that_fails_is_told_once_and_does_not_keep_from_looking_at_the_spool(
    scene, caplog
):
    scene.server.stop()
    with caplog.at_level(logging.ERROR):
        assert scene.forwarder.step() == POLL_SECONDS

    assert [record.message for record in caplog.records if "spool was not" in record.message] == []
    assert "The shared outbox fails" in caplog.text
    scene.server.start()


def test_a_crew_tells_what_the_shared_outbox_suffers_from(scene):
    clock = FakeClock()
    tools = Tools(RecordingTransport, lambda item: [item], Counters(), make_settings(), clock)
    crew = Crew(scene.home(), tools)
    before = crew.pulse().trouble

    scene.server.stop()
    scene.outbox.put([make_entry("a")], NOW)

    assert before == ""
    assert "The shared outbox fails" in crew.pulse().trouble
    scene.server.start()


def test_a_process_waits_for_what_is_in_its_spool_and_not_for_what_others_send(scene):
    home = scene.home()
    scene.outbox.put([make_entry("a")], NOW)
    before = home.is_busy(with_others=True)

    scene.spool_one("b")

    assert (before, home.is_busy(with_others=True), home.held().depth) == (False, True, 1)


def test_nothing_of_this_process_is_on_its_way_to_mixpanel(scene):
    assert scene.forwarder.fence(0.0)
