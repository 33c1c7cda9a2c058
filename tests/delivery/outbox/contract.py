"""The contract of every outbox, as one test class. Subclasses say how to make theirs."""

import threading
from abc import ABC, abstractmethod
from typing import Any

import pytest

from mp_asgi.delivery.outbox.base import Leased, Outbox, Refusal
from mp_asgi.events import Endpoint, Entry
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


def make_alias(*names: str, user: bytes = b"user", **fields: Any) -> Entry:
    names = names or ("alias",)
    return make_entry(*names, endpoint=ALIASES, user=user, is_identity=True, **fields)


class OutboxContract(ABC):
    @abstractmethod
    def make(self, settings: Settings) -> Outbox: ...

    @pytest.fixture
    def outbox(self) -> Outbox:
        return self.make(make_settings(retry_budget=3600.0))

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

    def test_what_is_not_repeatable_is_leased_alone(self, outbox):
        outbox.put([make_entry("a"), make_entry("add", is_repeatable=False), make_entry("b")], NOW)

        taken = []
        for _ in range(3):
            leased = take(outbox)
            taken.append(names(leased))
            outbox.ack([item.id for item in leased])

        assert taken == [[["a"]], [["add"]], [["b"]]]

    def test_a_leased_entry_holds_back_those_behind_it(self, outbox):
        outbox.put([make_entry("a"), make_entry("b")], NOW)
        take(outbox, max_messages=1)

        assert take(outbox) == []
        assert outbox.backlog(EVENTS, NOW).messages == 0

    def test_an_expired_lease_returns_in_its_place(self, outbox):
        outbox.put([make_entry("a"), make_entry("b")], NOW)
        take(outbox, max_messages=1, seconds=60)

        assert take(outbox, NOW + 59.9) == []
        assert names(take(outbox, NOW + 60)) == [["a"], ["b"]]

    @AWAITING
    @pytest.mark.parametrize(
        "hold",
        [
            pytest.param(lambda outbox: None, id="ready"),
            pytest.param(lambda outbox: take(outbox, endpoint=ALIASES), id="leased"),
            pytest.param(lambda outbox: outbox.release([0], NOW + 900), id="held-back"),
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
            pytest.param(lambda outbox: outbox.ack([0]), id="acked"),
            pytest.param(
                lambda outbox: outbox.bury(0, [Refusal(0, "rejected", "no")], NOW), id="buried"
            ),
            pytest.param(lambda outbox: outbox.forget([b"device"], NOW), id="forgotten"),
            pytest.param(lambda outbox: outbox.erase([b"device"], NOW), id="erased"),
        ],
    )
    def test_an_alias_that_is_settled_lets_its_user_go(self, outbox, endpoint, settle):
        later = make_entry("a", endpoint=endpoint, user=b"user", at=NOW + 1)
        outbox.put([make_alias(), later], NOW)
        take(outbox, endpoint=ALIASES)

        settle(outbox)

        assert outbox.backlog(endpoint, NOW).messages == 1
        assert names(take(outbox, endpoint=endpoint)) == [["a"]]

    def test_what_was_put_before_an_alias_goes_before_it(self, outbox):
        outbox.put([make_entry("a", "b", user=b"user"), make_alias()], NOW)
        outbox.split(0)

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
        assert outbox.ack([0]) == 1

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
        outbox.split(outbox.stats().next_id - 2)
        outbox.put([make_entry("e", endpoint=endpoint)], NOW)

        outbox.ack([item.id for item in take(outbox, endpoint=ALIASES)])
        outbox.put([make_entry("f", **mine)], NOW)

        taken = take(outbox, endpoint=endpoint)
        assert names(taken) == [["before"], ["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]
        assert [item.id for item in taken] == sorted(item.id for item in taken)

    @pytest.mark.parametrize("is_erased", [False, True], ids=["stop", "erase"])
    def test_who_waits_for_an_alias_can_be_forgotten(self, outbox, is_erased):
        outbox.put([make_alias(), make_entry("a", user=b"user")], NOW)

        assert (outbox.erase if is_erased else outbox.forget)([b"user"], NOW) == 2
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
        until = outbox.stats().next_id
        outbox.ack([item.id for item in take(outbox, endpoint=ALIASES)])

        outbox.put([make_alias("again"), make_entry("b", user=b"user")], NOW + 1)

        assert outbox.stats().first_id < until
        assert outbox.stats().oldest_tracked_at == NOW - 9
        outbox.ack([item.id for item in take(outbox)])
        assert outbox.stats().first_id == until
        outbox.ack([until])
        assert outbox.stats().first_id == until + 1

    @pytest.mark.parametrize(
        "settings",
        [{"outbox_max_messages": 2}, {"outbox_max_bytes": 1_000_000}],
        ids=["messages", "bytes"],
    )
    def test_who_waits_for_an_alias_takes_room_like_the_others(self, settings):
        outbox = self.make(make_settings(**settings))

        outbox.put([make_alias(), make_entry("a", user=b"user", size_bytes=900_000)], NOW)

        assert outbox.put([make_entry("b", size_bytes=200_000)], NOW).overflowed == 1

    def test_a_lease_tells_when_its_entries_were_put(self, outbox):
        outbox.put([make_entry("a", at=NOW - 900)], NOW)
        outbox.put([make_entry("b", "c")], NOW + 1)
        outbox.split(1)

        assert [item.put_at for item in take(outbox)] == [NOW, NOW + 1, NOW + 1]

    def test_an_alias_lets_nobody_go_whose_device_has_the_key_of_its_user(self, outbox):
        outbox.put([make_alias(user=b"both"), make_alias()], NOW)
        outbox.put([make_entry("a", user=b"user", device=b"both")], NOW)

        outbox.ack([0])

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
        outbox.split(0)

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

        assert take(outbox, NOW + 9) == []
        again = take(outbox, NOW + 10)
        assert names(again) == [["a"], ["b"]]
        assert [item.attempts for item in again] == [1, 0]

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

        (half,) = take(outbox)
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

        assert outbox.forget([key], NOW) == 2
        assert names(take(outbox, NOW + 1)) == [["late"], ["other"]]

    def test_a_stop_under_two_keys_counts_a_message_once(self, outbox):
        outbox.put([make_entry("a", user=b"user")], NOW)

        assert outbox.forget([b"device", b"user"], NOW) == 1
        assert outbox.stats().depth == 0

    def test_an_entry_with_one_key_twice_is_forgotten_once(self, outbox):
        outbox.put([make_entry("a", device=b"same", user=b"same")], NOW)

        assert outbox.forget([b"same"], NOW) == 1
        assert outbox.forget([b"same"], NOW) == 0

    def test_an_empty_key_stops_nobody(self, outbox):
        outbox.put([make_entry("a", user=b"")], NOW)

        assert outbox.forget([b""], NOW) == 0
        assert outbox.put([make_entry("b", user=b"")], NOW).stored == 1

    def test_a_stop_ends_a_lease_and_its_late_settlement_is_ignored(self, outbox):
        outbox.put([make_entry("a", "b")], NOW)
        (leased,) = take(outbox)

        assert outbox.forget([b"device"], NOW) == 2
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

        assert outbox.erase([key], NOW) == 2
        assert names(take(outbox, NOW + 61)) == [["late"], ["other"]]

    def test_an_erase_leaves_a_stop_mark(self, outbox):
        outbox.erase([b"device"], NOW)

        result = outbox.put([make_entry("a", at=NOW), make_entry("b", at=NOW + 1)], NOW + 1)

        assert (result.stored, result.stopped) == (1, 1)

    @pytest.mark.parametrize("key", [b"device", b"user"])
    def test_an_erase_removes_the_dead_letters_of_its_keys_only(self, outbox, key):
        outbox.put([make_entry("a", user=b"user"), make_entry("b", device=b"x", user=b"y")], NOW)
        for item in take(outbox):
            outbox.bury(item.id, [Refusal(0, "rejected", "")], NOW + 5)

        assert outbox.erase([key], NOW) == 0
        assert [letter.message.name for letter in outbox.dead()] == ["b"]
        assert outbox.stats().dead == 1

    def test_a_stop_keeps_dead_letters(self, outbox):
        outbox.put([make_entry("a")], NOW)
        outbox.bury(take(outbox)[0].id, [Refusal(0, "rejected", "")], NOW)

        outbox.forget([b"device"], NOW)

        assert outbox.stats().dead == 1

    def test_what_was_erased_in_flight_becomes_no_dead_letter(self, outbox):
        outbox.put([make_entry("a")], NOW)
        (leased,) = take(outbox)
        outbox.erase([b"device"], NOW)

        assert not outbox.bury(leased.id, [Refusal(0, "rejected", "")], NOW)
        assert outbox.ack([leased.id]) == 0
        assert outbox.dead() == ()

    def test_an_erase_under_two_keys_counts_a_message_once(self, outbox):
        outbox.put([make_entry("a", user=b"user")], NOW)

        assert outbox.erase({b"device", b"user"}, NOW) == 1

    def test_an_empty_key_erases_nobody(self, outbox):
        outbox.put([make_entry("a", user=b""), make_entry("b", user=b"")], NOW)
        outbox.bury(take(outbox)[0].id, [Refusal(0, "rejected", "")], NOW)

        assert outbox.erase([b""], NOW) == 0
        assert (outbox.stats().depth, outbox.stats().dead) == (1, 1)

    @pytest.mark.parametrize(
        "keys", [{"device": b"gone"}, {"user": b"gone"}], ids=["device", "user"]
    )
    def test_a_stop_mark_refuses_what_comes_late(self, outbox, keys):
        outbox.forget([b"gone"], NOW)

        result = outbox.put(
            [make_entry("a", "b", **keys), make_entry("c", **keys, at=NOW + 1)], NOW
        )

        assert (result.stored, result.stopped) == (1, 2)
        assert names(take(outbox)) == [["c"]]

    def test_the_newest_stop_mark_of_a_key_holds(self, outbox):
        outbox.forget([b"device"], NOW)
        outbox.forget([b"device"], NOW - 100)

        assert outbox.put([make_entry("a", at=NOW)], NOW).stopped == 1

    def test_a_stop_mark_holds_for_the_retry_budget(self, outbox):
        outbox.forget([b"device"], NOW)
        assert outbox.put([make_entry("a", at=NOW)], NOW + 3600).stopped == 1
        assert outbox.put([make_entry("a", at=NOW)], NOW + 3600.1).stopped == 1

        assert outbox.put([make_entry("a", at=NOW)], NOW + 3600.1).stopped == 0

    def test_a_mark_is_not_forgotten_for_a_later_one_that_came_with_it(self, outbox):
        outbox.forget([b"device"], NOW)
        outbox.forget([b"other"], NOW + 100_000)

        assert outbox.put([make_entry("a", at=NOW)], NOW).stopped == 1

    def test_the_newest_is_refused_when_messages_are_too_many(self):
        outbox = self.make(make_settings(outbox_max_messages=3))

        result = outbox.put([make_entry("a", "b"), make_entry("c", "d"), make_entry("e")], NOW)

        assert (result.stored, result.overflowed) == (3, 2)
        assert names(take(outbox)) == [["a", "b"], ["e"]]

    def test_the_newest_is_refused_when_bytes_are_too_many(self):
        outbox = self.make(make_settings(outbox_max_bytes=1_000_000))
        people = make_entry("set", endpoint=Endpoint.PEOPLE, size_bytes=600_000)

        result = outbox.put([people, make_entry("a", size_bytes=600_000)], NOW)

        assert (result.stored, result.overflowed) == (1, 1)

    def test_an_identity_event_is_stored_even_when_full(self):
        outbox = self.make(make_settings(outbox_max_messages=1))
        outbox.put([make_entry("a")], NOW)

        assert outbox.put([make_entry("$identify", is_identity=True)], NOW).stored == 1

    def test_an_identity_event_under_a_stop_mark_is_refused(self, outbox):
        outbox.forget([b"device"], NOW)

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

        assert (empty.depth, empty.size_bytes, empty.oldest_tracked_at, empty.dead) == (
            0,
            0,
            None,
            0,
        )
        assert (stats.depth, stats.size_bytes, stats.oldest_tracked_at) == (3, 253, NOW - 5)

    def test_ids_tell_when_all_that_was_put_before_is_gone(self, outbox):
        outbox.put([make_entry("a", "b")], NOW)
        until = outbox.stats().next_id
        outbox.put([make_entry("c")], NOW)
        assert outbox.stats().first_id < until

        outbox.split(take(outbox)[0].id)
        leased = take(outbox, max_messages=1)
        outbox.ack([item.id for item in leased])
        assert outbox.stats().first_id < until

        outbox.ack([item.id for item in take(outbox, max_messages=1)])
        assert until <= outbox.stats().first_id < outbox.stats().next_id

    def test_an_empty_outbox_has_nothing_before_its_next_id(self, outbox):
        outbox.put([make_entry("a")], NOW)
        outbox.ack([item.id for item in take(outbox)])

        assert outbox.stats().first_id == outbox.stats().next_id

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
        drainer = threading.Thread(target=drain, daemon=True)
        for thread in [*putters, drainer]:
            thread.start()
        for thread in putters:
            thread.join(TIMEOUT)
        is_over.set()
        drainer.join(TIMEOUT)

        assert len({item.id for item in taken}) == len(taken) == 800
