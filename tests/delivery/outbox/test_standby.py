"""Fail the primary at every call in turn, as SQLite's own tests fail memory and disk, and look for
what is lost, doubled or sent under a stop.
"""

import logging
from collections import Counter
from contextlib import nullcontext, suppress
from itertools import chain

import pytest

from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.outbox import standby
from mp_asgi.delivery.outbox.base import Backlog, Outbox, PutResult, Refusal, Ticket
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.outbox.standby import FIRST_RESERVE_ID, Standby
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Endpoint
from mp_asgi.settings import Settings
from tests.delivery.outbox.contract import (
    OutboxContract,
    imbalance,
    make_alias,
    names,
    take,
)
from tests.support import NOW, FakeClock, make_entry, make_settings

PEOPLE = Endpoint.PEOPLE
CALLS = [
    "put",
    "backlog",
    "lease",
    "ack",
    "drop",
    "release",
    "split",
    "bury",
    "forget",
    "erase",
    "dead",
    "replay",
    "purge",
    "expire",
    "tally",
    "horizon",
    "is_past",
    "stats",
    "close",
]


class Fragile(MemoryOutbox):
    """A storage that fails whenever it is told to, and then has done nothing.

    Attributes:
        is_failing: Whether calls fail.
        failing: Numbers of calls that fail besides, from 0.
        unwritable: Names of calls that fail besides.
        calls: Names of the calls, those that failed included.
    """

    is_shared = True
    is_durable = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.is_failing = False
        self.failing = range(0)
        self.unwritable: set[str] = set()
        self.calls: list[str] = []


def _make_call(name):
    def call(self, *arguments, **options):
        number = len(self.calls)
        self.calls.append(name)
        if self.is_failing or number in self.failing or name in self.unwritable:
            raise OutboxUnavailable("/state/outbox.sqlite3 cannot be used: disk is full.")
        return getattr(MemoryOutbox, name)(self, *arguments, **options)

    return call


for _name in CALLS:
    setattr(Fragile, _name, _make_call(_name))


class House:
    """A standby with both of its outboxes, and a visitor's way through them."""

    def __init__(self, **settings) -> None:
        settings = make_settings(outbox_max_age=86_400.0, retry_budget=3600.0, **settings)
        self.clock = FakeClock()
        self.counters = Counters()
        self.primary = Fragile(settings)
        self.reserve = MemoryOutbox(settings)
        self.outbox = Standby(
            self.primary, self.reserve, self.counters, clock=self.clock, random=lambda: 0.0
        )
        self.sent = Counter()
        self.stops = []

    def fail(self) -> None:
        self.primary.is_failing = True

    def heal(self) -> None:
        self.primary.is_failing = False
        self.primary.failing = range(0)
        self.clock.advance(60.0)

    def take(self, endpoint=Endpoint.EVENTS, **limits):
        return take(self.outbox, self.clock(), endpoint, **limits)

    def send(self, endpoint=Endpoint.EVENTS, **limits):
        """Lease and say what left, as a sender does; the caller settles it."""
        leased = self.take(endpoint, **limits)
        for item in leased:
            entry = item.entry
            keys = {entry.device_key, entry.user_key}
            assert not any(entry.tracked_at <= at and keys & stopped for stopped, at in self.stops)
            self.sent.update(message.name for message in entry.messages)
        return [item.id for item in leased]

    def stop(self, *keys, call="forget"):
        self.stops.append((set(keys), self.clock()))
        with suppress(OutboxUnavailable) if call == "erase" else nullcontext():
            getattr(self.outbox, call)(keys, self.clock(), self.clock())

    def put(self, *names, **fields):
        fields = {"at": self.clock(), **fields}
        return self.outbox.put([make_entry(*names, **fields)], self.clock())

    def drain(self):
        while leased := [*chain.from_iterable(map(self.send, Endpoint))]:
            self.outbox.ack(leased)


@pytest.fixture
def house():
    return House()


class TestStandby(OutboxContract):
    def make(self, settings: Settings) -> Outbox:
        return Standby(Fragile(settings), MemoryOutbox(settings), Counters())


