import threading

import pytest

from mp_asgi.delivery.choices import MAX_WAITING
from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.recorder import ASK_BATCH, BATCH, Recorder
from mp_asgi.errors import Unavailable
from mp_asgi.events import ActState, Link, Notice
from tests.support import NOW, TIMEOUT, FakeClock, MemoryLedger, make_act, make_entry

GRANTED, DENIED, LIFTED, ERASED = ActState
SECRET = "postgresql://shop:passw0rd@db"
LINK = Link("ada", "d-1", b"user", b"device", NOW)


class Bench:
    def __init__(self, ledger=None) -> None:
        self.ledger = ledger or MemoryLedger()
        self.counters = Counters()
        self.clock = FakeClock()
        self.answers = []
        self.learning = threading.Lock()
        self.recorder = Recorder(
            ledger=self.ledger,
            counters=self.counters,
            clock=self.clock,
            random=lambda: 0.5,
            on_answers=self.answers.append,
            learning=self.learning,
        )

    def record(self, *items) -> None:
        for item in items:
            self.recorder.record(item)

    def counted(self, name: str) -> int:
        return self.counters.snapshot().other.get(name, 0)

    def fail(self) -> None:
        self.ledger.error = OSError(SECRET)

    def mend(self) -> None:
        self.ledger.error = None


def many(number):
    """Answer the choices of so many users."""
    return [make_act(DENIED, key=count.to_bytes(4)) for count in range(number)]


# --- what was chosen ------------------------------------------------------------------------------


def test_choices_are_kept_in_their_order():
    bench = Bench()
    items = [make_act(DENIED), LINK, make_act(GRANTED, NOW + 1), make_act(DENIED, NOW + 2)]

    bench.record(*items)
    waiting = bench.recorder.waiting()

    assert (waiting, bench.recorder.step()) == (4, None)
    assert bench.ledger.items == items
    assert (bench.recorder.waiting(), bench.counted("recorded")) == (0, 3)


def test_more_than_one_transaction_takes_keep_their_order_too():
    bench = Bench()
    acts = many(2 * BATCH + 1)

    bench.record(*acts)
    bench.recorder.step()

    assert bench.ledger.items == acts
    assert bench.ledger.calls.count("append") == 3


def test_an_answer_that_repeats_another_is_no_second_record():
    bench = Bench()

    bench.record(make_act(GRANTED), make_act(GRANTED, NOW + 1))
    bench.recorder.step()
    bench.record(make_act(GRANTED, NOW + 2))
    bench.recorder.step()

    assert bench.ledger.items == [make_act(GRANTED)]
    assert bench.counted("recorded") == 1


def test_what_another_process_recorded_is_news_to_nobody():
    bench = Bench()
    bench.ledger.append([make_act(DENIED)])

    bench.record(make_act(DENIED, NOW + 1), make_act(LIFTED, NOW + 2))
    bench.recorder.step()

    assert bench.ledger.items == [make_act(DENIED), make_act(LIFTED, NOW + 2)]


def test_links_need_no_look_at_the_ledger_and_tell_nobody():
    bench = Bench()

    bench.record(LINK)
    bench.recorder.step()

    assert bench.ledger.calls == ["append"]
    assert (bench.answers, bench.counted("recorded")) == ([], 0)


def test_a_process_learns_what_it_recorded():
    bench = Bench()
    bench.ledger.append([make_act(DENIED, NOW - 5)])

    bench.record(make_act(LIFTED))
    bench.recorder.step()

    [answers] = bench.answers
    assert answers == bench.ledger.standings([b"user"])
    assert answers[b"user"].denied_at == NOW - 5


def test_what_was_chosen_while_the_ledger_answered_is_not_forgotten_for_its_answer():
    class Interrupted(MemoryLedger):
        def standings(self, keys):
            found = super().standings(keys)
            if not bench.recorder.waiting():
                bench.record(make_act(DENIED, NOW + 1))
            return found

    bench = Bench(Interrupted())
    bench.recorder.ask(b"user")
    bench.recorder.ask(b"other")

    bench.recorder._answer()

    assert bench.answers == [{b"other": None}]


def test_answers_are_told_under_the_lock_of_who_learns():
    bench = Bench()
    held = []
    bench.recorder._on_answers = lambda _: held.append(bench.learning.locked())
    bench.recorder.ask(b"user")
    bench.record(make_act(DENIED))

    bench.recorder.step()

    assert held == [True, True]


def test_a_choice_that_is_recorded_but_could_not_be_told_is_recorded_once():
    class Forgetful(MemoryLedger):
        def append(self, items):
            super().append(items)
            self.error = OSError(SECRET)

    bench = Bench(Forgetful())
    bench.record(make_act(DENIED))

    pause = bench.recorder.step()
    bench.mend()
    bench.clock.advance(pause)
    bench.recorder.step()

    assert (bench.ledger.items, bench.ledger.calls.count("append")) == ([make_act(DENIED)], 1)


