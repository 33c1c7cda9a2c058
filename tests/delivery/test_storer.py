import threading
from asyncio import CancelledError
from collections.abc import Callable, Sequence

import pytest

from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.intake import Intake
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.storer import Storer
from mp_asgi.events import Endpoint, Entry, Stop
from tests.support import NOW, TIMEOUT, FakeClock, make_entry, make_settings


class Broken(MemoryOutbox):
    """Storage that fails until it is mended."""

    is_mended = False

    def put(self, entries, now):
        if not self.is_mended:
            raise OSError("disk full of secret")
        return super().put(entries, now)

    def forget(self, keys, at, now):
        raise OSError("disk full of secret")


class Bench:
    def __init__(self, outbox: MemoryOutbox | None = None, **settings: object) -> None:
        self.intake: Intake[Sequence[Entry]] = Intake()
        self.outbox = outbox or MemoryOutbox(make_settings(**settings))
        self.counters = Counters()
        self.stored = 0
        self.after_round: Callable[[], None] = lambda: None
        self.rendering = threading.Event()
        self.may_render = threading.Event()
        self.may_render.set()
        self.error: BaseException = ValueError("secret")
        self.storer = Storer(
            intake=self.intake,
            outbox=self.outbox,
            render=self.render,
            counters=self.counters,
            clock=FakeClock(),
            on_stored=self.on_stored,
        )

    def render(self, item: Sequence[Entry]) -> Sequence[Entry]:
        self.rendering.set()
        assert self.may_render.wait(TIMEOUT)
        if not item:
            raise self.error
        return item

    def on_stored(self) -> None:
        self.stored += 1
        self.after_round()

    def submit(self, item: Sequence[Entry] | Stop, count: int = 0) -> None:
        self.intake.items.append((item, count))

    def names(self) -> list[str]:
        leased = self.outbox.lease(
            Endpoint.EVENTS, NOW, max_messages=100, max_bytes=100_000, seconds=60
        )
        return [message.name for item in leased for message in item.entry.messages]


def test_items_are_stored_in_order_and_counted():
    bench = Bench()
    bench.submit([make_entry("a"), make_entry("b", "c")], 3)
    bench.submit([make_entry("d")], 1)
    assert bench.intake.waiting() == 4

    bench.storer.store()

    assert bench.names() == ["a", "b", "c", "d"]
    assert (bench.counters.snapshot().accepted, bench.intake.waiting(), bench.stored) == (4, 0, 1)


def test_an_item_that_cannot_be_rendered_poisons_no_other(caplog):
    bench = Bench()
    bench.submit([make_entry("a")], 1)
    bench.submit([], 2)
    bench.submit([], 3)
    bench.submit([make_entry("b")], 1)

    bench.storer.store()

    assert bench.names() == ["a", "b"]
    stats = bench.counters.snapshot()
    assert (stats.accepted, stats.dropped) == (7, {"unrenderable": 5})
    (text,) = caplog.messages
    assert "ValueError" in text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("error", [SystemExit, CancelledError, KeyboardInterrupt])
def test_nothing_that_a_rendering_raises_ends_the_thread(error):
    bench = Bench()
    bench.error = error("secret")
    bench.submit([make_entry("a")], 1)
    bench.submit([], 2)
    bench.submit([make_entry("b")], 1)

    bench.storer.store()

    assert bench.names() == ["a", "b"]
    assert bench.counters.snapshot().dropped == {"unrenderable": 2}
    assert (bench.intake.waiting(), bench.stored) == (0, 1)


def test_nothing_that_an_outbox_raises_ends_the_thread():
    class Torn(MemoryOutbox):
        def put(self, entries, now):
            raise CancelledError

        def forget(self, keys, at, now):
            raise CancelledError

    bench = Bench(Torn(make_settings()))
    bench.submit([make_entry("a", "b")], 2)
    bench.submit(Stop([b"device"], NOW))

    bench.storer.store()

    stats = bench.counters.snapshot()
    assert (stats.dropped, stats.other) == ({"unstored": 2}, {"stop_lost": 1})
    assert (bench.intake.waiting(), bench.stored) == (0, 1)


def test_what_render_leaves_out_it_counts_itself():
    bench = Bench()
    bench.submit([make_entry("a")], 3)

    bench.storer.store()

    stats = bench.counters.snapshot()
    assert (stats.accepted, stats.dropped) == (3, {})


