import gc
import os
import select
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from mp_asgi.delivery.counters import Counters, Stats
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.recorder import Answers, Recorder
from mp_asgi.delivery.transport import Reply
from mp_asgi.delivery.worker import Worker
from mp_asgi.errors import Unavailable
from mp_asgi.events import ActState, Endpoint, Entry, Stop
from tests.support import (
    NOW,
    TIMEOUT,
    FakeClock,
    MemoryLedger,
    RecordingTransport,
    make_act,
    make_entry,
    make_settings,
)

Item = Sequence[Entry]
DENIED = make_act(ActState.DENIED)


class Bench:
    def __init__(
        self, transport: RecordingTransport, ledger: MemoryLedger | None = None, **settings: Any
    ) -> None:
        self.transport = transport
        self.ledger = ledger
        self.answers: list[Answers] = []
        self.clock = FakeClock()
        self.counters = Counters()
        self.rendering = threading.Event()
        self.may_render = threading.Event()
        self.may_render.set()
        self.settings = make_settings(**settings)
        self.worker: Worker[Item] = Worker(
            outbox_factory=lambda: MemoryOutbox(self.settings),
            transport_factory=lambda: self.transport,
            recorder_factory=None if ledger is None else self.make_recorder,
            render=self.render,
            counters=self.counters,
            settings=self.settings,
            clock=self.clock,
        )

    def make_recorder(self) -> Recorder:
        return Recorder(
            ledger=self.ledger,
            counters=self.counters,
            clock=self.clock,
            random=lambda: 0.5,
            on_answers=self.answers.append,
            learning=threading.Lock(),
        )

    def render(self, item: Item) -> Item:
        self.rendering.set()
        assert self.may_render.wait(TIMEOUT)
        return item

    def submit(self, *names: str, is_identity: bool = False, **flags: Any) -> None:
        entry = make_entry(*names, is_identity=is_identity, **flags)
        self.worker.submit([entry], len(names), is_identity=is_identity)

    def sent(self) -> list[str]:
        return [message["event"] for message in self.transport.messages]

    def stats(self) -> Stats:
        stats = self.worker.stats()
        assert stats.accepted == (
            stats.delivered + stats.waiting + stats.buried + sum(stats.dropped.values())
        )
        return stats


@pytest.fixture
def start() -> Iterator[Callable[..., Bench]]:
    """Make benches whose threads end with the test."""
    benches: list[Bench] = []

    def make(
        transport: RecordingTransport | None = None,
        ledger: MemoryLedger | None = None,
        **settings: Any,
    ) -> Bench:
        benches.append(Bench(transport or RecordingTransport(), ledger, **settings))
        return benches[-1]

    yield make
    for bench in benches:
        bench.may_render.set()
        bench.worker.close(0)
        bench.worker._hooks.close()


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("mp-asgi")}


def test_nothing_starts_before_the_first_submit(start):
    before = threads()
    bench = start()

    assert bench.worker.flush(0)
    assert bench.worker.close(0)
    assert threads() <= before
    assert bench.stats() == Stats()


def test_a_flush_delivers_what_was_submitted(start):
    bench = start(flush_interval=3600.0)
    bench.submit("a", "b")
    bench.submit("c")

    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == ["a", "b", "c"]
    assert (bench.stats().accepted, bench.stats().delivered) == (3, 3)


def test_a_flush_ends_with_the_events_that_waited_for_an_alias(start):
    bench = start(RecordingTransport([Reply(200, b"0")]), flush_interval=3600.0)
    bench.submit("first")
    bench.submit("alias", endpoint=Endpoint.ALIASES, user=b"user", is_identity=True)
    bench.submit("later", user=b"user")

    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == ["alias", "first", "later"]
    assert (bench.stats().delivered, bench.stats().buried) == (2, 1)
    assert [letter.reply for letter in bench.worker.dead()] == ["0"]


