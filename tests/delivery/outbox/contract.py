"""The contract of every outbox, as one test class. Subclasses say how to make theirs."""

import sys
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mp_asgi.delivery.outbox import memory as memory_module
from mp_asgi.delivery.outbox import redis as redis_module
from mp_asgi.delivery.outbox import sqlite as sqlite_module
from mp_asgi.delivery.outbox.base import (
    KEEPS_ORDER,
    MAX_UNREPEATABLE,
    Backlog,
    Counts,
    DeadLetter,
    Leased,
    Outbox,
    PutResult,
    Refusal,
    Ticket,
)
from mp_asgi.events import Endpoint, Entry, Message
from mp_asgi.settings import Settings
from tests.support import NOW, TIMEOUT, make_entry, make_settings

EVENTS, ALIASES = Endpoint.EVENTS, Endpoint.ALIASES
AWAITING = pytest.mark.parametrize("endpoint", [EVENTS, Endpoint.PEOPLE], ids=["event", "profile"])


def names(leased: list[Leased]) -> list[list[str]]:
    return [[message.name for message in item.entry.messages] for item in leased]


def take(
    outbox: Outbox, now: float = NOW, endpoint: Endpoint = EVENTS, **limits: Any
) -> list[Leased]:
    limits = {"max_messages": 2000, "max_bytes": 1_000_000, "seconds": 60.0, **limits}
    return outbox.lease(endpoint, now, **limits)


def find_ids(outbox: Outbox, endpoint: Endpoint = EVENTS) -> list[int]:
    """Answer the ids of what is ready, and leave it ready."""
    ids = [item.id for item in take(outbox, endpoint=endpoint)]
    outbox.release(ids, NOW)
    return ids


def make_alias(*names: str, user: bytes = b"user", **fields: Any) -> Entry:
    names = names or ("alias",)
    return make_entry(*names, endpoint=ALIASES, user=user, is_identity=True, **fields)


def bury_all(outbox: Outbox, *entries: Entry, at: float = NOW) -> Sequence[DeadLetter]:
    """Make each message a dead letter; answer all letters that there are."""
    for entry in entries:
        outbox.put([entry], at)
        (leased,) = take(outbox, at, entry.endpoint)
        refusals = [Refusal(index, "rejected", "no") for index in range(len(entry.messages))]
        outbox.bury(leased.id, refusals, at)
    return outbox.dead()


def historical() -> Ticket:
    """Answer a ticket that no other put has, of somebody who answers for old entries."""
    return Ticket(uuid.uuid4().hex, 1, is_historical=True)


def ids_of(letters: Sequence[DeadLetter]) -> list[int]:
    return [letter.id for letter in letters]


def buried_names(outbox: Outbox) -> list[str]:
    return [letter.message.name for letter in outbox.dead()]


def imbalance(outbox: Outbox) -> int:
    """Answer how many messages the totals do not account for."""
    stats = outbox.stats()
    summed: dict[str, int] = {}
    for (name, _), number in stats.totals.items():
        summed[name] = summed.get(name, 0) + number
    came = summed.get("accepted", 0) + summed.get("replayed", 0)
    went = sum(summed.get(name, 0) for name in ("delivered", "buried", "dropped"))
    return came - went - stats.depth