class TestStandbyThatFails(OutboxContract):
    """All of it holds in the reserve, too, save what a ticket brings and what is counted."""

    @pytest.fixture(autouse=True)
    def ids_of_the_reserve_are_those_of_the_contract(self, monkeypatch):
        monkeypatch.setattr(standby, "FIRST_RESERVE_ID", 0)

    def make(self, settings: Settings) -> Outbox:
        primary = Fragile(settings)
        primary.is_failing = True
        return Forgiving(primary, MemoryOutbox(settings), Counters())


class Forgiving(Standby):
    """One that takes tickets, whose erasures raise nothing, and whose failures are not counted."""

    def put(self, entries, now, ticket=None):
        if ticket is None:
            return super().put(entries, now)
        return self._reserve.put(entries, now, ticket)

    def erase(self, keys, at, now):
        return self._stop(lambda outbox: outbox.erase(keys, at, now))

    def stats(self):
        stats = super().stats()
        stats.totals.pop(("outbox_failed", ""), None)
        return stats


# --- each call, while the primary fails -----------------------------------------------------------


def test_what_is_put_waits_in_the_reserve_and_is_sent_from_there(house):
    house.fail()

    result = house.put("a", "b")

    assert result == PutResult(2, 0, 0)
    assert house.outbox.backlog(Endpoint.EVENTS, NOW).messages == 2
    (leased,) = house.take()
    assert leased.id >= FIRST_RESERVE_ID
    assert house.outbox.ack([leased.id]) == 2
    assert house.outbox.stats().depth == 0


@pytest.mark.parametrize("settle", ["release", "split", "drop", "bury"])
def test_what_was_leased_from_the_reserve_is_settled_there(house, settle):
    house.fail()
    house.put("a", "b")
    (leased,) = house.take()

    expected = [["a", "b"]]
    if settle == "release":
        house.outbox.release([leased.id], NOW)
    elif settle == "split":
        house.outbox.split(leased.id)
        expected = [["a"], ["b"]]
    elif settle == "drop":
        assert house.outbox.drop([leased.id], "withdrawn") == 2
        expected = []
    else:
        assert house.outbox.bury(leased.id, [Refusal(0, "rejected", "")], NOW)
        expected = []

    assert names(house.take()) == expected


@pytest.mark.parametrize("settle", ["ack", "drop", "bury"])
def test_the_fate_of_what_the_primary_leased_is_owed_to_it(house, settle):
    house.put("a")
    (leased,) = house.take()
    house.fail()

    if settle == "ack":
        assert house.outbox.ack([leased.id]) == 0
    elif settle == "drop":
        assert house.outbox.drop([leased.id], "withdrawn") == 0
    else:
        assert house.outbox.bury(leased.id, [Refusal(0, "rejected", "")], NOW)

    assert house.outbox.stats().depth == 0
    house.heal()
    assert house.take() == []
    totals = house.outbox.stats().totals
    label = {"ack": ("delivered", ""), "drop": ("dropped", "withdrawn")}
    assert totals[label.get(settle, ("buried", "rejected"))] == 1
    assert house.primary.stats().depth == 0


@pytest.mark.parametrize("call", ["release", "split"])
def test_what_cannot_be_given_back_returns_when_its_lease_ends(house, call):
    house.put("a", "b")
    (leased,) = house.take(seconds=90)
    house.fail()

    house.outbox.split(leased.id) if call == "split" else house.outbox.release([leased.id], NOW)
    house.heal()

    assert house.take() == []
    house.clock.advance(90)
    (again,) = house.take()
    assert again.is_overdue


def test_a_stop_that_is_owed_leaves_what_came_after_it(house):
    house.fail()
    house.outbox.forget([b"device"], house.clock(), house.clock())
    house.clock.advance(5)
    since = make_entry("since", at=house.clock())
    MemoryOutbox.put(house.primary, [since], house.clock())  # by another process

    house.heal()

    assert names(house.take()) == [["since"]]


@pytest.mark.parametrize("call", ["forget", "erase"])
def test_a_stop_that_the_primary_could_not_take_comes_before_everything_else(house, call):
    house.put("a")
    house.fail()
    house.stop(b"device", call=call)
    house.put("later", device=b"x")

    house.heal()

    assert names(house.take()) == [["later"]]
    # Not a word of what came later before the stop.
    first = house.primary.calls.index(call, house.primary.calls.index(call) + 1)
    assert house.primary.calls[first:][:2] == [call, "put"]