def test_an_alias_leaves_without_a_flush(start):
    bench = start(flush_interval=3600.0)
    bench.submit("alias", endpoint=Endpoint.ALIASES, user=b"user", is_identity=True)

    assert bench.transport.is_sending.wait(TIMEOUT)


def test_a_full_batch_leaves_without_a_flush(start):
    bench = start(batch_size=2, flush_interval=3600.0)
    bench.submit("a", "b")

    assert bench.transport.is_sending.wait(TIMEOUT)
    assert bench.sent() == ["a", "b"]


def test_what_is_submitted_counts_as_waiting_at_once(start):
    bench = start()
    bench.may_render.clear()
    bench.submit("a", "b")
    assert bench.rendering.wait(TIMEOUT)
    bench.submit("c")

    assert (bench.stats().accepted, bench.stats().waiting) == (3, 3)


def test_a_flush_ends_at_its_deadline_while_rendering(start):
    bench = start()
    bench.may_render.clear()
    bench.submit("a")

    assert not bench.worker.flush(0.01)


def test_a_silent_mixpanel_ends_a_flush_at_its_deadline_and_delays_no_storing(start):
    gate = threading.Event()
    bench = start(RecordingTransport(gate=gate), batch_size=1)
    bench.submit("a")
    assert bench.transport.is_sending.wait(TIMEOUT)
    bench.submit("b")

    assert not bench.worker.flush(0.05)
    assert bench.worker._home.outbox.stats().depth == 2
    gate.set()
    assert bench.worker.flush(TIMEOUT)


def test_a_flush_counts_what_is_buried_as_settled(start):
    bench = start(RecordingTransport([Reply(400, b"no")]))
    bench.submit("a")

    assert bench.worker.flush(TIMEOUT)
    assert [letter.message.name for letter in bench.worker.dead()] == ["a"]
    assert bench.stats().buried == 1


def test_a_stop_ends_a_flush_that_waits_for_what_it_forgets(start):
    bench = start(RecordingTransport([Unavailable("no", is_sent=False)]))
    bench.submit("a")
    flushed: list[bool] = []
    flusher = threading.Thread(target=lambda: flushed.append(bench.worker.flush(3 * TIMEOUT)))
    flusher.start()
    assert bench.transport.is_sending.wait(TIMEOUT)

    bench.worker.submit(Stop([b"device"], NOW))
    flusher.join(TIMEOUT)

    assert flushed == [True]
    assert bench.stats().dropped == {"stopped": 1}


def test_nothing_tracked_before_a_stop_leaves_after_it(start):
    bench = start(flush_interval=3600.0)
    bench.submit("before", at=NOW - 1)
    bench.worker.submit(Stop([b"device"], NOW - 1))
    bench.submit("late", at=NOW - 1)
    bench.submit("after")

    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == ["after"]
    assert bench.stats().dropped == {"stopped": 2}


def test_a_full_intake_drops_the_newest_but_no_identity_and_no_stop(start, caplog):
    bench = start(outbox_max_messages=3)
    bench.may_render.clear()
    bench.submit("first")
    assert bench.rendering.wait(TIMEOUT)

    bench.submit("a", "b", at=NOW - 1)
    for name in ("c", "d"):
        bench.submit(name, "too")
    bench.submit("$identify", "too", is_identity=True)
    bench.worker.submit(Stop([b"device"], NOW - 1))
    bench.may_render.set()

    assert bench.worker.flush(TIMEOUT)
    assert bench.stats().dropped == {"overflow": 4, "stopped": 2}
    assert bench.stats().delivered == 3
    assert len([text for text in caplog.messages if "intake is full" in text]) == 1


def test_many_threads_lose_nothing(start):
    bench = start(batch_size=100)

    def submit() -> None:
        for _ in range(500):
            bench.submit("a")

    submitters = [threading.Thread(target=submit) for _ in range(8)]
    for thread in submitters:
        thread.start()
    for thread in submitters:
        thread.join(TIMEOUT)

    assert bench.worker.flush(TIMEOUT)
    assert len(bench.sent()) == bench.stats().delivered == 4000


