import logging
import threading

import pytest

from mp_asgi.delivery import sender as sender_module
from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.pump import LEASE_SECONDS, MAX_WAIT_SECONDS, Pump
from mp_asgi.delivery.sender import Sender
from mp_asgi.errors import OutboxUnavailable, Unavailable
from mp_asgi.events import Endpoint
from tests.support import NOW, TIMEOUT, FakeClock, RecordingTransport, make_entry, make_settings


class Stubborn(MemoryOutbox):
    """An outbox that fails when a batch is settled, as often as told."""

    failures = 0

    def ack(self, ids):
        if self.failures:
            self.failures -= 1
            raise OutboxUnavailable("The disk is full.")
        return super().ack(ids)

    def drop(self, ids, reason):
        if self.failures:
            self.failures -= 1
            raise OutboxUnavailable("The disk is full.")
        return super().drop(ids, reason)


class Full(logging.Handler):
    """A log on a full disk, whose handler does not guard itself as `logging`'s own do."""

    lines = 0

    def emit(self, record):
        self.lines += 1
        raise OSError(28, "No space left on device")


class Bench:
    def __init__(
        self, transport: RecordingTransport | Exception | None = None, screen=None
    ) -> None:
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
            transport_factory=self.make,
            clock=self.clock,
            is_flushing=lambda: True,
            on_progress=self.on_progress,
            screen=screen,
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


@pytest.mark.parametrize(
    ("seconds", "sent", "leased"),
    [
        pytest.param(LEASE_SECONDS / 2, 1, 0, id="in-time"),
        pytest.param(LEASE_SECONDS / 2 + 1, 0, 0, id="given-back"),
        pytest.param(LEASE_SECONDS, 0, 1, id="another's"),
    ],
)
def test_a_batch_whose_lease_may_end_before_its_answer_stays(seconds, sent, leased):
    def screen(entries):  # the process is frozen meanwhile
        bench.clock.advance(seconds)
        return [entry.messages[0].name == "a" for entry in entries]

    bench = Bench(screen=screen)
    bench.put("a", "denied")

    bench.sender.step()

    assert len(bench.transport.messages) == sent
    assert bench.outbox.stats().leased == leased


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


def test_a_batch_whose_fate_cannot_be_stored_is_settled_first_and_not_sent_again():
    bench = Bench()
    bench.put("a")
    bench.outbox.failures = 2

    for _ in range(2):
        with pytest.raises(OutboxUnavailable):
            bench.sender.step()
    bench.put("b")
    bench.sender.step()

    assert [message["event"] for message in bench.transport.messages] == ["a", "b"]
    assert bench.counters.snapshot().delivered == 2


def test_a_log_that_cannot_be_written_changes_nothing_of_what_is_sent_and_settled(request):
    handler = Full()
    logging.getLogger("mp_asgi").addHandler(handler)
    request.addfinalizer(lambda: logging.getLogger("mp_asgi").removeHandler(handler))
    bench = Bench(RecordingTransport([Unavailable("no such host", is_sent=False), ValueError()]))
    bench.put("a")

    for _ in range(3):
        bench.sender.step()
        bench.clock.advance(60)

    assert bench.counters.snapshot().delivered == 1
    assert handler.lines > 0


def test_who_waits_for_a_flush_hears_of_what_was_settled_late():
    bench = Bench()
    bench.put("a")
    bench.outbox.failures = 1
    with pytest.raises(OutboxUnavailable):
        bench.sender.step()

    assert not bench.settled.is_set()
    assert bench.sender.step() > 0
    assert bench.settled.is_set()


@pytest.fixture
def without_pause(monkeypatch):
    monkeypatch.setattr(sender_module, "PAUSE_SECONDS", 0.001)


@pytest.mark.usefixtures("without_pause")
def test_the_thread_goes_on_after_a_failure_of_the_storage(caplog):
    bench = Bench()
    bench.put("a")
    bench.outbox.failures = 1
    stopping = threading.Event()
    thread = threading.Thread(target=bench.sender.run, args=(stopping,), daemon=True)
    thread.start()

    assert bench.settled.wait(TIMEOUT)
    stopping.set()
    bench.sender.wake.set()
    thread.join(TIMEOUT)

    assert not thread.is_alive()
    assert bench.transport.closed.is_set()
    assert len(bench.transport.messages) == 1
    assert "The sender failed and goes on (The disk is full.)" in caplog.text


def test_what_is_put_does_not_wake_the_thread_into_the_next_failure(monkeypatch):
    monkeypatch.setattr(sender_module, "PAUSE_SECONDS", 2 * TIMEOUT)
    bench, steps, failed = Bench(), [], threading.Event()

    def fail() -> float:
        steps.append(1)
        failed.set()
        raise OutboxUnavailable("full")

    monkeypatch.setattr(bench.sender, "step", fail)
    stopping = threading.Event()
    thread = threading.Thread(target=bench.sender.run, args=(stopping,), daemon=True)
    thread.start()
    assert failed.wait(TIMEOUT)

    bench.sender.wake.set()
    thread.join(0.1)  # it must still rest
    stopping.set()
    thread.join(TIMEOUT)

    assert not thread.is_alive()
    assert steps == [1]


def test_a_thread_that_sent_nothing_has_nothing_to_close():
    bench = Bench()
    stopping = threading.Event()
    stopping.set()

    bench.sender.run(stopping)

    assert bench.made == 0


# --- the ledger's word ----------------------------------------------------------------------------


def deny(*names):
    """Be a ledger that denies what bears these names."""
    return lambda entries: [entry.messages[0].name not in names for entry in entries]


def test_what_the_ledger_denies_is_left_out_and_counted_and_the_rest_is_sent():
    bench = Bench(screen=deny("b", "d"))
    bench.put("a", "b", "c", "d")

    assert bench.sender.step() == 0

    assert [message["event"] for message in bench.transport.messages] == ["a", "c"]
    stats = bench.counters.snapshot()
    assert (stats.delivered, stats.dropped) == (2, {"withdrawn": 2})
    assert (bench.outbox.stats().depth, bench.progress) == (0, 1)


def test_a_batch_that_is_denied_as_a_whole_opens_no_connection():
    bench = Bench(screen=deny("a"))
    bench.put("a")

    bench.sender.step()

    assert bench.made == 0
    assert bench.counters.snapshot().dropped == {"withdrawn": 1}
    assert bench.progress == 1


def test_while_the_ledger_gives_no_answer_nothing_leaves_and_nothing_is_lost():
    answers = [Unavailable("the consent ledger failed", is_sent=False), [True, True]]

    def screen(_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    bench = Bench(screen=screen)
    bench.put("a")
    bench.put("add", is_repeatable=True)

    bench.sender.step()
    sent_meanwhile = list(bench.transport.messages)
    pause = bench.sender.step()
    bench.clock.advance(pause)
    bench.sender.step()

    assert (sent_meanwhile, pause) == ([], 1)
    assert [message["event"] for message in bench.transport.messages] == ["a", "add"]
    stats = bench.counters.snapshot()
    assert (stats.delivered, stats.retried, stats.buried) == (2, 2, 0)


@pytest.mark.parametrize("error", [KeyError("a bug"), SystemExit("secret")], ids=["bug", "exit"])
def test_a_screen_that_fails_in_another_way_lets_nothing_leave_and_loses_nothing(error, caplog):
    def fail(_):
        raise error

    bench = Bench(screen=fail)
    bench.put("a")

    bench.sender.step()

    assert (bench.outbox.stats().depth, bench.transport.messages) == (1, [])
    assert bench.outbox.backlog(Endpoint.EVENTS, NOW).messages == 1
    assert f"The ledger failed in a way that is not its own ({type(error).__name__})" in caplog.text
    assert "secret" not in caplog.text


def test_a_denial_that_could_not_be_stored_is_stored_first():
    bench = Bench(screen=deny("a"))
    bench.put("a", "b")
    bench.outbox.failures = 1

    with pytest.raises(OutboxUnavailable):
        bench.sender.step()
    assert bench.transport.messages == []
    bench.sender.step()

    assert [message["event"] for message in bench.transport.messages] == ["b"]
    assert bench.counters.snapshot().dropped == {"withdrawn": 1}


def start_step(bench: Bench) -> threading.Thread:
    thread = threading.Thread(target=bench.sender.step, daemon=True)
    thread.start()
    return thread


def test_a_fence_stands_at_once_while_nothing_is_sent():
    assert Bench().sender.fence(0)


def test_a_fence_waits_for_the_send_that_began_before():
    gate = threading.Event()
    bench = Bench(RecordingTransport(gate=gate))
    bench.put("a")
    thread = start_step(bench)
    assert bench.transport.is_sending.wait(TIMEOUT)

    assert not bench.sender.fence(0)

    gate.set()
    assert bench.sender.fence(TIMEOUT)
    thread.join(TIMEOUT)
    assert bench.counters.snapshot().delivered == 1


def test_a_fence_waits_for_who_was_let_through_already():
    asked, may_answer = threading.Event(), threading.Event()
    bench = Bench()
    bench.put("a")

    def allow(entries):
        asked.set()
        assert may_answer.wait(TIMEOUT)
        return [True] * len(entries)

    bench.sender._screen = allow
    thread = start_step(bench)
    assert asked.wait(TIMEOUT)

    assert not bench.sender.fence(0)

    may_answer.set()
    assert bench.sender.fence(TIMEOUT)
    thread.join(TIMEOUT)
    assert bench.counters.snapshot().delivered == 1


def test_a_fence_does_not_hold_what_comes_after_it():
    bench = Bench()
    bench.put("a")
    bench.sender.fence(0)

    thread = start_step(bench)
    thread.join(TIMEOUT)

    assert bench.counters.snapshot().delivered == 1


def test_a_send_that_failed_holds_no_fence():
    bench = Bench()
    bench.put("a")
    bench.outbox.failures = 1

    with pytest.raises(OutboxUnavailable):
        bench.sender.step()

    assert bench.sender.fence(0)
