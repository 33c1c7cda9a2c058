"""Strict durability: the worker, its storer and its mover over a real file."""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mp_asgi.delivery import heir as heir_module
from mp_asgi.delivery import mover as mover_module
from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.crew import Crew
from mp_asgi.delivery.journals import Journaling
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from mp_asgi.delivery.worker import Worker
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Entry, Stop
from tests.support import (
    NOW,
    TIMEOUT,
    FakeClock,
    RecordingTransport,
    make_entry,
    make_settings,
)

Item = tuple[str, ...]


class Flaky(SQLiteOutbox):
    """Storage that fails while somebody says so."""

    fails = False
    puts = 0

    def put(self, *arguments: Any) -> Any:
        type(self).puts += 1
        if type(self).fails:
            raise OutboxUnavailable("disk full")
        return super().put(*arguments)

    def forget(self, *arguments: Any) -> int:
        if type(self).fails:
            raise OutboxUnavailable("disk full")
        return super().forget(*arguments)


class Process:
    """One process's worker; several share a directory."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.transport = RecordingTransport()
        self.directory = directory
        self.counters = Counters()
        self.clock = FakeClock()
        self.settings = make_settings(
            **{"durability": "strict", "outbox": "sqlite", "flush_interval": 3600.0, **settings}
        )
        self.outbox = type("OneFlaky", (Flaky,), {})
        self.rendered: list[Item] = []
        self.worker: Worker[Item] = Worker(
            outbox_factory=lambda: self.outbox(directory / "outbox.sqlite3", self.settings),
            transport_factory=lambda: self.transport,
            render=self.render,
            counters=self.counters,
            settings=self.settings,
            clock=self.clock,
            journaling=Journaling(lambda: directory / "journals", self.pack, self.unpack),
        )

    def pack(self, item: Item | Stop) -> bytes:
        if isinstance(item, Stop):
            return json.dumps([key.hex() for key in item.keys]).encode() + b"!"
        return json.dumps(item).encode()

    def unpack(self, body: bytes) -> Item | Stop:
        if body.endswith(b"!"):
            return Stop([bytes.fromhex(key) for key in json.loads(body[:-1])], NOW)
        return tuple(json.loads(body))

    def render(self, item: Item) -> Sequence[Entry]:
        self.rendered.append(item)
        return [make_entry(*item)]

    def submit(self, *names: str) -> None:
        self.worker.submit(names, len(names))

    def sent(self) -> list[str]:
        return [message["event"] for message in self.transport.messages]

    def files(self) -> list[str]:
        directory = self.directory / "journals"
        return sorted(path.name for path in directory.iterdir()) if directory.exists() else []

    def crash(self) -> None:
        """End as `kill -9` does: no thread stores any more, the journal's lock is gone."""
        crew, self.worker._crew, self.worker._running_pid = self.worker._crew, None, 0
        if crew is not None:
            crew._run._stopping.set()
        self.worker._home.keeper.abandon()
        self.worker._hooks.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def make(**settings: Any) -> Process:
        processes.append(Process(tmp_path, **settings))
        return processes[-1]

    yield make
    for process in processes:
        process.outbox.fails = False
        process.worker.close(0)
        process.worker._hooks.close()


def refuse_threads(patch: pytest.MonkeyPatch, text: str = "can't start new thread") -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError(text)

    patch.setattr(threading.Thread, "start", refuse)


def test_what_is_submitted_is_in_the_journal_before_submit_returns(start, monkeypatch):
    process = start()
    refuse_threads(monkeypatch)

    process.submit("a", "b")

    (name,) = process.files()
    assert b'["a", "b"]' in (process.directory / "journals" / name).read_bytes()
    assert process.worker._home.intake.items == type(process.worker._home.intake.items)()
    assert process.worker.stats().waiting == 2