class OutboxContract(ABC):
    """What every outbox promises. A subclass says how to make an empty one."""

    @abstractmethod
    def make(self, settings: Settings) -> Outbox: ...

    @pytest.fixture(autouse=True)
    def made(self) -> Iterator[list[Outbox]]:
        """Close what a test opened, once its books are found to balance."""
        self._made: list[Outbox] = []
        yield self._made
        missing = [imbalance(outbox) for outbox in self._made]
        for outbox in self._made:
            outbox.close()
        assert missing == [0] * len(missing)

    def open(self, **overrides: Any) -> Outbox:
        outbox = self.make(make_settings(**overrides))
        self._made.append(outbox)
        return outbox

    def bound(self, monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
        """Let it keep so few of something; who is none of ours says how."""
        for module in (memory_module, redis_module, sqlite_module):
            monkeypatch.setattr(module, name, number)

    @pytest.fixture
    def often_interrupted(self) -> Iterator[None]:
        """Let threads take turns in the middle of things, so that a lock that is missing shows."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        yield
        sys.setswitchinterval(before)

    @pytest.fixture
    def outbox(self, made: list[Outbox]) -> Outbox:
        return self.open(retry_budget=3600.0, outbox_max_age=86_400.0)

    def test_entries_come_back_in_the_order_they_were_put(self, outbox):
        result = outbox.put([make_entry("a"), make_entry("b", "c")], NOW)
        outbox.put([make_entry("d")], NOW)

        assert (result.stored, result.stopped, result.overflowed) == (3, 0, 0)
        assert names(take(outbox)) == [["a"], ["b", "c"], ["d"]]

    def test_an_endpoint_gives_only_its_own_entries(self, outbox):
        outbox.put([make_entry("a"), make_entry("set", endpoint=Endpoint.PEOPLE)], NOW)

        assert names(take(outbox, endpoint=Endpoint.PEOPLE)) == [["set"]]
        assert take(outbox, endpoint=Endpoint.GROUPS) == []

    @pytest.mark.parametrize(
        ("limits", "expected"),
        [
            pytest.param({"max_messages": 3}, [["a", "b"], ["c"]], id="messages-exactly"),
            pytest.param({"max_messages": 2}, [["a", "b"]], id="messages"),
            pytest.param({"max_messages": 1}, [["a", "b"]], id="at-least-one"),
            pytest.param({"max_bytes": 303}, [["a", "b"], ["c"]], id="bytes-exactly"),
            pytest.param({"max_bytes": 302}, [["a", "b"]], id="bytes"),
            pytest.param({"max_bytes": 1}, [["a", "b"]], id="at-least-one-by-bytes"),
        ],
    )
    def test_a_lease_takes_whole_entries_within_its_limits(self, outbox, limits, expected):
        outbox.put([make_entry("a", "b", size_bytes=100), make_entry("c", size_bytes=100)], NOW)

        assert names(take(outbox, **limits)) == expected

    def test_what_is_not_repeatable_is_leased_without_what_is(self, outbox):
        add, append = (make_entry(name, is_repeatable=False) for name in ("add", "append"))
        outbox.put([make_entry("a"), add, append, make_entry("b")], NOW)

        taken = []
        for _ in range(3):
            leased = take(outbox)
            taken.append(names(leased))
            outbox.ack([item.id for item in leased])

        assert taken == [[["a"]], [["add"], ["append"]], [["b"]]]

    def test_a_lease_of_what_is_not_repeatable_is_small(self, outbox):
        many = [make_entry(f"add{number}", is_repeatable=False) for number in range(60)]
        outbox.put([make_entry(*"ab", is_repeatable=False), *many], NOW)

        assert [len(take(outbox)), len(take(outbox))] == [MAX_UNREPEATABLE - 1, 12]

    @pytest.mark.parametrize("endpoint", sorted(KEEPS_ORDER, key=str))
    def test_a_leased_entry_holds_back_those_behind_it_where_order_counts(self, outbox, endpoint):
        outbox.put([make_entry("a", endpoint=endpoint), make_entry("b", endpoint=endpoint)], NOW)
        take(outbox, endpoint=endpoint, max_messages=1)

        assert take(outbox, endpoint=endpoint) == []
        assert outbox.backlog(endpoint, NOW).messages == 0

    def test_several_senders_take_events_side_by_side(self, outbox):
        outbox.put([make_entry(name, size_bytes=100) for name in "abc"], NOW)

        assert names(take(outbox, max_messages=1)) == [["a"]]
        assert outbox.backlog(EVENTS, NOW) == Backlog(2, 202, NOW)
        assert names(take(outbox)) == [["b"], ["c"]]
        assert outbox.backlog(EVENTS, NOW) == Backlog(0, 0, NOW)

    def test_an_expired_lease_returns_in_its_place(self, outbox):
        outbox.put([make_entry("a"), make_entry("b")], NOW)
        take(outbox, max_messages=1, seconds=60)

        assert names(take(outbox, NOW + 59.9)) == [["b"]]
        assert names(take(outbox, NOW + 60)) == [["a"]]

    @AWAITING
    @pytest.mark.parametrize(
        "hold",
        [
            pytest.param(lambda outbox: None, id="ready"),
            pytest.param(lambda outbox: take(outbox, endpoint=ALIASES), id="leased"),
            pytest.param(
                lambda outbox: outbox.release(find_ids(outbox, ALIASES), NOW + 900), id="held-back"
            ),
        ],
    )
    def test_an_alias_that_waits_holds_back_its_user(self, outbox, endpoint, hold):
        outbox.put([make_alias(), make_entry("a", endpoint=endpoint, user=b"user")], NOW)

        hold(outbox)

        assert outbox.backlog(endpoint, NOW + 600).messages == 0
        assert take(outbox, NOW + 600, endpoint=endpoint) == []

    @AWAITING
    @pytest.mark.parametrize(
        "settle",
        [
            pytest.param(lambda outbox, alias: outbox.ack([alias]), id="acked"),
            pytest.param(
                lambda outbox, alias: outbox.bury(alias, [Refusal(0, "rejected", "no")], NOW),
                id="buried",
            ),
            pytest.param(lambda outbox, alias: outbox.drop([alias], "withdrawn"), id="dropped"),
            pytest.param(
                lambda outbox, _: outbox.forget([b"device"], NOW, NOW + 2), id="forgotten"
            ),
            pytest.param(lambda outbox, _: outbox.erase([b"device"], NOW, NOW + 2), id="erased"),
            pytest.param(lambda outbox, _: outbox.expire(NOW + 86_401), id="too-old"),
        ],
    )
    def test_an_alias_that_is_settled_lets_its_user_go(self, outbox, endpoint, settle):
        later = make_entry("a", endpoint=endpoint, user=b"user", at=NOW + 1)
        outbox.put([make_alias()], NOW)
        outbox.put([later], NOW + 2)
        (alias,) = take(outbox, endpoint=ALIASES)

        settle(outbox, alias.id)

        assert outbox.backlog(endpoint, NOW).messages == 1
        assert names(take(outbox, endpoint=endpoint)) == [["a"]]

    def test_what_was_put_before_an_alias_goes_before_it(self, outbox):
        outbox.put([make_entry("a", "b", user=b"user"), make_alias()], NOW)
        outbox.split(find_ids(outbox)[0])

        assert names(take(outbox)) == [["a"], ["b"]]

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"user": b"other"}, id="another-user"),
            pytest.param({"user": b""}, id="same-device-without-a-user"),
            pytest.param({"user": b"user", "endpoint": Endpoint.GROUPS}, id="group"),
        ],
    )
    def test_an_alias_holds_back_nobody_else(self, outbox, fields):
        outbox.put([make_alias(), make_entry("a", **fields)], NOW)

        assert names(take(outbox, endpoint=fields.get("endpoint", EVENTS))) == [["a"]]

    def test_an_alias_of_nobody_holds_back_nobody(self, outbox):
        outbox.put([make_alias(user=b""), make_entry("a")], NOW)

        assert names(take(outbox)) == [["a"]]
        assert outbox.ack(find_ids(outbox, ALIASES)) == 1

    @AWAITING
    def test_who_waits_for_an_alias_lets_the_others_pass(self, outbox, endpoint):
        mine = {"user": b"user", "endpoint": endpoint, "size_bytes": 100}
        theirs = {"endpoint": endpoint, "size_bytes": 100}
        outbox.put([make_alias(), make_entry("a", **mine)], NOW)
        outbox.put([make_entry("b", **theirs), make_entry("c", **mine)], NOW + 1)
        outbox.put([make_entry("d", **theirs)], NOW + 2)

        backlog = outbox.backlog(endpoint, NOW + 3)

        assert (backlog.messages, backlog.size_bytes, backlog.waiting_since) == (2, 202, NOW + 1)
        assert names(take(outbox, NOW + 3, endpoint)) == [["b"], ["d"]]
        assert outbox.stats().depth == 5

    @AWAITING
    def test_who_waited_for_an_alias_goes_in_order_where_they_stood(self, outbox, endpoint):
        mine = {"user": b"user", "endpoint": endpoint}
        outbox.put([make_entry("before", **mine), make_alias(), make_entry("a", **mine)], NOW)
        outbox.put([make_entry("b", endpoint=endpoint), make_entry("c", "d", **mine)], NOW)
        outbox.split(find_ids(outbox, endpoint)[1] + 1)  # c and d, behind b
        outbox.put([make_entry("e", endpoint=endpoint)], NOW)

        outbox.ack([item.id for item in take(outbox, endpoint=ALIASES)])
        outbox.put([make_entry("f", **mine)], NOW)

        taken = take(outbox, endpoint=endpoint)
        assert names(taken) == [["before"], ["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]
        assert [item.id for item in taken] == sorted(item.id for item in taken)

    @pytest.mark.parametrize("is_erased", [False, True], ids=["stop", "erase"])
    def test_who_waits_for_an_alias_can_be_forgotten(self, outbox, is_erased):
        outbox.put([make_alias(), make_entry("a", user=b"user")], NOW)

        assert (outbox.erase if is_erased else outbox.forget)([b"user"], NOW, NOW) == 2
        assert outbox.stats().depth == outbox.stats().behind_aliases == 0

    def test_stats_tell_how_much_waits_behind_aliases(self, outbox):
        people = make_entry("set", endpoint=Endpoint.PEOPLE, user=b"user")
        outbox.put([make_alias(), make_entry("a", "b", user=b"user", at=NOW - 9), people], NOW)
        outbox.put([make_entry("c")], NOW)
        stats = outbox.stats()
        outbox.ack([item.id for item in take(outbox, endpoint=ALIASES)])

        assert (stats.depth, stats.behind_aliases) == (5, 3)
        assert outbox.stats().behind_aliases == 0

    def test_who_waits_for_an_alias_counts_among_what_was_put_before(self, outbox):
        outbox.put([make_alias(), make_entry("a", user=b"user", at=NOW - 9)], NOW)
        horizon = outbox.horizon()
        outbox.ack([item.id for item in take(outbox, endpoint=ALIASES)])

        outbox.put([make_alias("again"), make_entry("b", user=b"user")], NOW + 1)

        assert not outbox.is_past(horizon)
        assert outbox.stats().oldest_put_at == NOW
        outbox.ack([item.id for item in take(outbox)])
        assert outbox.is_past(horizon)

    @pytest.mark.parametrize(
        "settings",
        [{"outbox_max_messages": 2}, {"outbox_max_bytes": 1_000_000}],
        ids=["messages", "bytes"],
    )
    def test_who_waits_for_an_alias_takes_room_like_the_others(self, settings):
        outbox = self.open(**settings)

        outbox.put([make_alias(), make_entry("a", user=b"user", size_bytes=900_000)], NOW)

        assert outbox.put([make_entry("b", size_bytes=200_000)], NOW).overflowed == 1

    def test_a_lease_tells_when_its_entries_were_put(self, outbox):
        outbox.put([make_entry("a", at=NOW - 900)], NOW)
        outbox.put([make_entry("b", "c")], NOW + 1)
        outbox.split(find_ids(outbox)[1])

        assert [item.put_at for item in take(outbox)] == [NOW, NOW + 1, NOW + 1]

    def test_an_alias_lets_nobody_go_whose_device_has_the_key_of_its_user(self, outbox):
        outbox.put([make_alias(user=b"both"), make_alias()], NOW)
        outbox.put([make_entry("a", user=b"user", device=b"both")], NOW)

        outbox.ack(find_ids(outbox, ALIASES)[:1])

        assert take(outbox) == []

    def test_each_of_two_aliases_holds_back_what_came_after_it(self, outbox):
        outbox.put([make_alias(), make_entry("a", user=b"user")], NOW)
        outbox.put([make_alias(), make_entry("b", user=b"user")], NOW)

        first, _ = take(outbox, endpoint=ALIASES)
        while_both_wait = take(outbox)
        outbox.ack([first.id])

        assert while_both_wait == []
        assert names(take(outbox)) == [["a"]]

    def test_both_halves_of_an_alias_hold_back(self, outbox):
        outbox.put([make_alias("one", "two"), make_entry("a", user=b"user")], NOW)
        outbox.split(find_ids(outbox, ALIASES)[0])

        for name in ("one", "two"):
            assert take(outbox) == []
            (half,) = take(outbox, endpoint=ALIASES, max_messages=1)
            assert names([half]) == [[name]]
            outbox.ack([half.id])

        assert names(take(outbox)) == [["a"]]

    def test_an_acked_entry_is_gone_and_counted_once(self, outbox):
        outbox.put([make_entry("a", "b")], NOW)
        ids = [item.id for item in take(outbox)]

        assert outbox.ack(ids) == 2
        assert outbox.ack(ids) == 0
        assert take(outbox, NOW + 1e6) == []
        assert outbox.stats().depth == 0

    def test_a_released_entry_keeps_its_place_and_counts_its_attempts(self, outbox):
        outbox.put([make_entry("a"), make_entry("b")], NOW)
        (first,) = take(outbox, max_messages=1)
        outbox.release([first.id], NOW + 10)

        assert outbox.backlog(EVENTS, NOW + 9).messages == 1
        again = take(outbox, NOW + 10)
        assert names(again) == [["a"], ["b"]]
        assert [item.attempts for item in again] == [1, 0]

    def test_the_halves_of_an_entry_were_tried_as_often(self, outbox):
        outbox.put([make_entry("a", "b")], NOW)
        for number in range(2):
            (leased,) = take(outbox, NOW + number)
            outbox.release([leased.id], NOW + number)

        outbox.split(leased.id)

        assert [item.attempts for item in take(outbox, NOW + 2)] == [2, 2]

    def test_a_split_puts_two_halves_in_the_entrys_place(self, outbox):
        outbox.put([make_entry("a"), make_entry("b", "c", "d"), make_entry("e")], NOW)
        middle = take(outbox)[1]
        outbox.release([item.id for item in take(outbox, NOW + 60)], NOW)

        outbox.split(middle.id)

        assert names(take(outbox)) == [["a"], ["b"], ["c", "d"], ["e"]]
        assert outbox.stats().depth == 5

    def test_the_halves_of_a_leased_entry_are_ready_and_keep_its_flags(self, outbox):
        outbox.put([make_entry("a", "b", is_repeatable=False, user=b"user")], NOW)
        (leased,) = take(outbox)

        outbox.split(leased.id)

        (half, _) = take(outbox)
        assert half.entry == make_entry("a", is_repeatable=False, user=b"user")

    def test_halves_have_ids_of_their_own(self, outbox):
        outbox.put([make_entry("a", "b", "c", "d"), make_entry("e")], NOW)
        outbox.split(take(outbox)[0].id)
        outbox.release([item.id for item in take(outbox, NOW + 60)], NOW)
        outbox.split(take(outbox, max_messages=1)[0].id)

        leased = take(outbox, NOW + 60)
        ids = [item.id for item in leased]
        assert names(leased) == [["a"], ["b"], ["c", "d"], ["e"]]
        assert ids == sorted(set(ids))

    @pytest.mark.parametrize("is_there", [True, False], ids=["single", "gone"])
    def test_what_cannot_be_split_stays_as_it_is(self, outbox, is_there):
        outbox.put([make_entry("a")], NOW)
        (leased,) = take(outbox)
        if not is_there:
            outbox.ack([leased.id])

        outbox.split(leased.id)

        assert names(take(outbox, NOW + 60)) == [["a"]] * is_there

    def test_bury_keeps_the_named_messages_and_ends_the_entry(self, outbox):
        outbox.put([make_entry("a", "b", "c", user=b"user")], NOW)
        (leased,) = take(outbox)

        was_there = outbox.bury(leased.id, [Refusal(1, "rejected", "time: no")], NOW + 5)

        assert was_there
        (letter,) = outbox.dead()
        assert letter.message.name == "b"
        assert (letter.endpoint, letter.reason, letter.reply) == (EVENTS, "rejected", "time: no")
        assert (letter.buried_at, letter.device_key, letter.user_key) == (
            NOW + 5,
            b"device",
            b"user",
        )
        assert (outbox.stats().depth, outbox.stats().dead) == (0, 1)

    def test_what_is_gone_cannot_be_buried(self, outbox):
        outbox.put([make_entry("a")], NOW)
        (leased,) = take(outbox)
        outbox.ack([leased.id])

        assert not outbox.bury(leased.id, [Refusal(0, "rejected", "")], NOW)
        assert outbox.dead() == ()

    @pytest.mark.parametrize("key", [b"device", b"user"])
    def test_a_stop_removes_what_was_tracked_before_it(self, outbox, key):
        early = make_entry("early", "too", user=b"user", at=NOW)
        late = make_entry("late", user=b"user", at=NOW + 1)
        other = make_entry("other", device=b"x", user=b"y", at=NOW)
        outbox.put([early, late, other], NOW + 1)

        assert outbox.forget([key], NOW, NOW + 1) == 2
        assert names(take(outbox, NOW + 1)) == [["late"], ["other"]]

    @pytest.mark.parametrize("call", ["forget", "erase"])
    def test_a_stop_removes_what_a_clock_that_was_ahead_dated(self, outbox, call):
        ahead = make_entry("ahead", at=NOW + 3600)
        other = make_entry("other", at=NOW + 3600, device=b"x")
        outbox.put([ahead, make_entry("granted since", at=NOW), other], NOW + 3600)

        assert getattr(outbox, call)([b"device"], NOW - 60, NOW) == 1
        assert names(take(outbox, NOW + 3600)) == [["granted since"], ["other"]]

    def test_a_stop_mark_refuses_what_a_clock_that_was_ahead_dated(self, outbox):
        outbox.forget([b"device"], NOW - 60, NOW)
        ahead = make_entry("ahead", at=NOW + 3600)

        assert outbox.put([ahead, make_entry("granted since", at=NOW)], NOW).stopped == 1
        assert outbox.put([make_entry("other", device=b"x", at=NOW + 3600)], NOW).stored == 1

    def test_a_stop_mark_keeps_dead_what_a_clock_that_was_ahead_dated(self, outbox):
        ahead, since = make_entry("ahead", at=NOW + 3600), make_entry("since")
        letters = bury_all(outbox, ahead, since, at=NOW - 60)
        outbox.forget([b"device"], NOW - 60, NOW)

        assert outbox.replay(ids_of(letters), NOW) == 1
        assert buried_names(outbox) == ["ahead"]

    @pytest.mark.parametrize("call", ["forget", "erase"])
    def test_a_stop_that_was_late_on_its_way_takes_nothing_of_a_later_grant(self, outbox, call):
        outbox.put([make_entry("granted since", at=NOW + 5)], NOW + 5)

        assert getattr(outbox, call)([b"device"], NOW - 60, NOW) == 0
        assert outbox.put([make_entry("another hosts clock", at=NOW + 6)], NOW).stored == 1

    @pytest.mark.parametrize("notice", ["put", "expire"])
    def test_a_mark_of_a_clock_that_was_ahead_stops_nobody_for_long(self, outbox, notice):
        outbox.forget([b"device"], NOW + 86_400, NOW + 86_400)
        if notice == "put":
            outbox.put([make_entry("other", device=b"x")], NOW)
        else:
            outbox.expire(NOW)

        assert outbox.put([make_entry("a", at=NOW)], NOW + 60).stopped == 1
        assert outbox.put([make_entry("b", at=NOW + 60)], NOW + 60).stored == 1

    def test_a_mark_of_a_host_whose_clock_differs_a_little_holds(self, outbox):
        outbox.forget([b"device"], NOW + 3600, NOW + 3600)
        outbox.put([make_entry("other", device=b"x")], NOW)
        outbox.expire(NOW)

        assert outbox.put([make_entry("a", at=NOW + 3600)], NOW + 3600).stopped == 1

    def test_a_stop_under_two_keys_counts_a_message_once(self, outbox):
        outbox.put([make_entry("a", user=b"user")], NOW)

        assert outbox.forget([b"device", b"user"], NOW, NOW) == 1
        assert outbox.stats().depth == 0

    def test_an_entry_with_one_key_twice_is_forgotten_once(self, outbox):
        outbox.put([make_entry("a", device=b"same", user=b"same")], NOW)

        assert outbox.forget([b"same"], NOW, NOW) == 1
        assert outbox.forget([b"same"], NOW, NOW) == 0

    def test_an_empty_key_stops_nobody(self, outbox):
        outbox.put([make_entry("a", user=b"")], NOW)

        assert outbox.forget([b""], NOW, NOW) == 0
        assert outbox.put([make_entry("b", user=b"")], NOW).stored == 1

    def test_a_stop_ends_a_lease_and_its_late_settlement_is_ignored(self, outbox):
        outbox.put([make_entry("a", "b")], NOW)
        (leased,) = take(outbox)

        assert outbox.forget([b"device"], NOW, NOW) == 2
        outbox.release([leased.id], NOW)
        outbox.split(leased.id)
        assert outbox.ack([leased.id]) == 0
        assert not outbox.bury(leased.id, [Refusal(0, "rejected", "")], NOW)
        assert take(outbox, NOW + 60) == []

    @pytest.mark.parametrize("key", [b"device", b"user"])
    def test_an_erase_removes_what_waits_and_what_is_leased(self, outbox, key):
        early = make_entry("early", "too", user=b"user", at=NOW)
        late = make_entry("late", user=b"user", at=NOW + 1)
        other = make_entry("other", device=b"x", user=b"y", at=NOW)
        outbox.put([early, late, other], NOW + 1)
        take(outbox, NOW + 1, max_messages=1)

        assert outbox.erase([key], NOW, NOW + 1) == 2
        assert names(take(outbox, NOW + 61)) == [["late"], ["other"]]

    def test_an_erase_leaves_a_stop_mark(self, outbox):
        outbox.erase([b"device"], NOW, NOW)

        result = outbox.put([make_entry("a", at=NOW), make_entry("b", at=NOW + 1)], NOW + 1)

        assert (result.stored, result.stopped) == (1, 1)

    @pytest.mark.parametrize("key", [b"device", b"user"])
    def test_an_erase_removes_the_dead_letters_of_its_keys_only(self, outbox, key):
        outbox.put([make_entry("a", user=b"user"), make_entry("b", device=b"x", user=b"y")], NOW)
        for item in take(outbox):
            outbox.bury(item.id, [Refusal(0, "rejected", "")], NOW + 5)

        assert outbox.erase([key], NOW, NOW) == 0
        assert [letter.message.name for letter in outbox.dead()] == ["b"]
        assert outbox.stats().dead == 1

    def test_an_erase_keeps_the_dead_letters_of_a_later_grant(self, outbox):
        before, since = make_entry("before", at=NOW - 60), make_entry("since", at=NOW - 59)
        ahead = make_entry("ahead", at=NOW + 61)
        bury_all(outbox, before, since, ahead)

        outbox.erase([b"device"], NOW - 60, NOW)

        assert buried_names(outbox) == ["since"]

    def test_a_stop_keeps_dead_letters(self, outbox):
        outbox.put([make_entry("a")], NOW)
        outbox.bury(take(outbox)[0].id, [Refusal(0, "rejected", "")], NOW)

        outbox.forget([b"device"], NOW, NOW)

        assert outbox.stats().dead == 1

    def test_a_stop_that_comes_late_keeps_no_dead_letter_that_would_outlive_its_mark(self, outbox):
        bury_all(outbox, make_entry("early"), at=NOW + 50)
        entries = make_entry("a"), make_entry("since", at=NOW + 51), make_entry("b", device=b"b")
        bury_all(outbox, *entries, at=NOW + 100)

        assert outbox.forget([b"device"], NOW + 50, NOW + 200) == 0

        assert buried_names(outbox) == ["early", "since", "b"]
        outbox.expire(NOW + 86_451)
        assert buried_names(outbox) == ["since", "b"]

    @pytest.mark.parametrize("key", [b"device", b"user"])
    def test_a_letter_is_found_under_each_key_of_a_late_stop(self, outbox, key):
        bury_all(outbox, make_entry("a", user=b"user"), make_entry("b", device=b"b"), at=NOW + 1)

        outbox.forget([key, b""], NOW, NOW + 1)

        assert buried_names(outbox) == ["b"]

    def test_what_was_erased_in_flight_becomes_no_dead_letter(self, outbox):
        outbox.put([make_entry("a")], NOW)
        (leased,) = take(outbox)
        outbox.erase([b"device"], NOW, NOW)

        assert not outbox.bury(leased.id, [Refusal(0, "rejected", "")], NOW)
        assert outbox.ack([leased.id]) == 0
        assert outbox.dead() == ()

    def test_an_erase_under_two_keys_counts_a_message_once(self, outbox):
        outbox.put([make_entry("a", user=b"user")], NOW)

        assert outbox.erase({b"device", b"user"}, NOW, NOW) == 1

    def test_an_empty_key_erases_nobody(self, outbox):
        outbox.put([make_entry("a", user=b""), make_entry("b", user=b"")], NOW)
        outbox.bury(take(outbox)[0].id, [Refusal(0, "rejected", "")], NOW)

        assert outbox.erase([b""], NOW, NOW) == 0
        assert (outbox.stats().depth, outbox.stats().dead) == (1, 1)

    @pytest.mark.parametrize(
        "keys", [{"device": b"gone"}, {"user": b"gone"}], ids=["device", "user"]
    )
    def test_a_stop_mark_refuses_what_comes_late(self, outbox, keys):
        outbox.forget([b"gone"], NOW, NOW)

        result = outbox.put(
            [make_entry("a", "b", **keys), make_entry("c", **keys, at=NOW + 1)], NOW + 1
        )

        assert (result.stored, result.stopped) == (1, 2)
        assert names(take(outbox)) == [["c"]]

    def test_the_newest_stop_mark_of_a_key_holds(self, outbox):
        outbox.forget([b"device"], NOW, NOW)
        outbox.forget([b"device"], NOW - 100, NOW)

        assert outbox.put([make_entry("a", at=NOW)], NOW).stopped == 1

    def test_a_stop_mark_holds_as_long_as_anything_is_kept(self, outbox):
        outbox.forget([b"device"], NOW, NOW)
        for _ in range(2):
            outbox.expire(NOW + 86_400)
            assert outbox.put([make_entry("a")], NOW + 86_400, historical()).stopped == 1

        outbox.put([make_entry("other", device=b"other")], NOW + 86_401)
        outbox.expire(NOW + 86_401)

        assert outbox.put([make_entry("a")], NOW + 86_401, historical()).stopped == 0

    def test_a_dead_letter_is_never_replayed_under_a_stop_mark(self, outbox):
        letters = bury_all(outbox, make_entry("a"))
        outbox.forget([b"device"], NOW + 100, NOW + 100)

        replayed = []
        for now in (NOW + 3_701, NOW + 86_400, NOW + 90_000):
            outbox.put([make_entry("other", device=b"other", at=now)], now)
            replayed.append(outbox.replay(ids_of(letters), now))
            outbox.expire(now)

        assert replayed == [0, 0, 0]
        assert outbox.dead() == ()

    def test_a_mark_is_not_forgotten_for_a_later_one_that_came_with_it(self, outbox):
        outbox.forget([b"device"], NOW, NOW)
        outbox.forget([b"other"], NOW + 100_000, NOW + 100_000)

        assert outbox.put([make_entry("a", at=NOW)], NOW).stopped == 1

    def test_the_newest_is_refused_when_messages_are_too_many(self):
        outbox = self.open(outbox_max_messages=3)

        result = outbox.put([make_entry("a", "b"), make_entry("c", "d"), make_entry("e")], NOW)

        assert (result.stored, result.overflowed) == (3, 2)
        assert names(take(outbox)) == [["a", "b"], ["e"]]

    def test_the_newest_is_refused_when_bytes_are_too_many(self):
        outbox = self.open(outbox_max_bytes=1_000_000)
        people = make_entry("set", endpoint=Endpoint.PEOPLE, size_bytes=600_000)

        result = outbox.put([people, make_entry("a", size_bytes=600_000)], NOW)

        assert (result.stored, result.overflowed) == (1, 1)

    def test_an_identity_event_is_stored_even_when_full(self):
        outbox = self.open(outbox_max_messages=1)
        outbox.put([make_entry("a")], NOW)

        assert outbox.put([make_entry("$identify", is_identity=True)], NOW).stored == 1

    def test_an_identity_event_under_a_stop_mark_is_refused(self, outbox):
        outbox.forget([b"device"], NOW, NOW)

        assert outbox.put([make_entry("$identify", is_identity=True)], NOW).stopped == 1

    def test_the_backlog_is_what_could_be_leased(self, outbox):
        outbox.put([make_entry("a", size_bytes=100)], NOW)
        outbox.put([make_entry("b", "c", size_bytes=100)], NOW + 1)

        backlog = outbox.backlog(EVENTS, NOW + 2)

        assert (backlog.messages, backlog.size_bytes, backlog.waiting_since) == (3, 303, NOW)
        assert outbox.backlog(Endpoint.GROUPS, NOW).messages == 0

    def test_stats_tell_how_full_the_outbox_is(self, outbox):
        empty = outbox.stats()
        people = make_entry("set", endpoint=Endpoint.PEOPLE, at=NOW - 5, size_bytes=50)
        outbox.put([people], NOW - 1)
        outbox.put([make_entry("a", "b", size_bytes=100)], NOW)
        stats = outbox.stats()

        assert (empty.depth, empty.size_bytes, empty.oldest_put_at, empty.dead) == (
            0,
            0,
            None,
            0,
        )
        assert (stats.depth, stats.size_bytes, stats.oldest_put_at) == (3, 253, NOW - 1)

    def test_a_horizon_is_past_when_all_that_was_put_before_is_gone(self, outbox):
        outbox.put([make_entry("a", "b")], NOW)
        horizon = outbox.horizon()
        outbox.put([make_entry("c")], NOW)
        assert not outbox.is_past(horizon)

        outbox.split(take(outbox)[0].id)
        leased = take(outbox, max_messages=1)
        outbox.ack([item.id for item in leased])
        assert not outbox.is_past(horizon)

        outbox.ack([item.id for item in take(outbox, max_messages=1)])
        assert outbox.is_past(horizon)
        assert not outbox.is_past(outbox.horizon())

    def test_an_empty_outbox_is_past_every_horizon(self, outbox):
        outbox.put([make_entry("a")], NOW)
        outbox.ack([item.id for item in take(outbox)])

        assert outbox.is_past(outbox.horizon())

    def test_what_is_taken_is_what_was_put(self, outbox):
        entry = Entry(
            Endpoint.PEOPLE,
            (
                Message("caf\u00e9 \ud800 \x00", b'{"a":"\xc3\xa9"}', "id-1"),
                Message("$add", b"{}", ""),
            ),
            bytes(range(256)),
            b"",
            NOW + 0.123456,
            is_repeatable=False,
            is_identity=True,
        )

        outbox.put([entry], NOW + 0.25)

        (leased,) = take(outbox, endpoint=Endpoint.PEOPLE)
        assert leased == Leased(leased.id, entry, 0, NOW + 0.25)

    def test_nothing_put_is_nothing_stored(self, outbox):
        assert outbox.put([], NOW) == PutResult(0, 0, 0)
        assert outbox.stats().depth == 0

    def test_what_a_ticket_brought_is_taken_once(self, outbox):
        outbox.put([make_entry("a")], NOW, Ticket("journal", 7))

        again = outbox.put([make_entry("a"), make_entry("b")], NOW, Ticket("journal", 7))

        assert again == PutResult(0, 0, 0)
        assert outbox.stats().totals == {("accepted", ""): 1}
        assert names(take(outbox)) == [["a"]]

    @pytest.mark.parametrize(
        ("ticket", "stored"),
        [
            pytest.param(Ticket("journal", 6), 0, id="an-older-one"),
            pytest.param(Ticket("journal", 8), 1, id="the-next"),
            pytest.param(Ticket("other", 7), 1, id="another-source"),
            pytest.param(Ticket("other", 0), 1, id="the-first-of-a-source"),
            pytest.param(None, 1, id="none"),
        ],
    )
    def test_a_ticket_holds_for_its_source_and_what_was_before_it(self, outbox, ticket, stored):
        outbox.put([make_entry("a")], NOW, Ticket("journal", 7))

        assert outbox.put([make_entry("b")], NOW, ticket).stored == stored

    @pytest.mark.parametrize("entries", [[], [make_entry("a")]], ids=["of-nothing", "of-stopped"])
    def test_a_ticket_that_stored_nothing_is_known_all_the_same(self, outbox, entries):
        outbox.forget([b"device"], NOW, NOW)
        outbox.put(entries, NOW, Ticket("journal", 7))

        assert outbox.put([make_entry("b", device=b"x")], NOW, Ticket("journal", 7)).stored == 0

    def test_a_source_that_is_met_again_is_known_as_long_again(self, outbox):
        ticket, entry = Ticket("journal", 7), make_entry("a", at=NOW + 80_000)
        outbox.put([], NOW, ticket)
        outbox.put([entry], NOW + 80_000, ticket)

        outbox.expire(NOW + 166_400)

        assert outbox.put([entry], NOW + 166_400, ticket).accepted == 0

    @pytest.mark.parametrize(
        "ticket", [None, Ticket("journal", 7)], ids=["without-a-ticket", "of-a-journal"]
    )
    def test_what_may_have_met_a_mark_that_is_gone_is_not_taken(self, outbox, ticket):
        limit = NOW - 86_400
        entries = [make_entry("a", "b", at=limit - 1), make_entry("c", at=limit)]

        assert outbox.put(entries, NOW, ticket) == PutResult(1, 0, 0, too_old=2)
        assert names(take(outbox)) == [["c"]]
        assert outbox.stats().totals == {("accepted", ""): 3, ("dropped", "too_old"): 2}

    def test_what_somebody_answers_for_may_be_as_old_as_it_is(self, outbox):
        outbox.forget([b"gone"], NOW - 90_000, NOW)
        entries = [make_entry("a", at=0), make_entry("b", at=0, device=b"gone")]

        assert outbox.put(entries, NOW, historical()) == PutResult(1, 1, 0)

    def test_a_dropped_entry_is_gone_and_counted_once(self, outbox):
        outbox.put([make_entry("a", "b"), make_entry("c")], NOW)
        first, _ = take(outbox)

        assert outbox.drop([first.id], "withdrawn") == 2
        assert outbox.drop([first.id], "withdrawn") == 0
        assert outbox.stats().totals["dropped", "withdrawn"] == 2
        assert names(take(outbox, NOW + 60)) == [["c"]]

    def test_the_totals_tell_what_became_of_every_message(self):
        outbox = self.open(outbox_max_messages=12, outbox_max_age=3600.0, retry_budget=3600.0)
        outbox.put([make_entry("old", at=NOW - 7200)], NOW - 7200)
        outbox.forget([b"gone"], NOW, NOW)
        outbox.put([make_entry("a", "b"), make_entry("stopped", device=b"gone")], NOW)
        outbox.put([make_entry("c", "d", "e"), make_entry("f"), make_entry(*"ghijk")], NOW)
        outbox.put([make_entry("too", "many", "messages")], NOW)

        outbox.expire(NOW)
        first, second, third, _ = take(outbox)
        outbox.ack([first.id])
        outbox.bury(second.id, [Refusal(0, "rejected", ""), Refusal(2, "expired", "")], NOW)
        outbox.drop([third.id], "withdrawn")
        outbox.put([make_entry("z", device=b"x")], NOW)
        outbox.erase([b"x"], NOW, NOW)
        outbox.forget([b"device"], NOW, NOW)

        assert outbox.stats().totals == {
            ("accepted", ""): 17,
            ("delivered", ""): 2 + 1,
            ("buried", "rejected"): 1,
            ("buried", "expired"): 1,
            ("dropped", "stopped"): 1 + 5,
            ("dropped", "overflow"): 3,
            ("dropped", "too_old"): 1,
            ("dropped", "withdrawn"): 1,
            ("dropped", "erased"): 1,
        }

    def test_an_empty_outbox_has_counted_nothing(self, outbox):
        outbox.ack([5])
        outbox.drop([5], "withdrawn")
        outbox.release([5], NOW)
        outbox.forget([b"device"], NOW, NOW)
        outbox.expire(NOW)

        assert outbox.stats().totals == {}

    @pytest.mark.parametrize("settle", ["ack", "release"])
    def test_settling_nothing_changes_nothing(self, outbox, settle):
        outbox.put([make_entry("a")], NOW)

        outbox.ack([]) if settle == "ack" else outbox.release([], NOW)

        assert names(take(outbox)) == [["a"]]

    def test_what_others_counted_joins_the_totals(self, outbox):
        counted: Counts = {("refused", "no-choice"): 2, ("retried", ""): 1}
        outbox.tally(counted)
        outbox.tally({("retried", ""): 3})
        outbox.tally({})

        assert outbox.stats().totals == {("refused", "no-choice"): 2, ("retried", ""): 4}

    def test_a_lease_that_ran_out_is_told_to_who_takes_over(self, outbox):
        outbox.put([make_entry("a"), make_entry("b")], NOW)
        (first,) = take(outbox, max_messages=1, seconds=60)

        again = take(outbox, NOW + 60)

        assert not first.is_overdue
        assert [item.is_overdue for item in again] == [True, False]
        assert [item.attempts for item in again] == [0, 0]

    def test_what_was_given_back_is_not_overdue(self, outbox):
        outbox.put([make_entry("a", "b"), make_entry("c")], NOW)
        taken = take(outbox)
        for item in taken:
            outbox.release([item.id], NOW + 10)
        outbox.split(taken[0].id)

        assert [item.is_overdue for item in take(outbox, NOW + 10)] == [False, False, False]

    def test_who_gives_back_says_that_it_is_not_overdue_any_more(self, outbox):
        outbox.put([make_entry("a")], NOW)
        take(outbox, seconds=60)
        (overdue,) = take(outbox, NOW + 60)

        outbox.release([overdue.id], NOW + 70)

        (again,) = take(outbox, NOW + 70)
        assert (overdue.is_overdue, again.is_overdue, again.attempts) == (True, False, 1)

    @pytest.mark.parametrize("endpoint", Endpoint)
    def test_a_lease_of_before_the_clock_was_set_back_has_run_out(self, outbox, endpoint):
        outbox.put([make_entry("a", endpoint=endpoint)], NOW)
        take(outbox, endpoint=endpoint, seconds=60)

        assert take(outbox, NOW - 60, endpoint) == []
        assert outbox.backlog(endpoint, NOW - 60).messages == 0
        assert outbox.backlog(endpoint, NOW - 60.1).messages == 1
        (leased,) = take(outbox, NOW - 60.1, endpoint)
        assert leased.is_overdue

    @pytest.mark.parametrize("endpoint", Endpoint)
    def test_what_is_held_back_for_long_stays_so(self, outbox, endpoint):
        outbox.put([make_entry("a", endpoint=endpoint)], NOW)
        outbox.release([item.id for item in take(outbox, endpoint=endpoint)], NOW + 90_000)

        assert take(outbox, NOW + 89_999, endpoint) == []
        assert outbox.backlog(endpoint, NOW).messages == 0
        assert names(take(outbox, NOW + 90_000, endpoint)) == [["a"]]

    def test_stats_tell_how_much_is_leased(self, outbox):
        outbox.put([make_entry("a", "b"), make_entry("c"), make_entry("d")], NOW)
        before = outbox.stats().leased
        first, second = take(outbox, max_messages=3)
        during = outbox.stats().leased
        outbox.ack([first.id])
        outbox.release([second.id], NOW + 60)

        assert (before, during, outbox.stats().leased) == (0, 3, 0)

    def test_a_dead_letter_tells_all_of_its_entry(self, outbox):
        entry = make_entry("a", user=b"user", at=NOW - 5, is_repeatable=False, is_identity=True)

        (letter,) = bury_all(outbox, entry)

        assert letter.to_entry() == entry
        assert letter.id > 0

    def test_a_reply_of_any_characters_is_kept(self, outbox):
        outbox.put([make_entry("a")], NOW)
        outbox.bury(find_ids(outbox)[0], [Refusal(0, "rejected", "caf\u00e9 \ud800 \x00")], NOW)

        assert outbox.dead()[0].reply == "caf\u00e9 \ud800 \x00"

    def test_dead_letters_come_in_pages(self, outbox):
        letters = bury_all(outbox, make_entry("a", "b"), make_entry("c", "d", "e"))
        ids = ids_of(letters)

        assert [letter.message.name for letter in letters] == list("abcde")
        assert ids == sorted(set(ids))
        assert ids_of(outbox.dead(limit=2)) == ids[:2]
        assert ids_of(outbox.dead(after=ids[1], limit=2)) == ids[2:4]
        assert ids_of(outbox.dead(after=ids[3], limit=2)) == ids[4:]
        assert outbox.dead(after=ids[4]) == ()

    def test_the_oldest_letters_beyond_the_bound_are_given_up_and_counted(
        self, outbox, monkeypatch
    ):
        self.bound(monkeypatch, "MAX_DEAD_LETTERS", 3)

        bury_all(outbox, make_entry("a", "b"), make_entry("c", "d", "e"))

        assert buried_names(outbox) == ["c", "d", "e"]
        assert outbox.stats().totals["letters_lost", ""] == 2
        assert outbox.stats().totals["buried", "rejected"] == 5

    def test_letters_stay_bounded_after_an_erase(self, outbox, monkeypatch):
        self.bound(monkeypatch, "MAX_DEAD_LETTERS", 3)
        outbox.erase([b"device"], NOW - 1, NOW)

        assert len(bury_all(outbox, make_entry(*"abcd"))) == 3

    def test_the_oldest_stop_marks_are_given_up_but_not_what_they_stopped(
        self, outbox, monkeypatch
    ):
        self.bound(monkeypatch, "MAX_STOP_MARKS", 2)
        outbox.forget([b"first"], NOW - 9, NOW)
        outbox.forget([b"second", b"third"], NOW, NOW)

        assert outbox.put([make_entry("a", device=b"first", at=NOW - 9)], NOW).stopped == 1
        assert outbox.put([make_entry("a", device=b"other", at=NOW - 9)], NOW).stopped == 1
        assert outbox.put([make_entry("b", device=b"first", at=NOW - 8)], NOW).stored == 1
        assert outbox.put([make_entry("c", device=b"third", at=NOW)], NOW).stopped == 1

    def test_the_oldest_letters_beyond_the_bytes_of_the_bound_are_given_up(self):
        outbox = self.open(outbox_max_bytes=1_000_000)

        bury_all(outbox, *(make_entry(*names, size_bytes=300_000) for names in ("a", "b", "cde")))

        assert buried_names(outbox) == ["c", "d", "e"]
        assert outbox.stats().dead_bytes == 3 * 300_001
        assert outbox.stats().totals["letters_lost", ""] == 2
        assert not imbalance(outbox)

    @pytest.mark.parametrize(
        "remove",
        [
            pytest.param(lambda outbox, ids: outbox.purge(ids), id="purge"),
            pytest.param(lambda outbox, ids: outbox.replay(ids, NOW), id="replay"),
            pytest.param(lambda outbox, _: outbox.erase([b"device"], NOW, NOW), id="erase"),
            pytest.param(lambda outbox, _: outbox.expire(NOW + 31 * 86_400), id="expire"),
        ],
    )
    def test_letters_that_are_gone_take_no_bytes(self, outbox, remove):
        letters = bury_all(outbox, make_entry("a", "longer"))
        before = outbox.stats().dead_bytes

        remove(outbox, ids_of(letters))

        assert before == make_entry("a", "longer").size_bytes
        assert outbox.stats().dead_bytes == 0

    def test_purged_letters_are_gone_and_stay_counted_as_buried(self, outbox):
        ids = ids_of(bury_all(outbox, make_entry("a", "b", "c")))

        assert outbox.purge([*ids[1:], 99]) == 2
        assert outbox.purge(ids[1:]) == 0
        assert buried_names(outbox) == ["a"]
        assert outbox.stats().dead == 1
        assert outbox.stats().totals["buried", "rejected"] == 3

    def test_a_letters_number_is_not_given_twice(self, outbox):
        (first,) = bury_all(outbox, make_entry("a"))
        outbox.purge([first.id])

        (second,) = bury_all(outbox, make_entry("b"))

        assert second.id > first.id

    def test_erased_letters_stay_counted_as_buried(self, outbox):
        bury_all(outbox, make_entry("a"))
        outbox.erase([b"device"], NOW, NOW)

        assert outbox.stats().totals == {("accepted", ""): 1, ("buried", "rejected"): 1}

    def test_a_replayed_letter_waits_again_at_the_end(self, outbox):
        entry = make_entry("a", user=b"user", at=NOW - 5)
        letters = bury_all(outbox, entry, make_entry("b"), make_entry("c"))
        outbox.put([make_entry("d")], NOW)

        assert outbox.replay([letters[2].id, letters[0].id, 99], NOW + 9) == 2
        assert outbox.replay([letters[0].id], NOW + 9) == 0
        taken = take(outbox, NOW + 9)
        assert names(taken) == [["d"], ["a"], ["c"]]
        assert taken[1] == Leased(taken[1].id, entry, 0, NOW + 9)
        assert buried_names(outbox) == ["b"]
        assert outbox.stats().totals["replayed", ""] == 2

    def test_a_letter_under_a_stop_mark_stays_dead(self, outbox):
        letters = bury_all(outbox, make_entry("a"), make_entry("b", device=b"x"))
        outbox.forget([b"device"], NOW, NOW)

        assert outbox.replay(ids_of(letters), NOW) == 1
        assert names(take(outbox)) == [["b"]]
        assert buried_names(outbox) == ["a"]

    def test_a_replayed_letter_is_forgotten_like_any_other(self, outbox):
        outbox.replay(ids_of(bury_all(outbox, make_entry("a", user=b"user"))), NOW)

        assert outbox.forget([b"user"], NOW, NOW) == 1

    @AWAITING
    def test_a_replayed_letter_waits_for_the_aliases_of_its_user(self, outbox, endpoint):
        letters = bury_all(outbox, make_entry("a", endpoint=endpoint, user=b"user"))
        outbox.put([make_alias()], NOW)
        outbox.replay(ids_of(letters), NOW)

        assert take(outbox, endpoint=endpoint) == []
        assert outbox.stats().behind_aliases == 1
        outbox.ack([item.id for item in take(outbox, endpoint=ALIASES)])
        assert names(take(outbox, endpoint=endpoint)) == [["a"]]

    @AWAITING
    def test_a_replayed_alias_holds_back_what_comes_after_it(self, outbox, endpoint):
        letters = bury_all(outbox, make_alias())
        mine = {"endpoint": endpoint, "user": b"user"}
        outbox.put([make_entry("a", **mine)], NOW)
        outbox.replay(ids_of(letters), NOW)
        outbox.put([make_entry("b", **mine)], NOW)

        assert names(take(outbox, endpoint=endpoint)) == [["a"]]

    def test_a_letter_is_replayed_into_a_full_outbox(self):
        outbox = self.open(outbox_max_messages=1)
        letters = bury_all(outbox, make_entry("a"))
        outbox.put([make_entry("b")], NOW)

        assert outbox.replay(ids_of(letters), NOW) == 1
        assert outbox.put([make_entry("c")], NOW).overflowed == 1

    def test_a_replayed_letter_was_put_after_a_horizon_of_before(self, outbox):
        letters = bury_all(outbox, make_entry("a"))
        horizon = outbox.horizon()
        outbox.replay(ids_of(letters), NOW)

        assert outbox.is_past(horizon)
        assert not outbox.is_past(outbox.horizon())

    @pytest.mark.parametrize("is_leased", [False, True], ids=["waiting", "leased"])
    def test_what_waited_too_long_is_given_up(self, outbox, is_leased):
        outbox.put([make_entry("a", "b"), make_entry("set", endpoint=Endpoint.PEOPLE)], NOW)
        outbox.put([make_entry("c")], NOW + 10)
        if is_leased:
            take(outbox, NOW + 86_400)

        assert outbox.expire(NOW + 86_400) == 0
        assert outbox.expire(NOW + 86_401) == 3
        assert outbox.stats().totals["dropped", "too_old"] == 3
        assert names(take(outbox, NOW + 90_000)) == [["c"]]

    def test_who_waits_for_an_alias_is_given_up_with_it(self, outbox):
        outbox.put([make_alias(), make_entry("a", user=b"user")], NOW)

        assert outbox.expire(NOW + 86_401) == 2
        assert outbox.stats().depth == outbox.stats().behind_aliases == 0

    def test_what_was_tracked_long_ago_is_kept_from_when_it_was_put(self, outbox):
        outbox.put([make_entry("a", at=NOW - 86_000)], NOW)

        assert outbox.expire(NOW + 1000) == 0

    def test_a_clock_that_was_ahead_keeps_nothing_else_from_expiring(self, outbox):
        ahead = NOW + 3650 * 86_400
        outbox.put([make_entry("future", at=ahead)], ahead)
        outbox.put([make_entry("a"), make_entry("b")], NOW)

        assert outbox.expire(NOW + 86_401) == 2
        assert names(take(outbox)) == [["future"]]

    def test_letters_that_are_dead_too_long_are_deleted(self, outbox):
        bury_all(outbox, make_entry("a"))
        bury_all(outbox, make_entry("b"), at=NOW + 10)

        assert outbox.expire(NOW + 86_401) == 0
        assert buried_names(outbox) == ["b"]
        assert outbox.stats().totals["buried", "rejected"] == 2

    def test_a_closed_outbox_goes_on(self, outbox):
        outbox.put([make_entry("a"), make_entry("b")], NOW)
        outbox.ack([take(outbox, max_messages=1)[0].id])

        outbox.close()
        outbox.close()

        assert names(take(outbox)) == [["b"]]
        assert outbox.put([make_entry("c")], NOW).stored == 1
        assert outbox.stats().totals == {("accepted", ""): 3, ("delivered", ""): 1}

    @pytest.mark.parametrize("is_stopped", [False, True], ids=["of-some", "of-all"])
    def test_stops_are_found_among_many_entries(self, outbox, is_stopped):
        keys = [b"%d" % number for number in range(300)]
        outbox.forget(keys if is_stopped else keys[::100], NOW, NOW)

        result = outbox.put([make_entry("a", device=key) for key in keys], NOW)

        assert result.stopped == (300 if is_stopped else 3)

    def test_many_are_leased_and_settled_at_once(self, outbox):
        outbox.put([make_entry("a", device=b"%d" % number) for number in range(2000)], NOW)
        leased = take(outbox)

        assert len(leased) == 2000
        assert outbox.ack([item.id for item in leased]) == 2000

    @pytest.mark.usefixtures("often_interrupted")
    def test_threads_may_put_and_take_together(self, outbox):
        taken: list[Leased] = []
        is_over = threading.Event()

        def put() -> None:
            for _ in range(200):
                outbox.put([make_entry("a")], NOW)

        def drain() -> None:
            while not is_over.is_set() or outbox.stats().depth:
                leased = take(outbox)
                taken.extend(leased)
                outbox.ack([item.id for item in leased])

        putters = [threading.Thread(target=put) for _ in range(4)]
        drainers = [threading.Thread(target=drain, daemon=True) for _ in range(3)]
        for thread in [*putters, *drainers]:
            thread.start()
        for thread in putters:
            thread.join(TIMEOUT)
        is_over.set()
        for thread in drainers:
            thread.join(TIMEOUT)

        assert len({item.id for item in taken}) == len(taken) == 800
