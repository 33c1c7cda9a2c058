import threading

import pytest

from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.pump import MAX_WAIT_SECONDS, Pump
from mp_asgi.delivery.sender import PAUSE_SECONDS, Sender
from mp_asgi.errors import Unavailable
from mp_asgi.events import Endpoint
from tests.support import NOW, TIMEOUT, FakeClock, RecordingTransport, make_entry, make_settings


class Stubborn(MemoryOutbox):
    """An outbox that fails when a batch is settled, as often as told."""

    failures = 0

    def ack(self, ids):
        if self.failures:
            self.failures -= 1
            raise OSError("secret")
        return super().ack(ids)


class Bench:
    def __init__(self, transport: RecordingTransport | Exception | None = None) -> None:
        settings = make_settings()
        self.outbox = Stubborn(settings)
        self.counters = Counters()
        self.clock = FakeClock()
        self.progress = 0
        self.settled = threading.Event()
        self.transport = transport or RecordingTransport()
        self.made = 0
        self.sender = Sender(
            settling=threading.Lock(),
            pump=Pump(self.outbox, settings, self.counters, lambda: 0.5),
            outbox=self.outbox,
            transport_factory=self.make,
            clock=self.clock,
            is_flushing=lambda: True,
            on_progress=self.on_progress,
        )

    def make(self) -> RecordingTransport:
        self.made += 1
        if isinstance(self.transport, Exception):
            raise self.transport
        return self.transport

    def on_progress(self) -> None:
        self.progress += 1
        if not self.outbox.stats().depth:
            self.settled.set()

    def put(self, *names: str, **flags) -> None:
        self.outbox.put([make_entry(name, **flags) for name in names], NOW)


def test_a_batch_is_sent_and_settled():
    bench = Bench()
    bench.put("a", "b")

    assert bench.sender.step() == 0

    assert [message["event"] for message in bench.transport.messages] == ["a", "b"]
    assert (bench.counters.snapshot().delivered, bench.progress) == (2, 1)


def test_the_transport_is_made_at_the_first_batch_and_kept():
    bench = Bench()
    assert bench.sender.step() == MAX_WAIT_SECONDS
    assert bench.made == 0

    for name in "ab":
        bench.put(name)
        bench.sender.step()

    assert bench.made == 1


def test_no_answer_is_reported_to_the_pump():
    bench = Bench(RecordingTransport([Unavailable("gave no reply", is_sent=True)]))
    bench.put("add", endpoint=Endpoint.PEOPLE, is_repeatable=False)

    bench.sender.step()

    assert bench.outbox.dead()[0].reason == "answer_lost"
    assert bench.progress == 1


def test_a_transport_that_cannot_be_made_keeps_the_batch():
    bench = Bench(Unavailable("no such host", is_sent=False))
    bench.put("add", is_repeatable=False)

    bench.sender.step()

    assert bench.outbox.stats().depth == 1
    assert bench.sender.step() == 1


def test_a_foreign_failure_counts_as_a_lost_answer_and_is_told_once(caplog):
    bench = Bench(RecordingTransport([ValueError("secret"), ValueError("secret")]))
    bench.put("a")

    for _ in range(3):
        bench.sender.step()
        bench.clock.advance(60)

    assert bench.counters.snapshot().delivered == 1
    assert caplog.text.count("not its own (ValueError)") == 1
    assert "secret" not in caplog.text


def test_a_batch_whose_fate_cannot_be_stored_is_given_back():
    bench = Bench()
    bench.put("a")
    bench.outbox.failures = 1

    with pytest.raises(OSError, match="secret"):
        bench.sender.step()

    assert bench.sender.step() == 0
    assert bench.counters.snapshot().delivered == 1


def test_the_thread_goes_on_after_a_failure_of_ours(caplog):
    bench = Bench()
    bench.put("a")
    bench.outbox.failures = 1
    bench.sender.wake.set()  # so that the pause after the failure ends at once
    stopping = threading.Event()
    thread = threading.Thread(target=bench.sender.run, args=(stopping,), daemon=True)
    thread.start()

    assert bench.settled.wait(TIMEOUT)
    stopping.set()
    bench.sender.wake.set()
    thread.join(TIMEOUT)

    assert not thread.is_alive()
    assert bench.transport.closed.is_set()
    assert "The sender failed and goes on (OSError)" in caplog.text
    assert "secret" not in caplog.text
    assert PAUSE_SECONDS < TIMEOUT


def test_a_thread_that_sent_nothing_has_nothing_to_close():
    bench = Bench()
    stopping = threading.Event()
    stopping.set()

    bench.sender.run(stopping)

    assert bench.made == 0