def test_an_erasure_that_the_primary_could_not_take_is_not_said_to_be_done(house):
    house.put("kept")
    house.fail()
    house.put("held")

    with pytest.raises(OutboxUnavailable, match="disk is full"):
        house.outbox.erase([b"device"], NOW, NOW)

    assert house.counters.snapshot().dropped == {"erased": 1}
    house.heal()
    assert house.take() == []
    assert house.outbox.erase([b"device"], NOW, NOW) == 0


def test_what_only_memory_holds_is_told(house):
    house.put("kept")
    house.outbox.stats()
    before = (house.outbox.held(), house.outbox.owed_stops())
    house.fail()
    house.put("held", device=b"x")
    house.stop(b"device")
    house.stop(b"y", call="erase")

    held, stops = house.outbox.held(), house.outbox.owed_stops()
    house.heal()
    house.outbox.stats()

    assert before == (house.outbox.held(), house.outbox.owed_stops())
    assert (held.depth, stops) == (1, 2)
    assert held.totals == {("accepted", ""): 1, ("outbox_failed", ""): 1}


def test_what_another_process_stopped_does_not_leave_from_the_reserve(house, monkeypatch):
    monkeypatch.setattr(standby, "MAX_MOVES", 1)
    monkeypatch.setattr(standby, "MAX_BATCH_MESSAGES", 1)
    house.fail()
    for _ in range(20):
        house.put("add", endpoint=PEOPLE, is_repeatable=False)
    house.heal()
    house.primary.forget([b"device"], house.clock(), house.clock())

    assert house.take(PEOPLE) == []
    assert house.reserve.stats().depth > 0
    for _ in range(20):
        assert house.take(PEOPLE) == []

    assert house.outbox.stats().totals["dropped", "stopped"] == 20
    assert house.outbox.is_durable


def test_what_may_have_been_sent_and_may_be_sent_again_moves(house):
    house.fail()
    house.put("a")
    house.take(seconds=60)
    house.heal()

    assert house.take() == []
    assert names(house.take()) == [["a"]]
    assert house.reserve.stats().depth == 0


def test_a_stop_removes_what_waits_in_the_reserve(house):
    house.fail()
    house.put("a", "b")

    assert house.outbox.forget([b"device"], NOW, NOW) == 2
    assert house.take() == []


def test_a_stop_of_before_the_outage_holds_in_the_reserve(house):
    house.stop(b"device")
    house.fail()

    assert house.put("late", at=NOW).stopped == 1


def test_more_stops_than_can_be_kept_are_refused_aloud(house, monkeypatch):
    monkeypatch.setattr(standby, "MAX_OWED", 1)
    house.fail()
    house.outbox.forget([b"one"], NOW, NOW)

    with pytest.raises(OutboxUnavailable, match=r"disk is full\. More than 1 calls wait"):
        house.outbox.forget([b"two"], NOW, NOW)


def test_dead_letters_of_both_are_told_apart(house):
    house.put("kept")
    house.outbox.bury(house.send()[0], [Refusal(0, "rejected", "")], NOW)
    house.fail()
    house.put("held")
    house.outbox.bury(house.send()[0], [Refusal(0, "rejected", "")], NOW)
    in_outage = house.outbox.dead()
    house.heal()

    kept, held = house.outbox.dead()

    assert [letter.message.name for letter in in_outage] == ["held"]
    assert [letter.message.name for letter in (kept, held)] == ["kept", "held"]
    assert house.outbox.dead(after=kept.id) == house.outbox.dead(limit=2)[1:] == (held,)
    assert house.outbox.dead(limit=1) == (kept,)
    assert house.outbox.purge([kept.id]) == 1
    assert house.outbox.replay([held.id], NOW) == 1
    assert house.outbox.stats().dead == 0
    assert names(take(house.primary)) == [["held"]]
    assert imbalance(house.primary) == imbalance(house.outbox) == 0


@pytest.mark.parametrize("call", ["replay", "purge"])
def test_dead_letters_that_cannot_be_reached_are_not_said_to_be_done(house, call):
    house.fail()

    with pytest.raises(OutboxUnavailable, match="disk is full"):
        house.outbox.replay([1], NOW) if call == "replay" else house.outbox.purge([1])