def test_what_the_journal_keeps_is_delivered_and_a_clean_end_leaves_no_file(start):
    process = start()
    process.submit("a")
    process.submit("b")

    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["a", "b"]
    assert len(process.files()) == 1
    assert process.worker.close(TIMEOUT)
    assert process.files() == []


def test_the_next_process_delivers_what_a_killed_one_kept(start, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    killed = start()
    with monkeypatch.context() as patch:
        refuse_threads(patch)
        killed.submit("a")
        killed.submit("b")
    killed.crash()

    process = start()
    assert process.worker.start()

    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["a", "b"]
    assert len(process.files()) == 1  # its own
    assert "Adopted 2 messages" in caplog.text


def test_what_was_stored_before_the_kill_is_not_stored_twice(start):
    killed = start()
    killed.submit("stored")
    mark_round(killed)
    killed.crash()

    process = start()
    process.worker.start()

    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["stored"]
    assert process.worker.stats().accepted == 1


def mark_round(process: Process) -> None:
    """Wait until the storer has been round once."""
    assert process.worker._home.intake.mark().wait(TIMEOUT)


def test_a_relaxed_process_adopts_what_a_strict_one_left(start, monkeypatch):
    killed = start()
    with monkeypatch.context() as patch:
        refuse_threads(patch)
        killed.submit("a")
    killed.crash()

    process = start(durability="relaxed")
    process.submit("b")

    assert process.worker.flush(TIMEOUT)
    assert sorted(process.sent()) == ["a", "b"]
    assert process.files() == []


def test_while_the_outbox_fails_events_stay_in_the_journal_and_are_rendered_once(start, caplog):
    process = start()
    process.outbox.fails = True
    process.submit("a")

    assert not process.worker.flush(0.2)
    assert process.worker._home.unstored() == 1
    assert len([text for text in caplog.messages if "stay in the journal" in text]) == 1
    process.outbox.fails = False
    assert process.worker.flush(TIMEOUT)
    assert (process.sent(), process.rendered) == (["a"], [("a",)])


def test_what_a_failing_outbox_did_not_take_is_left_to_the_next_process(start, caplog):
    process = start()
    process.outbox.fails = True
    process.submit("a")

    assert not process.worker.close(0.2)
    assert caplog.messages[-1] == "Closed; what is not delivered waits for the next process."
    other = start()
    other.worker.start()
    assert other.worker.flush(TIMEOUT)
    assert other.sent() == ["a"]


def test_a_stop_in_the_journal_ends_what_came_before_it(start):
    process = start()
    process.submit("before")
    process.worker.submit(Stop([b"device"], NOW))

    assert process.worker.flush(TIMEOUT)
    assert process.sent() == []
    assert process.worker.stats().dropped == {"stopped": 1}


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
def test_a_denial_in_a_journal_ends_what_waits_before_the_next_process_sends(
    start, monkeypatch, durability
):
    before = start()
    before.transport.replies = [OSError("down")] * 9
    before.submit("waits")
    mark_round(before)
    before.worker.close(0)
    killed = start()
    with monkeypatch.context() as patch:
        refuse_threads(patch)
        killed.worker.submit(Stop([b"device"], NOW))
    killed.crash()

    process = start(durability=durability)
    crew = make_crew(process)
    crew.storer.has_heard = Turn(crew.storer.store)

    crew._send(over())
    crew.sender.step()

    assert process.transport.sent == []
    assert process.worker.stats().dropped == {"stopped": 1}


def make_crew(process: Process) -> Crew[Item]:
    """Make what would start, and let batches leave at once."""
    home = process.worker._home
    home.flushes = 1
    return Crew(home, process.worker._tools)


class Turn(threading.Event):
    """Lets somebody else do their part while it is waited for."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self._do = do

    def wait(self, timeout: float | None = None) -> bool:
        self._do()
        return super().wait(0)


def over() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
def test_a_sender_may_begin_once_all_stops_are_obeyed_and_not_before(start, durability):
    owing, process = start(), start(durability=durability)
    owing.outbox.fails = process.outbox.fails = True
    owing.worker.submit(Stop([b"device"], NOW))
    crew = make_crew(process)

    crew.storer.store()
    has_heard = crew.storer.has_heard.is_set()
    process.outbox.fails = False
    crew.storer.store()

    assert (has_heard, crew.storer.has_heard.is_set()) == (False, True)


def leave(process: Process, monkeypatch: pytest.MonkeyPatch, *items: Item | Stop) -> None:
    """Let a process that is killed leave these in its journal."""
    with monkeypatch.context() as patch:
        refuse_threads(patch)
        for item in items:
            if isinstance(item, Stop):
                process.worker.submit(item)
            else:
                process.submit(*item)
    process.crash()


@pytest.mark.parametrize("is_flushing", [True, False])
def test_what_only_memory_holds_is_stored_before_what_others_have_left(
    start, monkeypatch, is_flushing
):
    monkeypatch.setattr(heir_module, "PART", 1)
    leave(start(), monkeypatch, ("left a",), ("left b",))
    process = start(durability="relaxed")
    crew = make_crew(process)
    intake = process.worker._home.intake
    intake.items.append((("mine",), 1))
    mark = intake.mark() if is_flushing else over()

    def render_and_track(item: Item) -> Sequence[Entry]:
        if item == ("left a",):
            intake.items.append((("mine, too",), 1))
        return process.render(item)

    monkeypatch.setattr(crew.storer, "_render", render_and_track)

    crew.storer.store()
    first, is_answered = list(process.rendered), mark.is_set()
    crew.storer.store()

    assert (first, is_answered) == ([("mine",), ("left a",)], not is_flushing)
    assert process.rendered[2:] == [("mine, too",), ("left b",)]
    assert mark.is_set()
    assert process.files() == []


def test_stops_of_others_are_obeyed_before_what_only_memory_holds_is_stored(start, monkeypatch):
    process = start(durability="relaxed")
    crew = make_crew(process)
    crew.storer.store()
    leave(start(), monkeypatch, Stop([b"device"], NOW))
    process.worker._home.intake.items.append((("mine",), 1))
    process.clock.advance(mover_module.ADOPT_SECONDS)
    done: list[str] = []

    def forget(outbox: SQLiteOutbox, *arguments: Any) -> int:
        done.append("forget")
        return SQLiteOutbox.forget(outbox, *arguments)

    def put(outbox: SQLiteOutbox, *arguments: Any) -> Any:
        done.append("put")
        return SQLiteOutbox.put(outbox, *arguments)

    process.outbox.forget, process.outbox.put = forget, put

    crew.storer.store()

    assert done[:2] == ["forget", "put"]


class Held:
    """Says that somebody is about to forget, and holds them."""

    def __init__(self) -> None:
        self.acquired = threading.Event()
        self.may_go = threading.Event()


def hold_stops(process: Process) -> Held:
    held = Held()

    def forget(outbox: SQLiteOutbox, *arguments: Any) -> int:
        held.acquired.set()
        assert held.may_go.wait(TIMEOUT)
        return SQLiteOutbox.forget(outbox, *arguments)

    process.outbox.forget = forget
    return held


def test_a_crew_that_is_stopped_waits_for_no_stop(start):
    process = start()
    held = hold_stops(process)
    start().worker.submit(Stop([b"device"], NOW))
    process.worker.start()
    crew = process.worker._crew
    assert held.acquired.wait(TIMEOUT)

    crew._run.stop(0.0)
    may_send = crew.storer.has_heard.is_set()
    held.may_go.set()

    assert may_send  # and finds that it shall stop


def test_whatever_was_put_together_is_put_once_by_who_inherits_it(start):
    killed = start()
    killed.submit("a")
    killed.submit("b")
    mark_round(killed)
    journal = killed.worker._home.keeper.journal
    assert journal.is_stored  # and the file still holds both
    kept = journal.file.path.read_bytes()
    killed.crash()
    journal.file.path.write_bytes(kept)

    process = start()
    process.worker.start()

    assert process.worker.flush(TIMEOUT)
    assert sorted(process.sent()) == ["a", "b"]
    assert process.worker.stats().accepted == 2


def test_of_what_was_sealed_a_stop_is_obeyed_before_any_of_it_is_put(start):
    process = start()
    process.outbox.fails = True
    process.submit("before")
    assert not process.worker.flush(0.2)
    process.worker.submit(Stop([b"device"], NOW))
    assert not process.worker.flush(0.2)
    calls: list[str] = []
    process.outbox.put = lambda outbox, *rest: note(calls, "put", SQLiteOutbox.put, outbox, *rest)
    process.outbox.forget = lambda outbox, *rest: note(
        calls, "forget", SQLiteOutbox.forget, outbox, *rest
    )

    assert process.worker.flush(TIMEOUT)
    assert calls[0] == "forget"
    assert process.sent() == []


def note(calls: list[str], name: str, method: Any, *arguments: Any) -> Any:
    calls.append(name)
    return method(*arguments)


def test_a_stop_that_the_outbox_does_not_take_stays_in_the_journal(start):
    process = start()
    process.outbox.fails = True
    process.worker.submit(Stop([b"device"], NOW))
    process.submit("before")
    assert not process.worker.flush(0.2)

    process.outbox.fails = False

    assert process.worker.flush(TIMEOUT)
    assert process.sent() == []
    assert process.worker.stats().other.get("stop_lost") is None


def test_what_cannot_be_unpacked_stops_nothing_else(start):
    process = start()
    process.unpack = lambda body: ("good",) if b"good" in body else json.loads("no")
    process.worker._journaling = Journaling(
        lambda: process.directory / "journals", process.pack, process.unpack
    )
    process.worker._home = process.worker._new_home()
    process.submit("bad", "too")
    process.submit("good")

    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["good"]
    assert process.worker.stats().dropped == {"unrenderable": 2}


def test_a_bug_of_the_outbox_loses_one_group_and_is_counted(start):
    process = start()
    process.outbox.put = lambda *_: 1 / 0
    process.submit("a", "b")

    assert process.worker.flush(TIMEOUT)
    assert process.worker.stats().dropped == {"unstored": 2}


def test_a_full_journal_drops_the_newest(start, monkeypatch):
    process = start(outbox_max_messages=2)
    process.outbox.fails = True
    process.submit("a", "b")
    process.submit("c")

    assert process.worker.stats().dropped == {"overflow": 1}


def test_a_large_journal_goes_on_in_another_file(start, monkeypatch):
    monkeypatch.setattr(mover_module, "ROTATE_BYTES", 10)
    process = start()
    process.submit("a")
    assert process.worker.flush(TIMEOUT)
    (second,) = process.files()
    process.submit("b")
    assert process.worker.flush(TIMEOUT)

    assert process.sent() == ["a", "b"]
    assert process.files() != [second]
    assert process.worker.stats().accepted == 2


def test_a_threads_end_stores_what_no_thread_could(start, monkeypatch, caplog):
    process = start(durability="relaxed")
    with monkeypatch.context() as patch:
        refuse_threads(patch)
        process.submit("a")
        process.worker.exit()

    other = start()
    other.worker.start()
    assert other.worker.flush(TIMEOUT)
    assert other.sent() == ["a"]


def test_what_comes_after_the_end_is_stored_at_once(start):
    process = start(durability="relaxed")
    process.submit("a")
    process.worker.exit()

    process.submit("late")

    assert process.worker.stats().waiting == 1
    other = start()
    other.worker.start()
    assert other.worker.flush(TIMEOUT)
    assert other.sent() == ["late"]


def test_a_stop_after_the_end_is_stored_at_once(start):
    process = start(durability="relaxed")
    process.worker.start()
    process.worker.exit()

    process.worker.submit(Stop([b"device"], NOW))

    other = start(durability="relaxed")
    other.submit("before")
    assert other.worker.flush(TIMEOUT)
    assert other.sent() == []


def test_while_no_thread_starts_the_newest_are_dropped_when_full(start, monkeypatch):
    process = start(durability="relaxed", outbox_max_messages=1)
    with monkeypatch.context() as patch:
        refuse_threads(patch, "can't create new thread at interpreter shutdown")
        process.worker._home.intake.messages = 1
        process.submit("a")

    assert process.worker.stats().dropped == {"overflow": 1}
    assert process.worker._is_over


def test_the_end_says_what_waits_for_the_next_process(start, caplog):
    process = start(close_timeout=0.2)
    gate = threading.Event()
    process.transport = RecordingTransport(gate=gate)
    process.submit("a")

    process.worker.exit()
    gate.set()

    assert caplog.messages[-1] == "Closed; what is not delivered waits for the next process."
    assert process.worker.stats().dropped == {}


def test_a_flush_returns_at_once_where_the_host_is_down(start):
    process = start(durability="relaxed", flush_interval=600.0)
    process.transport.replies = [OSError("down")] * 9
    process.submit("a")
    process.worker.flush(1)
    crew = process.worker._crew

    assert not process.worker.flush(crew._pump._host._seconds / 1_000)


def test_a_pulse_tells_when_something_was_stored_and_sent(start):
    process = start()
    before = process.worker.pulse()
    process.submit("a")
    assert process.worker.flush(TIMEOUT)

    pulse = process.worker.pulse()

    assert (before.is_running, before.stored_at, before.sent_at) == (False, None, None)
    assert (pulse.is_running, pulse.stored_at, pulse.sent_at) == (True, NOW, NOW)
    assert (pulse.is_blocked, pulse.trouble) == (False, "")


def test_what_the_outbox_has_does_not_stay_in_the_journal(start):
    process = start()
    process.submit("private")

    assert process.worker.flush(TIMEOUT)

    (name,) = process.files()
    assert (process.directory / "journals" / name).read_bytes() == b""
    assert process.worker.stats().delivered == 1


def test_after_a_denial_nothing_stays_in_the_journal_for_a_second(start):
    process = start()
    process.submit("first")
    assert process.worker.flush(TIMEOUT)
    process.submit("second")
    mark_round(process)  # within a second, by a clock that stands still
    (name,) = process.files()
    kept = (process.directory / "journals" / name).read_bytes()

    process.worker.submit(Stop([b"device"], NOW))
    mark_round(process)

    (name,) = process.files()
    assert b"second" in kept
    assert (process.directory / "journals" / name).read_bytes() == b""


def test_an_erasure_leaves_nothing_in_the_journal(start):
    process = start()
    process.submit("first")
    assert process.worker.flush(TIMEOUT)
    process.submit("second")

    process.worker.erase([b"device"], NOW)

    (name,) = process.files()
    assert (process.directory / "journals" / name).read_bytes() == b""


def test_a_deleted_journal_is_replaced_with_what_it_held(start):
    process = start()
    process.outbox.fails = True
    process.submit("a")
    mark_tried(process)
    (name,) = process.files()
    (process.directory / "journals" / name).unlink()

    mark_tried(process)

    (second,) = process.files()
    assert second != name
    assert b'["a"]' in (process.directory / "journals" / second).read_bytes()
    assert process.counters.snapshot().other["journal_failed"] == 1
    process.outbox.fails = False
    assert process.worker.flush(TIMEOUT)
    assert process.sent() == ["a"]


def mark_tried(process: Process) -> None:
    """Wait until the storer has tried a put, though it fails."""
    before = process.outbox.puts
    for _ in range(int(TIMEOUT * 100)):
        process.worker._home.intake.wake.set()
        if process.outbox.puts > before + 1:
            return
        threading.Event().wait(0.01)
    raise AssertionError("the storer did not try")