def test_many_first_submits_start_one_pair_of_threads(start):
    before = threads()
    bench = start()
    barrier = threading.Barrier(8)

    def submit() -> None:
        barrier.wait(TIMEOUT)
        bench.submit("a")

    submitters = [threading.Thread(target=submit) for _ in range(8)]
    for thread in submitters:
        thread.start()
    for thread in submitters:
        thread.join(TIMEOUT)

    assert len(threads() - before) == 2


def test_a_start_that_another_thread_has_made_is_enough(start):
    bench = start()
    bench.submit("a")

    assert bench.worker._start()
    assert bench.worker.flush(TIMEOUT)


def test_close_delivers_and_ends_the_threads(start):
    before = threads()
    bench = start()
    bench.submit("a")

    assert bench.worker.close(TIMEOUT)
    assert bench.sent() == ["a"]
    assert bench.transport.closed.is_set()
    assert threads() <= before


def test_a_closed_worker_starts_again(start):
    bench = start()
    for name in "abc":
        bench.submit(name)
        assert bench.worker.close(TIMEOUT)

    assert bench.sent() == ["a", "b", "c"]
    assert bench.stats().delivered == 3


def test_what_arrives_while_closing_is_delivered_too(start):
    class Busy(RecordingTransport):
        def send(self, endpoint: Endpoint, body: bytes) -> Reply:
            if not self.sent:
                bench.submit("late")
            return super().send(endpoint, body)

    bench = start(Busy())
    bench.submit("a")

    assert bench.worker.close(TIMEOUT)
    assert bench.sent() == ["a", "late"]


def test_a_closed_worker_is_not_kept_alive(start):
    bench = Bench(RecordingTransport())
    bench.submit("a")
    assert bench.worker.close(TIMEOUT)
    reference = weakref.ref(bench.worker)

    bench.worker = None
    gc.collect()

    assert reference() is None


def test_a_fork_leaves_everything_to_the_parent(start):
    bench = start(flush_interval=3600.0)
    bench.submit("a")
    parent, crew = bench.worker._home, bench.worker._crew

    bench.worker.become_child()
    crew.stop(0)

    assert bench.worker._home is not parent
    assert bench.worker._running_pid == 0


def test_the_exit_delivers_what_it_can(start, caplog):
    bench = start()
    bench.submit("a")

    bench.worker.exit()

    assert bench.sent() == ["a"]
    assert caplog.messages == []


def test_a_flush_that_can_start_no_thread_says_so(start, monkeypatch):
    bench = start()
    bench.worker._home.intake.items.append(([make_entry("a")], 1))
    bench.worker._is_over = True

    assert not bench.worker.flush(TIMEOUT)


def test_what_was_left_in_the_intake_is_stored_at_the_next_start(start):
    bench = start(batch_size=1)
    bench.worker._home.intake.items.append(([make_entry("left")], 1))

    assert bench.worker._start()
    assert bench.transport.is_sending.wait(TIMEOUT)


def test_half_a_start_stores_delays_no_request_and_is_completed_later(start, monkeypatch):
    before = threads()
    start_thread = threading.Thread.start
    tries: list[str] = []

    def refuse(self: threading.Thread) -> None:
        if self.name == "mp-asgi-sender":
            tries.append(self.name)
            raise RuntimeError("can't start new thread")
        start_thread(self)

    bench = start()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        bench.submit("a")
        bench.submit("b")
        store(bench)

    assert {thread.name for thread in threads() - before} == {"mp-asgi-storer"}
    assert len(tries) == 1
    assert bench.worker._home.outbox.stats().depth == 2
    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == ["a", "b"]