def test_what_is_too_old_is_given_up_in_both(house):
    house.put("kept")
    assert house.outbox.expire(NOW + 86_401) == 1
    house.fail()
    house.put("held")

    assert house.outbox.expire(NOW + 86_401) == 1


def test_a_ticket_is_refused_while_the_primary_fails_and_taken_once_after(house):
    house.fail()
    with pytest.raises(OutboxUnavailable, match="disk is full"):
        house.outbox.put([make_entry("a")], NOW, Ticket("journal", 1))
    house.heal()

    for _ in range(2):
        house.outbox.put([make_entry("a")], NOW, Ticket("journal", 1))

    assert names(house.take()) == [["a"]]


# --- what others are told -------------------------------------------------------------------------


def test_it_is_durable_only_while_the_primary_answers(house):
    before = house.outbox.is_durable
    house.fail()
    house.put("a")
    during = house.outbox.is_durable
    house.heal()
    house.take()

    assert house.outbox.is_shared
    assert (before, during, house.outbox.is_durable) == (True, False, True)


def test_each_outage_is_logged_once_and_each_failure_counted(house, caplog):
    for _ in range(2):
        house.fail()
        for _ in range(3):
            house.put("a")
            house.clock.advance(60)
        house.heal()
        house.take()

    texts = [record.getMessage() for record in caplog.records]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING] * 2
    assert "/state/outbox.sqlite3 cannot be used: disk is full. It is tried again." in texts[0]
    for text in (texts[1], texts[3]):
        assert "works again and has everything that still waited (failures: 3)" in text
    assert house.outbox.stats().totals["outbox_failed", ""] == 6
    assert house.counters.snapshot().other == {"outbox_failed": 6}
    assert house.counters.join(dict)[1] == {}


def test_a_primary_that_fails_is_left_alone_for_a_while(house):
    house.fail()
    house.put("a")
    calls = len(house.primary.calls)

    house.put("b")
    assert len(house.primary.calls) == calls
    house.clock.advance(0.5)
    house.put("c")
    assert len(house.primary.calls) == calls + 1


def test_a_disk_that_can_only_be_read_does_not_pass_for_repaired(house, caplog):
    house.put("a")
    house.primary.unwritable = {"lease", "tally"}

    for _ in range(3):
        house.take()
        house.clock.advance(60)

    assert house.outbox.backlog(Endpoint.EVENTS, NOW).messages == 0
    assert not house.outbox.is_durable
    assert len(caplog.records) == 1


def test_stats_are_those_of_both_and_never_fall_in_an_outage(house):
    house.put("kept")
    before = house.outbox.stats()
    house.fail()
    house.clock.advance(5)
    house.put("held", "too")
    house.take()

    during = house.outbox.stats()

    assert before.depth == 1
    assert (during.depth, during.leased, during.oldest_put_at) == (3, 2, NOW)
    assert during.totals["accepted", ""] == 3
    assert imbalance(house.outbox) == 0


def test_what_was_counted_elsewhere_arrives_when_the_primary_works_again(house):
    house.fail()
    house.outbox.tally({("refused", "no-choice"): 2})
    house.outbox.tally({("refused", "no-choice"): 1})
    house.heal()

    house.outbox.stats()

    assert house.primary.stats().totals["refused", "no-choice"] == 3
    assert house.reserve.stats().totals == {}


# --- when the primary works again -----------------------------------------------------------------


def test_what_waits_in_the_reserve_moves_in_its_order(house):
    house.fail()
    alias = make_alias(at=NOW)
    house.outbox.put([alias, make_entry("a", user=b"user"), make_entry("b")], NOW)
    house.put("set", endpoint=PEOPLE)
    house.put("add", endpoint=PEOPLE, is_repeatable=False)
    house.heal()

    house.put("c")

    assert house.reserve.stats().depth == 0
    assert names(house.take()) == [["b"], ["c"]]
    assert names(house.take(PEOPLE)) == [["set"]]
    house.outbox.ack([item.id for item in house.take(Endpoint.ALIASES)])
    assert names(house.take()) == [["a"]]
    assert house.primary.stats().totals["accepted", ""] == 6
    assert house.reserve.stats().totals == {}


