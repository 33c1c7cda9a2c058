"""What a worker leaves at a close, and at the end of its process."""

import threading

import pytest

from mp_asgi.delivery.counters import Counters, Stats
from mp_asgi.delivery.ending import lose_left, tell_totals
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.events import Stop
from tests.delivery.test_home import make_home
from tests.delivery.test_worker import DENIED, failing, start, unrecorded
from tests.support import NOW, TIMEOUT, RecordingTransport, make_settings

__all__ = ["start"]


@pytest.mark.parametrize(
    ("is_shared", "totals"),
    [
        pytest.param(True, {("dropped", "x"): 2, ("accepted", ""): 3}, id="shared"),
        pytest.param(False, {("dropped", "x"): 2}, id="its-own"),
    ],
)
def test_the_totals_of_those_who_share_an_outbox_say_what_one_has_lost(is_shared, totals):
    outbox, counters = MemoryOutbox(make_settings()), Counters()
    outbox.is_shared = is_shared
    counters.count("accepted", 3)

    tell_totals(outbox, {("dropped", "x"): 2}, counters)

    assert outbox.stats().totals == totals


def test_what_is_submitted_while_the_process_ends_is_left_to_who_submits_it():
    home, counters = make_home(), Counters()
    home.intake.items.append(("late", 1))

    lost = lose_left(home, 0, counters)

    assert lost is None
    assert counters.snapshot() == Stats()
    assert home.intake.waiting() == 1


def test_close_keeps_what_it_cannot_deliver_and_says_how_much(start, caplog):
    gate = threading.Event()
    bench = start(RecordingTransport(gate=gate))
    bench.submit("a", "b")

    assert not bench.worker.close(0.05)
    assert caplog.messages == [
        "Closed with 2 messages not delivered and 0 choices not recorded yet."
    ]
    assert bench.stats().waiting == 2
    gate.set()
    assert bench.worker.flush(TIMEOUT)
    assert bench.stats().delivered == 2


def test_the_exit_counts_what_it_cannot_deliver_in_one_line(start, caplog):
    gate = threading.Event()
    bench = start(RecordingTransport(gate=gate), close_timeout=0.05)
    bench.submit("a", "b")

    bench.worker.exit()
    bench.submit("c")
    gate.set()

    assert caplog.messages == [
        "The process ends with 2 messages not delivered and 0 choices not recorded."
    ]
    assert bench.stats().dropped == {"shutdown": 3}
    assert bench.worker.flush(0)


def test_the_exit_counts_what_a_close_has_left(start):
    gate = threading.Event()
    bench = start(RecordingTransport(gate=gate))
    bench.submit("a")
    bench.worker.close(0.05)

    bench.worker.exit()
    gate.set()

    assert bench.stats().dropped == {"shutdown": 1}


def test_close_keeps_what_it_cannot_record_and_says_how_much(start, caplog):
    bench = start(ledger=failing(), close_timeout=0.2)
    bench.worker.record(DENIED)
    bench.submit("a")

    assert not bench.worker.close(0.2)
    assert caplog.messages[-1] == (
        "Closed with 1 messages not delivered and 1 choices not recorded yet."
    )
    bench.ledger.error = None
    bench.clock.advance(60)
    assert bench.worker.flush(TIMEOUT)
    assert (bench.ledger.items, bench.sent()) == ([DENIED], ["a"])


def test_close_says_so_too_if_only_a_choice_is_left(start, caplog):
    bench = start(ledger=failing(), close_timeout=0.2)
    bench.worker.record(DENIED)

    assert not bench.worker.close(0.2)
    assert caplog.messages[-1] == (
        "Closed with 0 messages not delivered and 1 choices not recorded yet."
    )


def test_the_exit_says_so_too_if_only_a_choice_is_left(start, caplog):
    bench = start(ledger=failing(), close_timeout=0.2)
    bench.worker.record(DENIED)

    bench.worker.exit()

    assert caplog.messages[-1] == (
        "The process ends with 0 messages not delivered and 1 choices not recorded."
    )
    assert unrecorded(bench) == 1


def test_the_exit_counts_what_it_cannot_record_in_one_line(start, caplog):
    bench = start(ledger=failing(), close_timeout=0.2)
    bench.worker.record(DENIED)
    bench.submit("a")

    bench.worker.exit()
    bench.worker.record(DENIED)
    bench.worker.ask(b"user")

    assert caplog.messages[-1] == (
        "The process ends with 1 messages not delivered and 1 choices not recorded."
    )
    assert bench.stats().dropped == {"shutdown": 1}
    assert unrecorded(bench) == 2


def test_a_close_is_not_done_while_a_stop_waits(start, monkeypatch):
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    bench = start()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        bench.worker.submit(Stop([b"device"], NOW))
        is_done = bench.worker.close(TIMEOUT)

    assert not is_done
    assert bench.worker.close(TIMEOUT)
    bench.submit("before")
    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == []
