import multiprocessing
import random
import re
import signal
import time
import uuid
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TextIO

import pytest
import redis

from mp_asgi.delivery.outbox import redis as redis_module
from mp_asgi.delivery.outbox import redis_server
from mp_asgi.delivery.outbox.base import Leased, Outbox, Refusal, Ticket
from mp_asgi.delivery.outbox.redis import HandIn, RedisOutbox
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Endpoint
from mp_asgi.settings import Settings
from tests.delivery.outbox.contract import (
    EVENTS,
    KEEPS_ORDER,
    OutboxContract,
    find_ids,
    imbalance,
    names,
    take,
)
from tests.redis_server import RedisServer, server, shared_server
from tests.support import NOW, TIMEOUT, make_entry, make_settings, wait_for

__all__ = ["server", "shared_server"]

ENTRIES = 150  # of each producer
PEOPLE = Endpoint.PEOPLE
LATE = float("inf")  # a hand-over that has all the time there is


def refusals(count: int) -> list[Refusal]:
    return [Refusal(index, "expired", "") for index in range(count)]


def count_calls(outbox: RedisOutbox, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Answer how often the server is called from now on, by operation."""
    run, calls = outbox._server.run, Counter()

    def count(tag, arguments):
        calls[arguments[0]] += 1
        return run(tag, arguments)

    monkeypatch.setattr(outbox._server, "run", count)
    return calls


class TestRedisOutbox(OutboxContract):
    @pytest.fixture(autouse=True)
    def use(self, shared_server: RedisServer) -> None:
        self.server = shared_server

    def make(self, settings: Settings) -> Outbox:
        return RedisOutbox(self.server.url, settings, uuid.uuid4().hex)

    def test_dead_letters_of_several_answers_come_together(self, outbox, monkeypatch):
        monkeypatch.setattr(redis_module, "ROUND", 2)
        outbox.put([make_entry(*"abcde")], NOW)
        outbox.bury(find_ids(outbox)[0], refusals(5), NOW)

        assert [letter.message.name for letter in outbox.dead()] == list("abcde")
        assert [letter.message.name for letter in outbox.dead(limit=3)] == list("abc")

    def test_very_many_dead_letters_are_replayed_in_order_and_purged_by_many_calls(
        self, outbox, monkeypatch
    ):
        monkeypatch.setattr(redis_module, "ROUND", 2)
        outbox.put([make_entry(*"abcdefg")], NOW)
        outbox.bury(find_ids(outbox)[0], refusals(7), NOW)
        letters = [letter.id for letter in outbox.dead()]
        calls = count_calls(outbox, monkeypatch)

        assert outbox.replay([letters[4], *letters[:3], letters[3]], NOW) == 5
        assert outbox.purge([*letters, 999]) == 2

        assert calls["replay"] == 3
        assert calls["purge"] == 4
        assert names(take(outbox)) == [["a"], ["b"], ["c"], ["d"], ["e"]]

    def test_what_is_gone_leaves_nothing_behind_but_sums(self, outbox):
        before = self.keys_of(outbox)
        outbox.put([make_entry("a", "b", user=b"user"), make_entry("c")], NOW)
        outbox.split(find_ids(outbox)[0])
        take(outbox, seconds=1)

        outbox.ack([item.id for item in take(outbox, NOW + 60)])

        left = self.keys_of(outbox) - before
        assert left == {"i", "sizes", "totals", f"lease:{outbox._sender}"}
        client = outbox._server._client
        assert 0 < client.ttl(f"{outbox._tag}:lease:{outbox._sender}") <= redis_module.LATE_SECONDS

    def test_a_batch_that_was_never_answered_goes_entry_by_entry(self, outbox):
        outbox.put([make_entry("a"), make_entry("b")], NOW)
        for number in range(3):
            assert len(take(outbox, NOW + number, seconds=1)) == 2

        first = take(outbox, NOW + 3)
        outbox.release([item.id for item in first], NOW + 3)

        assert names(first) == [["a"]]
        assert names(take(outbox, NOW + 3)) == [["a"]]
        assert names(take(outbox, NOW + 3)) == [["b"]]

    def test_very_many_leases_that_end_at_once_end_in_rounds(self, outbox):
        outbox.put([make_entry("a", device=b"%d" % number) for number in range(2_500)], NOW)
        take(outbox, max_messages=2_500, seconds=60)

        freed = [outbox.backlog(EVENTS, NOW + 60).messages for _ in range(3)]

        assert freed == [1_000, 2_000, 2_500]

    @pytest.mark.parametrize("endpoint", sorted(KEEPS_ORDER, key=str))
    def test_rounds_keep_the_order(self, outbox, endpoint):
        entries = [make_entry(f"{number}", endpoint=endpoint) for number in range(1_500)]
        outbox.put(entries, NOW)
        take(outbox, endpoint=endpoint, seconds=60)

        taken = []
        while leased := take(outbox, NOW + 60, endpoint, max_messages=700):
            taken += [name for (name,) in names(leased)]
            outbox.ack([item.id for item in leased])

        assert taken == [f"{number}" for number in range(1_500)]

    def test_a_letter_is_dated_by_the_servers_clock(self, outbox):
        behind = RedisOutbox(
            self.server.url,
            outbox._settings,
            outbox._tag[9:-1],
            wall=lambda: time.time() - 90_000,
        )
        outbox.put([make_entry("a"), make_entry("b")], NOW)
        for number in find_ids(outbox):
            behind.bury(number, refusals(1), NOW - 90_000)

        outbox.expire(NOW)
        assert behind.replay([1], NOW - 90_000) == 1

        assert outbox.dead()[0].buried_at == pytest.approx(NOW, abs=5)
        assert outbox.expire(NOW) == 0

    def test_a_key_of_somebody_else_at_one_visitor_doubles_no_others(self, outbox):
        items = [HandIn(name, make_entry(name, user=name.encode())) for name in ("good", "bad")]
        client = outbox._server._client
        for name in ("of:bad", "alias:bad"):
            client.set(f"{outbox._tag}:{name}", "of somebody else")
            for _ in range(2):
                with pytest.raises(OutboxUnavailable, match="WRONGTYPE"):
                    outbox.take_over(items, NOW, LATE)
            self.delete(outbox, name)

        assert outbox.take_over(items, NOW, LATE).stored == 2
        assert names(take(outbox)) == [["good"], ["bad"]]

    @pytest.mark.parametrize("hours", [-1, 1], ids=["behind", "ahead"])
    def test_leases_do_not_depend_on_a_hosts_clock(self, hours):
        skew = hours * 3600.0
        project = uuid.uuid4().hex
        right = self.server.outbox(project)
        wrong = RedisOutbox(
            self.server.url, make_settings(), project, wall=lambda: time.time() + skew
        )
        right.put([make_entry("a")], NOW)
        take(right, seconds=60)

        assert take(wrong, NOW + skew + 30) == []
        assert wrong.backlog(EVENTS, NOW + skew + 30).messages == 0
        assert names(take(wrong, NOW + skew + 65)) == [["a"]]
        assert take(right, NOW + 70) == []

    def test_a_stop_of_one_host_holds_on_another(self):
        here, there = self.server.outbox("stops"), self.server.outbox("stops")
        here.put([make_entry("a")], NOW)
        here.forget([b"device"], NOW, NOW)

        assert there.put([make_entry("b")], NOW).stopped == 1
        assert take(there) == []

    def test_projects_do_not_meet(self):
        here, there = self.server.outbox("one"), self.server.outbox("two")
        here.put([make_entry("a")], NOW)

        assert there.stats().depth == 0

    def test_all_keys_are_in_one_slot(self, outbox):
        outbox.put([make_entry("a", user=b"user")], NOW)

        assert all(key.startswith(outbox._tag) for key in self.all_keys(outbox))

    def test_a_large_put_is_one_put(self, outbox):
        entries = [make_entry("a", device=b"%d" % number) for number in range(10_000)]

        assert outbox.put(entries, NOW, Ticket("journal", 1)).stored == 10_000
        assert outbox.put(entries, NOW, Ticket("journal", 1)).stored == 0
        assert outbox.ack([item.id for item in take(outbox, max_messages=10_000)]) == 10_000

    def test_many_old_entries_and_letters_are_given_up_in_rounds(self, outbox):
        outbox.put([make_entry(*["a"] * 1100)], NOW)
        outbox.bury(find_ids(outbox)[0], refusals(1100), NOW)
        outbox.put([make_entry("b") for _ in range(1100)], NOW)

        assert outbox.expire(NOW + 90_000) == 1100
        assert (outbox.stats().depth, outbox.stats().dead) == (0, 0)

    def test_old_tickets_are_forgotten(self, outbox):
        outbox.put([], NOW, Ticket("journal", 1))
        outbox.expire(NOW + 86_400)
        assert outbox.put([make_entry("a")], NOW, Ticket("journal", 1)).stored == 0

        outbox.expire(NOW + 86_401)

        assert outbox.put([make_entry("a")], NOW, Ticket("journal", 1)).stored == 1

    def test_what_is_handed_over_twice_is_taken_once(self, outbox):
        items = [HandIn("one", make_entry("a")), HandIn("two", make_entry("b"))]
        outbox.take_over(items[:1], NOW, LATE)

        assert outbox.take_over(items, NOW, LATE).stored == 1
        assert names(take(outbox)) == [["a"], ["b"]]

    def test_a_put_in_doubt_that_was_done_is_not_handed_over(self, outbox):
        doubt = Ticket("producer", 3)
        outbox.put([make_entry("a")], NOW, doubt)

        assert outbox.take_over([HandIn("one", make_entry("a"), doubt)], NOW, LATE).stored == 0

    def test_a_put_in_doubt_that_was_not_done_is_handed_over_and_never_done(self, outbox):
        doubt = Ticket("producer", 3)
        for name in "ab":
            item = HandIn(name, make_entry(name), doubt)
            assert outbox.take_over([item], NOW, LATE).stored == 1

        assert outbox.put([make_entry("a"), make_entry("b")], NOW, doubt).stored == 0
        assert names(take(outbox)) == [["a"], ["b"]]

    def test_labels_are_kept_until_nothing_can_arrive_late(self, outbox):
        item = HandIn("one", make_entry("a"))
        outbox.take_over([item], NOW, LATE)
        outbox.let_expire(["one", "never seen"], NOW)
        outbox.expire(NOW + redis_module.LATE_SECONDS)
        assert outbox.take_over([item], NOW, LATE).stored == 0

        outbox.expire(NOW + redis_module.LATE_SECONDS + 1)

        assert outbox.take_over([item], NOW, LATE).stored == 1

    def test_what_is_handed_over_meets_stops_and_bounds(self):
        outbox = self.open(outbox_max_messages=1)
        outbox.forget([b"gone"], NOW, NOW)
        entries = [make_entry("a", device=b"gone"), make_entry("b"), make_entry("c")]

        result = outbox.take_over([HandIn(str(id(item)), item) for item in entries], NOW, LATE)

        assert (result.stored, result.stopped, result.overflowed) == (1, 1, 1)

    def test_what_was_handed_over_too_late_is_not_taken(self, outbox):
        ends_at = outbox.server_time()

        assert outbox.take_over([HandIn("one", make_entry("a"))], NOW, ends_at) is None
        assert outbox.stats().totals == {}

    def test_what_may_have_met_a_mark_that_is_gone_is_not_taken_over(self, outbox):
        items = [make_entry("a", at=NOW - 86_401), make_entry("b", at=NOW - 86_400)]

        result = outbox.take_over([HandIn(str(id(item)), item) for item in items], NOW, LATE)

        assert (result.stored, result.too_old) == (1, 1)
        assert names(take(outbox)) == [["b"]]

    def test_an_old_mark_that_had_to_go_lifts_no_newer_one(self, outbox, monkeypatch):
        monkeypatch.setattr(redis_module, "MAX_STOP_MARKS", 1)
        outbox.forget([b"first"], NOW + 8, NOW + 8)
        outbox.forget([b"second"], NOW + 20, NOW + 20)

        outbox.forget([b"late"], NOW + 5, NOW + 5)

        assert outbox.put([make_entry("a", device=b"first", at=NOW + 7)], NOW + 7).stopped == 1
        assert outbox.stats().totals["marks_lost", ""] == 2

    def test_a_mark_of_a_clock_that_was_ahead_stops_nobody_else_later(self, outbox, monkeypatch):
        monkeypatch.setattr(redis_module, "MAX_STOP_MARKS", 1)
        outbox.forget([b"first", b"second"], NOW + 9_000, NOW + 9_000)

        assert outbox.put([make_entry("a", at=NOW)], NOW).stopped == 1
        assert outbox.put([make_entry("b", at=NOW + 1)], NOW + 1).stored == 1

    def test_a_host_whose_clock_is_ahead_ends_no_marks_and_no_events(self):
        days = 3 * 86_400.0
        project = uuid.uuid4().hex
        right = self.server.outbox(project, retry_budget=60, outbox_max_age=86_400)
        ahead = RedisOutbox(
            self.server.url, right._settings, project, wall=lambda: time.time() + days
        )
        right.put([make_entry("a", device=b"other")], NOW)
        right.forget([b"device"], NOW, NOW)

        ahead.put([make_entry("b", device=b"other", at=NOW + days)], NOW + days)

        assert ahead.expire(NOW + days) == 0
        assert right.put([make_entry("c", at=NOW)], NOW).stopped == 1
        assert [item.put_at for item in take(right)] == pytest.approx([NOW, NOW], abs=5)

    def test_a_visitor_of_many_events_is_forgotten_in_rounds(self, outbox):
        outbox.put([make_entry("a", user=b"user") for _ in range(2_500)], NOW)
        outbox.put([make_entry("b", at=NOW + 1)], NOW + 1)

        assert outbox.forget([b"device", b"user"], NOW, NOW + 1) == 2_500
        assert names(take(outbox)) == [["b"]]
        assert "stopping" not in self.keys_of(outbox)

    def test_between_two_rounds_nothing_is_leased_that_is_stopped(self, outbox):
        outbox.put([make_entry("a") for _ in range(2_500)], NOW)
        outbox.put([make_entry("b", device=b"other")], NOW)

        removed, *rest = outbox._call(
            "forget", "dropped:stopped", NOW, NOW, 9, rest=[b"device", "0", b"nobody", "0"]
        )

        assert 1_000 <= removed < 2_500
        assert rest
        leased = [item for _ in range(3) for item in take(outbox)]
        assert names(leased) == [["b"]]
        assert outbox.stats().totals["dropped", "stopped"] == 2_500
        outbox.expire(NOW + 86_401)
        assert "stopping" not in self.keys_of(outbox)

    def test_what_was_counted_under_a_ticket_is_counted_once(self, outbox):
        for _ in range(2):
            outbox.tally({("retried", ""): 2}, Ticket("producer", 1))

        assert outbox.stats().totals == {("retried", ""): 2}

    @pytest.mark.parametrize("name", ["heads", "i", "sizes"])
    def test_a_key_that_was_evicted_breaks_nothing(self, outbox, name):
        outbox.put([make_entry("a"), make_entry("b")], NOW)
        ids = [item.id for item in take(outbox, max_messages=1, seconds=1)]
        self.delete(outbox, name)

        outbox.split(ids[0])
        assert not outbox.bury(ids[0], refusals(1), NOW) or name == "sizes"
        outbox.backlog(EVENTS, NOW + 2)
        outbox.stats()
        take(outbox, NOW + 2)
        outbox.expire(NOW + 2)
        outbox.put([make_entry("c", device=b"other")], NOW)
        outbox.forget([b"device"], NOW, NOW)

        left = take(outbox, NOW + 3)
        assert names(left) == [["c"]]
        assert "of:device" not in self.keys_of(outbox)
        self._made.remove(outbox)  # its books cannot balance

    def test_a_replay_that_cannot_be_done_leaves_the_letters(self, outbox):
        outbox.put([make_entry("a")], NOW)
        outbox.bury(find_ids(outbox)[0], refusals(1), NOW)
        self.delete(outbox, "i")
        outbox._server._client.set(f"{outbox._tag}:i", "of somebody else")

        with pytest.raises(OutboxUnavailable, match="WRONGTYPE"):
            outbox.replay([1], NOW)

        assert len(outbox.dead()) == 1
        self.delete(outbox, "i")

    def test_dead_letters_that_were_evicted_can_be_erased(self, outbox):
        outbox.put([make_entry("a")], NOW)
        outbox.bury(find_ids(outbox)[0], refusals(1), NOW)
        self.delete(outbox, "dead")

        assert outbox.erase([b"device"], NOW, NOW) == 0

    def test_what_was_evicted_keeps_nothing_from_expiring(self, outbox):
        outbox.put([make_entry("a"), make_entry("b")], NOW)
        first, _ = find_ids(outbox)
        outbox._server._client.hdel(f"{outbox._tag}:heads", first)

        assert outbox.expire(NOW + 86_401) == 1
        self._made.remove(outbox)  # its books cannot balance

    def delete(self, outbox: Outbox, name: str) -> None:
        outbox._server._client.delete(f"{outbox._tag}:{name}")

    def keys_of(self, outbox: Outbox) -> set[str]:
        return {key.partition("}:")[2] for key in self.all_keys(outbox)}

    def all_keys(self, outbox: Outbox) -> list[str]:
        client = outbox._server._client
        return [key.decode() for key in client.keys(f"*{outbox._tag[1:-1]}*")]


def test_a_put_that_fails_half_way_is_not_taken_for_done(server):
    doubt = Ticket("producer", 1)
    items = [HandIn("one", make_entry("a"), doubt)]
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "+@all", "-sadd")
        few = server.outbox("project", url=server.url.replace("//", "//few:pw@"))
        with pytest.raises(OutboxUnavailable, match="sadd"):
            few.put([make_entry("a")], NOW, doubt)
        with pytest.raises(OutboxUnavailable, match="sadd"):
            few.take_over(items, NOW, LATE)
        client.execute_command("ACL", "SETUSER", "few", "+sadd")

    assert few.take_over(items, NOW, LATE).stored == 1
    assert names(take(few)) == [["a"]]
    assert few.stats().totals == {("accepted", ""): 1}


def test_what_cannot_be_done_whole_is_not_begun(server):
    outbox = server.outbox("project")
    with redis.Redis.from_url(server.url) as client:
        client.set("{mp-asgi:project}:e", "of somebody else")
        with pytest.raises(OutboxUnavailable, match="WRONGTYPE"):
            outbox.put([make_entry("a"), make_entry("b", endpoint=PEOPLE)], NOW)
        client.delete("{mp-asgi:project}:e")

    assert take(outbox) == []


def test_ids_of_before_a_loss_settle_nothing_of_after_it(server, caplog):
    outbox = server.outbox("project")
    outbox.put([make_entry("a")], NOW)
    outbox.put([make_entry("b")], NOW)
    before = take(outbox)
    assert caplog.text == ""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()

    for name in "cd":
        outbox.put([make_entry(name)], NOW)

    assert outbox.ack([item.id for item in before]) == 0
    assert names(take(outbox)) == [["c"], ["d"]]
    assert caplog.text.count("has lost the outbox") == 1


def test_a_server_that_is_full_stops_and_buries_and_takes_nothing_new(server):
    outbox = server.outbox()
    outbox.put([make_entry("a", "b"), make_entry("c"), make_entry("d", device=b"gone")], NOW)
    first, second, _ = take(outbox)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1")
        client.config_set("maxmemory-policy", "noeviction")

    assert outbox.forget([b"gone"], NOW, NOW) == 1
    assert outbox.bury(second.id, refusals(1), NOW)
    outbox.split(first.id)
    with pytest.raises(OutboxUnavailable, match="OutOfMemory"):
        outbox.put([make_entry("e")], NOW)

    assert (outbox.stats().depth, outbox.stats().dead) == (2, 1)


@pytest.mark.parametrize(
    ("memory", "policy", "told"),
    [
        pytest.param("100mb", "allkeys-lru", 1, id="any-key-goes"),
        pytest.param("100mb", "volatile-lru", 0, id="only-what-has-an-end"),
        pytest.param("0", "allkeys-lru", 0, id="no-bound"),
    ],
)
def test_a_server_that_would_evict_events_is_told_once(server, caplog, memory, policy, told):
    outbox = server.outbox()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", memory)
        client.config_set("maxmemory-policy", policy)

    outbox.stats()
    outbox.stats()

    assert caplog.text.count("maxmemory-policy allkeys-lru") == told


def test_a_put_that_arrives_after_its_timeout_is_repeated_under_its_ticket(server, monkeypatch):
    monkeypatch.setattr(redis_server, "TIMEOUT_SECONDS", 0.2)
    outbox = server.outbox()
    outbox.stats()
    server.send(signal.SIGSTOP)
    with pytest.raises(OutboxUnavailable):
        outbox.put([make_entry("a")], NOW, Ticket("producer", 1))
    server.send(signal.SIGCONT)

    outbox.put([make_entry("a")], NOW, Ticket("producer", 1))

    assert names(take(outbox)) == [["a"]]
    assert imbalance(outbox) == 0


class Late:
    """A drainer whose lease was done by the server, and the answer came too late."""

    def __init__(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_server, "TIMEOUT_SECONDS", 0.2)
        self.outbox = server.outbox("late")
        self.other = server.outbox("late")
        adds = [make_entry(name, endpoint=PEOPLE, is_repeatable=False) for name in "ab"]
        self.outbox.put(adds, NOW)
        server.send(signal.SIGSTOP)
        with pytest.raises(OutboxUnavailable):
            take(self.outbox, endpoint=PEOPLE, max_messages=1, seconds=60)
        server.send(signal.SIGCONT)
        wait_for(lambda: self.other.stats().leased == 1)

    def take(self, outbox: RedisOutbox, now: float = NOW) -> list[tuple[str, bool]]:
        return [
            (item.entry.messages[0].name, item.is_overdue) for item in take(outbox, now, PEOPLE)
        ]


def test_a_lease_whose_answer_was_lost_is_taken_back(server, monkeypatch):
    late = Late(server, monkeypatch)

    assert late.other.backlog(PEOPLE, NOW).messages == 0
    assert late.outbox.backlog(PEOPLE, NOW).messages == 2
    assert late.outbox.stats().leased == 0
    assert late.take(late.other) == [("a", False), ("b", False)]


def test_a_lease_that_was_lost_and_is_anothers_by_now_stays_his(server, monkeypatch):
    late = Late(server, monkeypatch)

    assert late.take(late.other, NOW + 70) == [("a", True), ("b", False)]
    assert late.take(late.outbox, NOW + 70) == []


def test_a_lease_that_arrives_after_it_was_taken_back_takes_nothing(server):
    outbox = server.outbox()
    outbox.put([make_entry("a")], NOW)
    outbox._doubtful_lease = outbox._lease_number = 5
    outbox.backlog(EVENTS, NOW)

    outbox._lease_number = 4
    assert take(outbox) == []
    assert names(take(outbox)) == [["a"]]


def test_a_lease_is_taken_back_from_a_server_that_is_full(server, monkeypatch):
    late = Late(server, monkeypatch)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1")

    assert late.outbox.backlog(PEOPLE, NOW).messages == 2


class Packets:
    """What an outbox has sent to the server, to arrive late, or once more."""

    def __init__(self, outbox: RedisOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self._run = outbox._server.run
        self._sent = {}
        self._lost = ""
        monkeypatch.setattr(outbox._server, "run", self._send)

    def lose_answer(self, name: str) -> None:
        self._lost = name

    def arrive(self, name: str) -> None:
        self._run(*self._sent[name])

    def _send(self, tag, arguments):
        self._sent[arguments[0]] = (tag, arguments)
        answer = self._run(tag, arguments)
        if arguments[0] == self._lost:
            self._lost = ""
            raise OutboxUnavailable(arguments[0])
        return answer


class Drainers:
    """Two drainers, and increments that Mixpanel would count twice."""

    def __init__(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        project = uuid.uuid4().hex
        self.one, self.other = server.outbox(project), server.outbox(project)
        self.one.put([make_entry(*"abcd", endpoint=PEOPLE, is_repeatable=False)], NOW)
        self.packets = Packets(self.one, monkeypatch)
        (leased,) = self.take("one")
        self.id = leased.id

    def take(self, name: str, now: float = NOW) -> list[Leased]:
        return take(getattr(self, name), now, PEOPLE, seconds=60)


@pytest.fixture
def drainers(shared_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Drainers:
    return Drainers(shared_server, monkeypatch)


@pytest.mark.parametrize("taker", ["one", "other"])
def test_a_release_that_arrives_late_ends_no_newer_lease(drainers, taker):
    drainers.one.release([drainers.id], NOW)
    drainers.take(taker)

    drainers.packets.arrive("release")

    assert drainers.take("other") == []
    assert drainers.one.stats().leased == 4
    (again,) = drainers.take("other", NOW + 60)
    assert (again.is_overdue, again.attempts) == (True, 1)


def test_a_release_that_arrives_late_takes_nobody_for_alive(drainers):
    drainers.one.release([drainers.id], NOW)
    drainers.take("other")
    drainers.one.backlog(PEOPLE, NOW + 60)

    drainers.packets.arrive("release")

    assert [item.is_overdue for item in drainers.take("one", NOW + 60)] == [True]


@pytest.mark.parametrize("taker", ["one", "other"])
def test_a_split_that_arrives_late_halves_nothing_that_is_leased_since(drainers, taker):
    drainers.one.split(drainers.id)
    halves = drainers.take(taker)

    drainers.packets.arrive("split")

    assert names(halves) == [["a", "b"], ["c", "d"]]
    assert drainers.take("other") == []
    assert getattr(drainers, taker).ack([item.id for item in halves]) == 4
    assert drainers.one.stats().depth == 0


@pytest.mark.parametrize("name", ["release", "split"])
def test_what_was_done_without_an_answer_is_done_once(drainers, name):
    arguments = (drainers.id,) if name == "split" else ([drainers.id], NOW)
    drainers.packets.lose_answer(name)
    with pytest.raises(OutboxUnavailable):
        getattr(drainers.one, name)(*arguments)
    taken = drainers.take("other")

    getattr(drainers.one, name)(*arguments)

    assert drainers.take("one") == []
    assert drainers.other.ack([item.id for item in taken]) == 4


@pytest.mark.parametrize("name", ["release", "split"])
def test_what_another_has_leased_is_neither_given_back_nor_halved(drainers, name):
    arguments = (drainers.id,) if name == "split" else ([drainers.id], NOW)

    getattr(drainers.other, name)(*arguments)

    assert drainers.take("other") == []
    assert drainers.one.ack([drainers.id]) == 4


@pytest.mark.parametrize(
    "settle",
    [
        pytest.param(lambda outbox, number: outbox.ack([number]), id="ack"),
        pytest.param(lambda outbox, number: outbox.drop([number], "withdrawn"), id="drop"),
        pytest.param(lambda outbox, number: outbox.release([number], NOW), id="release"),
        pytest.param(lambda outbox, number: outbox.split(number), id="split"),
        pytest.param(lambda outbox, number: outbox.bury(number, refusals(4), NOW), id="bury"),
        pytest.param(lambda outbox, number: take(outbox, NOW + 60), id="run-out"),
    ],
)
def test_a_lease_is_remembered_only_while_it_lasts(drainers, settle):
    assert list(drainers.one._held) == [drainers.id]

    settle(drainers.one, drainers.id)

    assert drainers.one._held == {}


def test_a_user_of_the_documented_acl_may_do_everything(server):
    text = (Path(__file__).parents[3] / "docs" / "scaling.md").read_text()
    rules = re.search(r"^  `ACL SETUSER app on >password (.*)`", text, re.MULTILINE)
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rules[1].split())
        outbox = server.outbox("project", url=server.url.replace("//", "//app:pw@"))
        outbox.put([make_entry("a", "b", user=b"user"), make_entry("c")], NOW, Ticket("x", 1))
        outbox.take_over(
            [HandIn("one", make_entry("d", device=b"x"))], NOW, outbox.server_time() + 9
        )
        outbox.let_expire(["one"], NOW)
        outbox.split(find_ids(outbox)[0])
        first, second, third, _ = take(outbox)
        outbox.ack([first.id])
        outbox.bury(second.id, refusals(1), NOW)
        outbox.release([third.id], NOW)
        outbox.replay([letter.id for letter in outbox.dead()], NOW)
        outbox.purge([1])
        outbox.tally({("retried", ""): 1})
        outbox.forget([b"user"], NOW, NOW)
        outbox.erase([b"device"], NOW, NOW)
        outbox.expire(NOW + 31 * 86_400)
        outbox._doubtful_lease = outbox._lease_number
        outbox.backlog(EVENTS, NOW)

        assert outbox.is_past(outbox.horizon())
        assert imbalance(outbox) == 0
        denied = [item for item in client.acl_log() if item["object"] not in {"client|setinfo"}]
        assert denied == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_server_that_starts_again_has_everything(server, number):
    outbox = server.outbox()
    outbox.put([make_entry("a"), make_entry("b")], NOW)
    (first,) = take(outbox, max_messages=1)

    server.stop(number)
    server.start()

    assert names(take(outbox)) == [["b"]]
    assert outbox.ack([first.id]) == 1
    assert names(take(outbox, NOW + 60)) == [["b"]]


def produce(url: str, project: str, number: int) -> None:
    """Put entries under tickets; one that was killed goes on where its server says it was."""
    outbox = RedisOutbox(url, make_settings(), project)
    for index in range(ENTRIES):
        event = make_entry(f"{number}-{index}", device=b"%d" % number)
        add = make_entry(f"add-{number}-{index}", endpoint=PEOPLE, is_repeatable=False)
        outbox.put([event, add], time.time(), Ticket(f"producer {number}", index))


def drain(url: str, project: str, directory: str) -> None:
    """Write down what would be sent; what may have been sent by the dead is not repeated."""
    outbox = RedisOutbox(url, make_settings(), project)
    with (Path(directory) / f"{uuid.uuid4().hex}").open("a") as sent:
        while True:
            for endpoint in (EVENTS, PEOPLE):
                for item in outbox.lease(
                    endpoint, time.time(), max_messages=7, max_bytes=10**6, seconds=0.3
                ):
                    deliver(outbox, item, sent)


def deliver(outbox: RedisOutbox, item: Leased, sent: TextIO) -> None:
    if item.is_overdue and not item.entry.is_repeatable:
        outbox.bury(item.id, [Refusal(0, "answer_lost", "")], time.time())
        return
    sent.write(item.entry.messages[0].name + "\n")
    sent.flush()
    outbox.ack([item.id])


def test_nothing_is_lost_or_sent_twice_when_producers_and_drainers_are_killed(server, tmp_path):
    seed = random.Random(5)
    spawn = multiprocessing.get_context("spawn")
    project, directory = "killed", tmp_path / "sent"
    directory.mkdir()
    outbox = server.outbox(project)

    def start(number: int) -> BaseProcess:
        arguments = (server.url, project, number if number < 3 else str(directory))
        process = spawn.Process(target=produce if number < 3 else drain, args=arguments)
        process.start()
        return process

    processes = {number: start(number) for number in range(6)}
    for _ in range(6):
        number = seed.randrange(6)
        depth = outbox.stats().totals.get(("accepted", ""), 0)
        goal = min(depth + 40, 6 * ENTRIES)
        wait_for(lambda goal=goal: outbox.stats().totals.get(("accepted", ""), 0) >= goal)
        processes[number].kill()
        processes[number].join(TIMEOUT)
        processes[number] = start(number)
    for number in range(3):
        processes[number].join(3 * TIMEOUT)
    wait_for(lambda: not outbox.stats().depth)
    for number in range(3, 6):
        processes[number].kill()
        processes[number].join(TIMEOUT)

    sent = [line for file in directory.iterdir() for line in file.read_text().split()]
    adds = [name for name in sent if name.startswith("add")]
    buried = [letter.message.name for letter in outbox.dead()]
    events = {f"{number}-{index}" for number in range(3) for index in range(ENTRIES)}
    assert set(sent) - set(adds) == events
    assert len(adds) == len(set(adds))
    assert {*adds, *buried} == {f"add-{event}" for event in events}
    assert imbalance(outbox) == 0
    assert outbox.stats().totals["accepted", ""] == 6 * ENTRIES