def test_what_is_on_its_way_is_waited_for_so_that_order_holds(house):
    house.fail()
    house.put("first", endpoint=PEOPLE)
    (leased,) = house.take(PEOPLE, seconds=90)
    house.heal()

    house.put("second", endpoint=PEOPLE)
    assert house.take(PEOPLE) == []
    assert not house.outbox.is_durable
    house.outbox.release([leased.id], house.clock())

    assert names(house.take(PEOPLE)) == [["first"], ["second"]]
    assert house.outbox.is_durable


def test_a_lease_on_the_reserve_that_ran_out_is_told_as_such(house):
    house.fail()
    house.put("add", is_repeatable=False)
    house.take(seconds=60)
    house.heal()

    backlog = house.outbox.backlog(Endpoint.EVENTS, house.clock())
    (leased,) = house.take()

    assert backlog.messages == 1
    assert leased.is_overdue


def test_what_has_a_ticket_waits_for_nothing_in_memory(house):
    house.fail()
    house.put("a")
    house.take(seconds=90)
    house.heal()

    house.outbox.put([make_entry("b")], NOW, Ticket("journal", 1))

    assert names(take(house.primary)) == [["b"]]


def test_what_is_in_the_primary_meets_no_newer_profile_update_before_it(house):
    house.put("older", endpoint=PEOPLE)
    house.fail()
    house.put("newer", endpoint=PEOPLE)
    house.heal()

    assert names(house.take(PEOPLE)) == [["older"], ["newer"]]


def test_a_long_outage_is_handed_over_in_parts(house, monkeypatch):
    monkeypatch.setattr(standby, "MAX_MOVES", 2)
    monkeypatch.setattr(standby, "MAX_BATCH_MESSAGES", 1)
    house.fail()
    for number in range(5):
        house.put(f"add{number}", endpoint=PEOPLE, is_repeatable=False)
    house.heal()

    depths = []
    for _ in range(3):
        house.outbox.horizon()
        depths.append(house.reserve.stats().depth)

    assert depths == [3, 1, 0]
    house.drain()
    assert house.sent == {f"add{number}": 1 for number in range(5)}


def test_what_finds_no_room_when_it_moves_is_counted():
    house = House(outbox_max_messages=2)
    house.put("a", "b")
    house.fail()
    house.put("c")
    house.heal()

    house.take()

    assert house.outbox.stats().totals["dropped", "overflow"] == 1
    assert house.counters.snapshot().dropped == {"overflow": 1}
    assert imbalance(house.primary) == 0


def test_a_stop_of_another_process_holds_for_what_moves(house):
    house.fail()
    house.put("a")
    house.heal()
    house.primary.forget([b"device"], NOW, NOW)

    assert house.take() == []
    assert house.counters.snapshot().dropped == {"stopped": 1}


def test_closing_hands_over_what_is_owed_though_a_pause_goes_on(house):
    house.fail()
    house.put("a")
    house.primary.is_failing = False

    house.outbox.close()

    assert house.primary.stats().depth == 1
    assert house.primary.calls.count("close") == 1
    assert house.outbox.is_durable


def test_closing_hands_over_what_stands_behind_something_on_its_way(house):
    house.fail()
    house.put("sent")
    house.take(seconds=90)
    house.put("left")
    house.heal()

    house.outbox.close()

    assert names(take(house.primary)) == [["left"]]


def test_closing_hands_over_nothing_that_may_have_been_sent(house):
    house.fail()
    house.put("add", is_repeatable=False)
    house.take(seconds=60)
    house.heal()

    house.outbox.close()

    assert house.primary.stats().depth == 0


def test_a_horizon_follows_what_moved_just_before_the_primary_failed_again(house):
    house.fail()
    house.put("a")
    horizon = house.outbox.horizon()
    house.heal()
    house.primary.unwritable = {"horizon"}
    house.put("b", endpoint=PEOPLE)
    house.take(PEOPLE, seconds=90)
    house.heal()
    house.primary.unwritable = set()

    assert not house.outbox.is_past(horizon)


def test_closing_a_primary_that_fails_raises_nothing(house):
    house.fail()

    house.outbox.close()

    assert "close" in house.primary.calls


# --- horizons -------------------------------------------------------------------------------------


def test_a_horizon_follows_what_moves(house):
    house.fail()
    house.put("a")
    horizon = house.outbox.horizon()
    house.heal()

    assert not house.outbox.is_past(horizon)
    ids = house.send()
    assert not house.outbox.is_past(horizon)
    house.outbox.ack(ids)
    assert house.outbox.is_past(horizon)


def test_a_horizon_is_past_in_an_outage_when_the_reserve_is_empty(house):
    house.fail()
    house.put("a")
    horizon = house.outbox.horizon()
    assert not house.outbox.is_past(horizon)

    house.outbox.ack(house.send())

    assert house.outbox.is_past(horizon)
    house.heal()
    assert house.outbox.is_past(horizon)


def test_a_horizon_is_not_past_while_what_it_is_about_cannot_be_seen(house):
    house.put("a")
    horizon = house.outbox.horizon()
    house.fail()

    assert not house.outbox.is_past(horizon)


def test_what_is_known_to_wait_in_a_primary_that_fails_is_waited_for(house):
    house.put("a")
    house.outbox.stats()
    house.fail()
    horizon = house.outbox.horizon()

    assert not house.outbox.is_past(horizon)
    house.heal()
    assert not house.outbox.is_past(horizon)
    house.outbox.ack(house.send())
    house.outbox.stats()
    assert house.outbox.is_past(horizon)


# --- every call in turn ---------------------------------------------------------------------------


def live(house):
    """Let visitors come and go; answer the names of those messages that may never leave."""
    outbox, clock = house.outbox, house.clock
    house.put("a1", "a2", device=b"a")
    house.put("b1", device=b"b")
    house.put("set1", endpoint=PEOPLE)
    house.stop(b"b")
    clock.advance(1)
    outbox.put([make_alias("alias", device=b"c", at=clock())], clock())
    house.put("c1", device=b"c", user=b"user")
    outbox.ack(house.send(max_messages=1))
    house.put("set2", endpoint=PEOPLE)
    house.put("add", endpoint=PEOPLE, is_repeatable=False)
    outbox.tally({("retried", ""): 1})
    people = house.send(PEOPLE)
    house.put("e1", device=b"e")
    house.stop(b"e", call="erase")
    outbox.ack(people)
    clock.advance(1)
    outbox.ack(house.send(Endpoint.ALIASES))
    house.put("f1", "f2", device=b"f")
    house.stop(b"f")
    house.put("late", device=b"b", at=NOW)
    clock.advance(1)
    house.put("b2", device=b"b")
    outbox.stats()
    outbox.ack(house.send())
    outbox.expire(clock())
    outbox.horizon()
    outbox.ack(house.send(PEOPLE))
    return {"b1", "e1", "f1", "f2", "late"}


CALLS_OF_A_LIFE = 45  # more than there are: a test below counts them


@pytest.mark.parametrize("length", [1, 2, 5, 1000], ids=["once", "twice", "five-times", "for-ever"])
@pytest.mark.parametrize("first", range(CALLS_OF_A_LIFE))
def test_nothing_is_lost_doubled_or_sent_under_a_stop(first, length):
    house = House()
    house.primary.failing = range(first, first + length)

    stopped = live(house)
    house.heal()
    house.drain()

    expected = {"a1", "a2", "set1", "set2", "add", "alias", "c1", "b2"}
    assert {name: count for name, count in house.sent.items() if name not in stopped} == (
        dict.fromkeys(expected, 1)
    )
    stats = house.outbox.stats()
    assert (stats.depth, stats.leased) == (0, 0)
    assert stats.totals["accepted", ""] == 13
    assert (
        stats.totals["delivered", ""]
        + sum(number for (name, _), number in stats.totals.items() if name == "dropped")
        == 13
    )
    assert stats.totals == house.primary.stats().totals
    assert house.outbox.is_durable


def test_a_life_has_fewer_calls_than_are_tried():
    house = House()

    live(house)

    assert len(house.primary.calls) < CALLS_OF_A_LIFE
    assert house.sent["b1"] == house.sent["late"] == 0


def test_an_outbox_that_says_nothing_of_its_backlog_has_none(house):
    house.fail()

    assert house.outbox.backlog(Endpoint.EVENTS, NOW) == Backlog(0, 0, NOW)