def test_a_stop_is_kept_until_threads_start_again_though_the_intake_is_full(start, monkeypatch):
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    bench = start(outbox_max_messages=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        bench.submit("$identify", "too", is_identity=True)
        bench.worker.submit(Stop([b"device"], NOW))

    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == []
    assert bench.stats().dropped == {"stopped": 2}


def test_a_choice_is_kept_until_threads_start_again(start, monkeypatch):
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    bench = start(ledger=MemoryLedger())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        bench.worker.record(DENIED)

    assert bench.worker.flush(TIMEOUT)
    assert bench.ledger.items == [DENIED]
    assert unrecorded(bench) == 0


def test_a_submit_that_can_start_no_thread_is_counted(start, monkeypatch):
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    bench = start()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        bench.submit("a", "b")
    bench.submit("c")

    assert bench.worker.flush(TIMEOUT)
    assert bench.stats().dropped == {"shutdown": 2}
    assert bench.sent() == ["c"]


def in_child(run: Callable[[], str]) -> str:
    """Run in a forked child and answer what it says; a child that hangs fails the test."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover  # another process
        try:
            text = run()
        except BaseException as error:  # noqa: BLE001  # the parent judges it
            text = repr(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    is_done, _, _ = select.select([reader], [], [], TIMEOUT)
    text = os.read(reader, 10_000).decode() if is_done else "the child hung"
    os.close(reader)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return text


def child_story(bench: Bench) -> str:
    """Submit in a child; tell what it sent, what it counted, and what it left to its parent."""
    bench.transport = RecordingTransport()
    inherited = bench.worker.stats()
    bench.submit("child")
    is_flushed = bench.worker.flush(TIMEOUT)
    stats = bench.stats()
    return f"{is_flushed} {bench.sent()} {inherited == Stats()} {stats.accepted} {stats.delivered}"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("has_hook", [True, False], ids=["at-fork-hook", "pid-check-only"])
def test_a_forked_child_starts_empty_and_delivers_its_own(start, has_hook, monkeypatch):
    if not has_hook:
        monkeypatch.delattr(os, "register_at_fork")
    gate = threading.Event()
    bench = start(RecordingTransport(gate=gate), batch_size=1)
    bench.submit("sending")
    assert bench.transport.is_sending.wait(TIMEOUT)
    bench.may_render.clear()
    bench.submit("rendering")
    parent = bench.transport

    # Held by threads that do not live in the child.
    with bench.worker._locks[os.getpid()], bench.worker._home.outbox._lock:
        bench.may_render.set()
        story = in_child(lambda: child_story(bench))
    gate.set()

    assert story == "True ['child'] True 1 1"
    assert bench.worker.flush(TIMEOUT)
    assert [message["event"] for message in parent.messages] == ["sending", "rendering"]
    assert bench.stats().delivered == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_the_end_of_a_child_that_sent_nothing_drops_nothing(start, monkeypatch):
    bench = start(flush_interval=3600.0)
    monkeypatch.delattr(os, "register_at_fork")
    bench.submit("a")

    def end() -> str:
        bench.worker.exit()
        return f"{bench.counters.snapshot() == Stats()} {bench.sent()}"

    assert in_child(end) == "True []"
    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == ["a"]


def test_another_process_without_fork_hooks_is_noticed(start, monkeypatch):
    bench = start(flush_interval=3600.0)
    bench.submit("parent")
    parent, crew = bench.worker._home, bench.worker._crew

    monkeypatch.setattr(os, "getpid", lambda: -1)
    bench.worker.exit()
    bench.worker.become_child()
    crew.stop(0)

    assert bench.worker._home is not parent
    assert bench.stats() == Stats()


# --- with a ledger --------------------------------------------------------------------------------


def failing() -> MemoryLedger:
    ledger = MemoryLedger()
    ledger.error = OSError("secret")
    return ledger


def unrecorded(bench: Bench) -> int:
    return bench.stats().other.get("unrecorded", 0)


def test_a_choice_is_recorded_without_an_event_and_without_a_flush(start):
    class Telling(MemoryLedger):
        is_told = threading.Event()

        def append(self, items):
            super().append(items)
            self.is_told.set()

    ledger = Telling()
    bench = start(ledger=ledger)

    bench.worker.record(DENIED)

    assert ledger.is_told.wait(TIMEOUT)
    assert ledger.items == [DENIED]


def test_a_flush_records_what_was_chosen_before_it(start):
    bench = start(ledger=MemoryLedger())

    bench.worker.record(DENIED)

    assert bench.worker.flush(TIMEOUT)
    assert bench.ledger.items == [DENIED]


def test_a_question_is_answered_from_the_ledger(start):
    told = threading.Event()
    bench = start(ledger=MemoryLedger())
    bench.ledger.append([DENIED])
    bench.worker._home.recorder._on_answers = lambda answers: (
        bench.answers.append(answers),
        told.set(),
    )

    bench.worker.ask(b"user")

    assert told.wait(TIMEOUT)
    assert bench.answers == [{b"user": DENIED.standing()}]


def test_what_was_denied_elsewhere_never_leaves_and_is_counted(start):
    bench = start(ledger=MemoryLedger(), flush_interval=3600.0)
    bench.submit("denied", "too", user=b"user")
    bench.submit("allowed", user=b"other")
    bench.ledger.append([DENIED])

    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == ["allowed"]
    assert bench.stats().dropped == {"withdrawn": 2}


def test_a_choice_made_here_is_recorded_before_what_waits_is_judged(start):
    bench = start(ledger=MemoryLedger(), batch_size=2, flush_interval=3600.0)
    bench.worker.record(DENIED)

    bench.submit("denied", "too", user=b"user")

    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == []
    assert bench.stats().dropped == {"withdrawn": 2}


def test_without_the_ledgers_answer_a_flush_fails_and_sends_nothing(start):
    bench = start(ledger=failing())
    bench.worker.record(DENIED)
    bench.submit("a")

    is_flushed = bench.worker.flush(TIMEOUT)
    waiting = bench.stats().waiting
    bench.ledger.error = None
    bench.clock.advance(60)

    assert (is_flushed, waiting) == (False, 1)
    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == ["a"]
    assert bench.ledger.items == [DENIED]


def test_close_records_although_nothing_waits_to_be_sent(start):
    before = threads()
    bench = start(ledger=MemoryLedger())
    bench.worker.record(DENIED)

    assert bench.worker.close(TIMEOUT)
    assert bench.ledger.items == [DENIED]
    assert bench.ledger.calls[-1] == "close"
    assert threads() <= before


def test_what_a_close_could_not_record_is_recorded_after_the_next_start(start):
    bench = start(ledger=failing())
    bench.worker.record(DENIED)
    bench.worker.close(0.1)
    bench.ledger.error = None
    bench.clock.advance(60)

    bench.worker.ask(b"other")

    for _ in range(int(TIMEOUT * 1_000)):
        if bench.answers and bench.ledger.items:
            break
        threading.Event().wait(0.001)
    assert bench.ledger.items == [DENIED]


def test_the_exit_records_what_it_can(start, caplog):
    bench = start(ledger=MemoryLedger())
    bench.worker.record(DENIED)

    bench.worker.exit()

    assert bench.ledger.items == [DENIED]
    assert (unrecorded(bench), caplog.messages) == (0, [])


def test_a_lookup_that_can_start_no_thread_is_no_lost_choice(start):
    bench = start(ledger=MemoryLedger())
    bench.worker._is_over = True

    bench.worker.ask(b"user")

    assert unrecorded(bench) == 0


def test_without_a_ledger_there_is_no_thread_for_one(start):
    before = threads()
    bench = start()

    bench.submit("a")

    assert {thread.name for thread in threads() - before} == {"mp-asgi-storer", "mp-asgi-sender"}


def test_without_a_ledger_a_choice_is_nobodys(start):
    bench = start()

    bench.worker.record(DENIED)
    bench.worker.ask(b"user")

    assert unrecorded(bench) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("has_hook", [True, False], ids=["at-fork-hook", "pid-check-only"])
def test_a_forked_child_leaves_the_choices_of_its_parent_to_the_parent(
    start, has_hook, monkeypatch
):
    if not has_hook:
        monkeypatch.delattr(os, "register_at_fork")
    bench = start(ledger=failing())
    bench.worker.record(DENIED)
    assert not bench.worker.flush(0.1)

    def tell() -> str:
        bench.ledger.error = None
        bench.clock.advance(60)
        own = make_act(ActState.GRANTED, NOW + 1)
        bench.worker.record(own)
        return f"{bench.worker.flush(TIMEOUT)} {bench.ledger.items == [own]}"

    # Held by a thread that does not live in the child.
    with bench.worker._home.recorder._appending:
        story = in_child(tell)
    bench.ledger.error = None
    bench.clock.advance(60)

    assert story == "True True"
    assert bench.worker.flush(TIMEOUT)
    assert bench.ledger.items == [DENIED]


def store(bench: Bench) -> None:
    """Wait until everything that was submitted before is in the outbox."""
    assert bench.worker._home.intake.mark().wait(TIMEOUT)


def test_an_erase_removes_what_waits_and_what_is_under_way(start):
    gate = threading.Event()
    bench = start(RecordingTransport(gate=gate), batch_size=1)
    bench.submit("sending")
    assert bench.transport.is_sending.wait(TIMEOUT)
    bench.submit("waiting", user=b"user")
    bench.submit("other", device=b"other")
    store(bench)

    removed = bench.worker.erase([b"device"], NOW)
    gate.set()

    assert removed == 2
    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == ["sending", "other"]
    assert bench.stats().dropped == {"erased": 2}


def test_an_erase_reaches_what_is_not_stored_yet(start):
    bench = start()
    bench.may_render.clear()
    bench.submit("rendering")
    assert bench.rendering.wait(TIMEOUT)
    bench.submit("submitted")

    assert bench.worker.erase([b"device"], NOW) == 0
    bench.may_render.set()

    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == []
    assert bench.stats().dropped == {"stopped": 2}


def test_an_erase_removes_dead_letters(start):
    bench = start(RecordingTransport([Reply(400, b"no")] * 2), batch_size=1)
    bench.submit("a")
    bench.submit("b", device=b"other")
    assert bench.worker.flush(TIMEOUT)

    assert bench.worker.erase([b"device"], NOW) == 0

    assert [letter.message.name for letter in bench.worker.dead()] == ["b"]
    assert bench.stats().buried == 2


def test_an_erase_is_no_reason_to_start_threads(start):
    before = threads()

    assert start().worker.erase([b"device"], NOW) == 0

    assert threads() <= before


def test_who_was_erased_may_come_back_later(start):
    bench = start()
    bench.worker.erase([b"device"], NOW - 1)
    bench.submit("before", at=NOW - 1)
    bench.submit("after")

    assert bench.worker.flush(TIMEOUT)
    assert bench.sent() == ["after"]


def test_a_fence_stands_at_once_where_nothing_was_ever_sent(start):
    assert start().worker.fence(0)


def test_a_fence_waits_for_the_send_that_is_under_way(start):
    gate = threading.Event()
    bench = start(RecordingTransport(gate=gate), batch_size=1)
    bench.submit("a")
    assert bench.transport.is_sending.wait(TIMEOUT)

    assert not bench.worker.fence(0)

    gate.set()
    assert bench.worker.fence(TIMEOUT)


def test_a_fence_of_a_child_does_not_wait_for_its_parents_send(start, monkeypatch):
    gate = threading.Event()
    bench = start(RecordingTransport(gate=gate), batch_size=1)
    bench.submit("a")
    assert bench.transport.is_sending.wait(TIMEOUT)

    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        is_free = bench.worker.fence(0)
    gate.set()

    assert is_free