def test_messages_beyond_the_announced_count_are_accepted_too():
    bench = Bench()
    bench.submit([make_entry("a", "b")], 1)

    bench.storer.store()

    assert (bench.counters.snapshot().accepted, bench.intake.waiting()) == (2, 0)


def test_a_stop_forgets_what_was_submitted_before_it():
    bench = Bench()
    bench.submit([make_entry("before", at=NOW - 1)], 1)
    bench.submit(Stop([b"device"], NOW - 1))
    bench.submit([make_entry("late", at=NOW - 1)], 1)
    bench.submit([make_entry("after")], 1)

    bench.storer.store()

    assert bench.names() == ["after"]
    assert bench.counters.snapshot().dropped == {"stopped": 2}


def test_a_mark_is_set_when_all_before_it_is_stored():
    bench = Bench()
    bench.submit([make_entry("a")], 1)
    mark = bench.intake.mark()

    bench.storer.store()

    assert mark.is_set()
    assert bench.names() == ["a"]


def test_what_is_too_old_to_be_taken_is_counted():
    bench = Bench(outbox_max_age=86_400.0, retry_budget=3600.0)
    bench.submit([make_entry("a", "b", at=0.0)], 2)
    bench.storer.store()

    stats = bench.counters.snapshot()
    assert (stats.accepted, stats.dropped) == (2, {"too_old": 2})


def test_a_full_outbox_is_counted_and_logged_once(caplog):
    bench = Bench(outbox_max_messages=1)
    for name in "abc":
        bench.submit([make_entry(name)], 1)
        bench.storer.store()

    assert bench.counters.snapshot().dropped == {"overflow": 2}
    assert len(caplog.messages) == 1


def test_an_outbox_that_fails_loses_only_that_round(caplog):
    bench = Bench(Broken(make_settings()))
    bench.submit([make_entry("a", "b")], 2)
    bench.storer.store()
    bench.outbox.is_mended = True
    bench.submit([make_entry("c")], 1)
    bench.storer.store()

    stats = bench.counters.snapshot()
    assert bench.names() == ["c"]
    assert (stats.accepted, stats.dropped, bench.intake.waiting()) == (3, {"unstored": 2}, 0)
    assert "secret" not in caplog.text


def test_a_stop_that_the_outbox_loses_is_said(caplog):
    bench = Bench(Broken(make_settings()))
    bench.submit(Stop([b"device"], NOW))

    bench.storer.store()

    assert bench.counters.snapshot().other == {"stop_lost": 1}
    assert "did not forget a visitor who denied (OSError)" in caplog.text


def test_two_storers_keep_the_order():
    bench = Bench()
    bench.may_render.clear()
    bench.submit([make_entry("a")], 1)
    bench.submit([make_entry("b")], 1)
    first = threading.Thread(target=bench.storer.store, daemon=True)
    second = threading.Thread(target=bench.storer.store, daemon=True)
    with bench.intake.storing:  # as the first one would, while it renders
        first.start()
        second.start()
        assert bench.intake.waiting() == 2
        assert not bench.rendering.wait(0.05)
    bench.may_render.set()
    first.join(TIMEOUT)
    second.join(TIMEOUT)

    assert bench.names() == ["a", "b"]


def test_what_was_submitted_before_a_stop_of_the_thread_is_stored():
    bench = Bench()
    bench.submit([make_entry("a")], 1)
    stopping = threading.Event()
    stopping.set()

    bench.storer.run(stopping)

    assert bench.names() == ["a"]


def test_the_thread_stores_when_woken_and_ends_when_stopped():
    bench = Bench()
    stopping = threading.Event()
    thread = threading.Thread(target=bench.storer.run, args=(stopping,), daemon=True)
    thread.start()
    bench.submit([make_entry("a")], 1)
    assert bench.intake.mark().wait(TIMEOUT)

    stopping.set()
    bench.intake.wake.set()
    thread.join(TIMEOUT)

    assert not thread.is_alive()
    assert bench.names() == ["a"]


def test_the_thread_sleeps_again_after_a_round():
    bench = Bench()
    stopping = threading.Event()
    bench.intake.wake.set()
    bench.after_round = stopping.set

    bench.storer.run(stopping)

    assert not bench.intake.wake.is_set()