def test_what_does_not_fit_in_memory_is_counted():
    bench = Bench()

    for number in range(MAX_WAITING + 1):
        bench.recorder.record(make_act(GRANTED, key=b"%d" % number))

    assert bench.recorder.waiting() == MAX_WAITING
    assert bench.counted("unrecorded") == 1


class Slow(MemoryLedger):
    """A ledger in which two appends at once would be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.is_first_in = threading.Event()
        self.is_second_in = threading.Event()

    def append(self, items):
        (self.is_second_in if self.is_first_in.is_set() else self.is_first_in).set()
        assert self.gate.wait(TIMEOUT)
        super().append(items)


def test_two_threads_never_record_the_same_choice_at_once():
    ledger = Slow()
    bench = Bench(ledger)
    bench.record(make_act(DENIED))
    threads = [threading.Thread(target=bench.recorder.settle) for _ in range(2)]

    threads[0].start()
    assert ledger.is_first_in.wait(TIMEOUT)
    threads[1].start()
    is_second_in = ledger.is_second_in.wait(0.05)
    ledger.gate.set()
    for thread in threads:
        thread.join(TIMEOUT)

    assert not is_second_in
    assert bench.counted("recorded") == 1


# --- a ledger that fails --------------------------------------------------------------------------


def test_a_ledger_that_fails_loses_no_choice_and_goes_on_when_it_answers():
    bench = Bench()
    bench.fail()
    bench.record(make_act(DENIED), LINK)

    pause = bench.recorder.step()
    bench.record(make_act(GRANTED, NOW + 1))
    bench.mend()
    bench.clock.advance(pause)

    assert bench.recorder.step() is None
    assert bench.ledger.items == [make_act(DENIED), LINK, make_act(GRANTED, NOW + 1)]


def test_each_failure_in_a_row_doubles_the_pause_and_a_success_ends_it():
    bench = Bench()
    bench.fail()
    bench.record(make_act(DENIED))
    pauses = []

    for _ in range(3):
        pauses.append(bench.recorder.step())
        bench.clock.advance(pauses[-1])
    bench.mend()
    bench.recorder.step()
    bench.fail()
    bench.record(make_act(GRANTED))
    pauses.append(bench.recorder.step())

    assert pauses == [1, 2, 4, 1]
    assert bench.counted("ledger_failed") == 4


def test_a_ledger_that_failed_is_left_alone_during_the_pause():
    bench = Bench()
    bench.fail()
    bench.record(make_act(DENIED))
    bench.recorder.step()
    calls = list(bench.ledger.calls)
    bench.clock.advance(0.25)

    assert bench.recorder.step() == 0.75
    assert bench.ledger.calls == calls


def test_a_failure_is_told_once_without_secrets_and_so_is_its_end(caplog):
    bench = Bench()
    bench.record(make_act(DENIED))

    for _ in range(2):
        bench.fail()
        bench.recorder.step()
        bench.clock.advance(60)
        bench.recorder.ask(b"user")
        bench.recorder.step()
        bench.clock.advance(60)
        bench.mend()
        bench.recorder.step()
        bench.record(make_act(GRANTED))

    failed = (
        "The consent ledger failed (OSError). Nothing is sent until it answers; choices and "
        "events wait."
    )
    assert caplog.messages == [failed, "The consent ledger answers again."] * 2


# --- what is asked --------------------------------------------------------------------------------


def test_who_is_asked_for_is_answered_also_if_nothing_is_recorded():
    bench = Bench()
    bench.ledger.append([make_act(DENIED)])

    bench.recorder.ask(b"user")
    bench.recorder.ask(b"other")

    assert bench.recorder.step() is None
    assert bench.answers == [{b"user": make_act(DENIED).standing(), b"other": None}]


def test_questions_go_together_up_to_a_bound():
    bench = Bench()

    for act in many(ASK_BATCH + 1):
        bench.recorder.ask(act.key)
    bench.recorder.step()

    assert [len(answers) for answers in bench.answers] == [ASK_BATCH, 1]


def test_a_question_that_the_ledger_did_not_answer_pauses_too():
    bench = Bench()
    bench.fail()
    bench.recorder.ask(b"user")

    assert bench.recorder.step() == 1
    assert bench.answers == []


# --- what may leave -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "device", "tracked_at", "may_leave"),
    [
        pytest.param(b"", b"device", NOW, True, id="nobody-denied"),
        pytest.param(b"denied", b"device", NOW + 5, False, id="the-user-denied"),
        pytest.param(b"", b"denied", NOW + 5, False, id="the-device-denied"),
        pytest.param(b"back", b"device", NOW, False, id="before-a-new-grant"),
        pytest.param(b"back", b"device", NOW + 2, True, id="after-a-new-grant"),
    ],
)
def test_both_the_user_and_the_device_must_allow_it(user, device, tracked_at, may_leave):
    bench = Bench()
    bench.ledger.append([make_act(DENIED, key=key) for key in (b"denied", b"back")])
    bench.ledger.append([make_act(GRANTED, NOW + 1, b"back")])
    entries = [make_entry("a", user=user, device=device, at=tracked_at), make_entry("b")]

    assert bench.recorder.screen(entries) == [may_leave, True]


def test_what_was_chosen_before_is_recorded_before_the_ledger_is_asked():
    bench = Bench()
    bench.record(make_act(DENIED, key=b"device"))

    assert bench.recorder.screen([make_entry("a")]) == [False]


def test_nothing_may_leave_while_a_choice_cannot_be_recorded():
    bench = Bench()
    bench.record(make_act(DENIED, key=b"other"))
    bench.fail()

    with pytest.raises(Unavailable) as caught:
        bench.recorder.screen([make_entry("a")])

    assert not caught.value.is_sent
    assert SECRET not in str(caught.value)
    assert bench.recorder.waiting() == 1
    assert bench.ledger.calls == []


# --- the thread -----------------------------------------------------------------------------------


def test_the_thread_records_what_comes_and_what_is_left_and_closes_the_ledger():
    bench = Bench()
    told, stopping = threading.Event(), threading.Event()
    bench.recorder._on_answers = lambda _: told.set()
    thread = threading.Thread(target=bench.recorder.run, args=(stopping,), daemon=True)
    thread.start()

    bench.record(make_act(DENIED))
    assert told.wait(TIMEOUT)
    stopping.set()
    bench.record(make_act(GRANTED, NOW + 1))
    thread.join(TIMEOUT)

    assert not thread.is_alive()
    assert bench.ledger.items == [make_act(DENIED), make_act(GRANTED, NOW + 1)]
    assert bench.ledger.calls[-1] == "close"


def test_a_ledger_that_cannot_be_closed_ends_the_thread_quietly(caplog):
    bench = Bench()
    bench.fail()
    stopping = threading.Event()
    stopping.set()

    bench.recorder.run(stopping)

    assert bench.ledger.calls == ["close"]
    assert len(caplog.messages) == 1
    assert SECRET not in caplog.text


def test_a_question_wakes_the_thread():
    bench = Bench()
    told, stopping = threading.Event(), threading.Event()
    bench.recorder._on_answers = lambda _: told.set()
    thread = threading.Thread(target=bench.recorder.run, args=(stopping,), daemon=True)
    thread.start()

    bench.recorder.ask(b"user")

    assert told.wait(TIMEOUT)
    stopping.set()
    bench.recorder.wake.set()
    thread.join(TIMEOUT)


# --- an item that cannot be kept ------------------------------------------------------------------


class Choosy(MemoryLedger):
    """A ledger that fails on notices: as a bug of ours, or as a database that is gone."""

    def append(self, items):
        if any(item.notice is not None for item in items):
            raise AttributeError("notice")
        super().append(items)


@pytest.mark.parametrize(
    ("state", "kept"), [(DENIED, True), (GRANTED, False)], ids=["denial", "grant"]
)
def test_one_item_that_cannot_be_kept_stops_no_other(state, kept):
    bench = Bench(Choosy())
    poison = make_act(state, key=b"bad", notice=Notice("en", "text"))
    bench.record(make_act(GRANTED, key=b"before"), poison, make_act(DENIED, key=b"after"))

    bench.recorder.settle()

    keys = [act.key for act in bench.ledger.acts]
    assert keys == [b"before", b"bad", b"after"] if kept else [b"before", b"after"]
    assert bench.counted("unrecorded") == (0 if kept else 1)
    assert bench.recorder.waiting() == 0


def test_a_flush_waits_for_the_thread_and_no_longer_than_it_may():
    bench = Bench()
    bench.record(make_act(GRANTED))
    early = bench.recorder.flush(0.0)
    stopping = threading.Event()
    thread = threading.Thread(target=bench.recorder.run, args=(stopping,))
    thread.start()

    late = bench.recorder.flush(TIMEOUT)
    stopping.set()
    bench.recorder.wake.set()
    thread.join(TIMEOUT)

    assert (early, late) == (False, True)


def test_a_ledger_is_opened_once_and_again_until_it_is():
    bench = Bench()
    bench.fail()
    bench.record(make_act(GRANTED))
    with pytest.raises(Unavailable):
        bench.recorder.settle()
    bench.mend()

    bench.recorder.settle()

    assert len(bench.ledger.acts) == 1
