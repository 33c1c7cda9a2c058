import logging
from collections import Counter
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from mp_asgi.delivery.complaints import MAX_BURIALS
from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.lanes import PROBE_SECONDS
from mp_asgi.delivery.outbox.base import MAX_UNREPEATABLE
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.pump import (
    EXPIRE_SECONDS,
    GATHER_SECONDS,
    LEASE_SECONDS,
    MAX_WAIT_SECONDS,
    MIN_POLL_SECONDS,
    Batch,
    Pump,
    Send,
    Wait,
)
from mp_asgi.delivery.transport import Reply
from mp_asgi.errors import OutboxUnavailable, Unavailable
from mp_asgi.events import MAX_BATCH_BYTES, Endpoint, Entry
from tests.support import NOW, json_reply, make_entry, make_settings, success

ALIASES, PEOPLE = Endpoint.ALIASES, Endpoint.PEOPLE
REFUSED = Reply(400, b"no")
PROFILE_REFUSED = json_reply(200, {"error": "$token, missing or empty", "status": 0})
REFUSED_CONNECTION = Unavailable("cannot be reached", is_sent=False)
LOST = Unavailable("gave no reply", is_sent=True)


class Bench:
    """A pump with its outbox; `send` takes the step that must be a Send."""

    def __init__(self, **settings: Any) -> None:
        self.now = NOW
        self.settings = make_settings(**settings)
        self.outbox = MemoryOutbox(self.settings)
        self.counters = Counters()
        self.pump = Pump(self.outbox, self.settings, self.counters, lambda: 0.5)

    def put(self, *entries: Entry) -> None:
        self.outbox.put(entries, self.now)

    def step(self, *, is_flushing: bool = True) -> Send | Wait:
        return self.pump.next_step(self.now, is_flushing=is_flushing)

    def send(self, *, is_flushing: bool = True) -> Batch:
        step = self.step(is_flushing=is_flushing)
        assert isinstance(step, Send), step
        return step.batch

    def wait(self, *, is_flushing: bool = True) -> float:
        step = self.step(is_flushing=is_flushing)
        assert isinstance(step, Wait), step
        return step.seconds

    def exchange(self, reply: Reply | None = None) -> list[str]:
        batch = self.send()
        reply = reply or success(batch.endpoint, len(batch.messages))
        self.pump.receive(batch, reply, self.now)
        return names(batch)

    def suffer(self, fault: Reply | Unavailable) -> None:
        """Send a batch that gets this reply or none; then a minute passes."""
        batch = self.send()
        if isinstance(fault, Reply):
            self.pump.receive(batch, fault, self.now)
        else:
            self.pump.fail(batch, fault, self.now)
        self.now += 60

    def drain(self, bad: str, reply: Reply) -> list[list[str]]:
        """Send until nothing waits; every batch with the bad message is refused."""
        sent = []
        while self.outbox.stats().depth:
            batch = self.send()
            sent.append(names(batch))
            answer = reply if bad in names(batch) else success(batch.endpoint)
            self.pump.receive(batch, answer, self.now)
        return sent

    def dead(self) -> list[tuple[str, str]]:
        return [(letter.message.name, letter.reason) for letter in self.outbox.dead()]


def names(batch: Batch) -> list[str]:
    return [message.name for message in batch.messages]


def test_an_empty_outbox_lets_the_driver_sleep():
    assert Bench().wait() == MAX_WAIT_SECONDS


def test_a_batch_gathers_for_the_flush_interval():
    bench = Bench(flush_interval=5.0)
    bench.put(make_entry("a"))
    bench.now += 2
    bench.put(make_entry("b"))

    assert bench.wait(is_flushing=False) == 3
    bench.now += 3
    assert names(bench.send(is_flushing=False)) == ["a", "b"]


def test_a_batch_full_of_messages_leaves_at_once():
    bench = Bench(batch_size=3)
    bench.put(make_entry("a", "b"), make_entry("c"), make_entry("d"))

    assert names(bench.send(is_flushing=False)) == ["a", "b", "c"]


def test_a_batch_full_of_bytes_leaves_at_once():
    bench = Bench()
    bench.put(*(make_entry(name, size_bytes=900_000) for name in "abc"))

    batch = bench.send(is_flushing=False)

    assert names(batch) == ["a", "b"]
    assert len(batch.body()) <= MAX_BATCH_BYTES


def test_a_batch_renders_the_frozen_bytes_as_one_array():
    bench = Bench()
    bench.put(make_entry("a"), make_entry("b"))

    assert bench.send().body() == b'[{"event":"a","fill":""},{"event":"b","fill":""}]'


def test_a_clock_set_back_does_not_keep_a_batch():
    bench = Bench()
    bench.put(make_entry("a"))
    bench.now -= 3600

    assert names(bench.send(is_flushing=False)) == ["a"]


def test_endpoints_are_served_in_turn():
    bench = Bench(batch_size=1)
    bench.put(*(make_entry(name) for name in "abc"))
    bench.put(*(make_entry(name, endpoint=PEOPLE) for name in "pq"))
    bench.put(make_entry("g", endpoint=Endpoint.GROUPS))

    sent = [bench.exchange()[0] for _ in range(6)]

    assert sent == ["a", "p", "g", "b", "q", "c"]


def test_an_entry_beyond_the_batch_size_is_split_before_it_leaves():
    bench = Bench(batch_size=2)
    bench.put(make_entry("a", "b", "c", "d", "e"))

    assert [bench.exchange() for _ in range(3)] == [["a", "b"], ["c"], ["d", "e"]]


def test_an_entry_beyond_the_bytes_of_a_request_is_split_before_it_leaves():
    bench = Bench()
    bench.put(make_entry("a", "b", "c", size_bytes=800_000))

    assert [bench.exchange() for _ in range(2)] == [["a"], ["b", "c"]]


def test_a_success_is_delivered():
    bench = Bench()
    bench.put(make_entry("a", "b"))

    bench.exchange()

    assert bench.counters.snapshot().delivered == 2
    assert bench.outbox.stats().depth == 0


def test_a_batch_that_was_forgotten_in_flight_counts_nowhere_again():
    bench = Bench()
    bench.put(make_entry("a"), make_entry("b", device=b"other"))
    batch = bench.send()
    bench.outbox.forget([b"device"], NOW, NOW)

    bench.pump.receive(batch, success(Endpoint.EVENTS, 2), NOW)

    assert bench.counters.snapshot().delivered == 1


def test_a_burial_of_what_was_forgotten_in_flight_counts_nowhere_again():
    bench = Bench()
    bench.put(make_entry("a"))
    batch = bench.send()
    bench.outbox.forget([b"device"], NOW, NOW)

    bench.pump.receive(batch, REFUSED, NOW)

    assert (bench.counters.snapshot().buried, bench.dead()) == (0, [])


def test_a_400_buries_exactly_what_it_names():
    bench = Bench()
    bench.put(make_entry("a", "b"), make_entry("c"), make_entry("d", "e"))
    records = [{"index": index, "field": "f", "message": "m"} for index in (1, 3, 4)]

    bench.exchange(json_reply(400, {"failed_records": records}))

    assert bench.dead() == [(name, "rejected") for name in "bde"]
    assert bench.outbox.dead()[0].reply == "f: m"
    stats = bench.counters.snapshot()
    assert (stats.delivered, stats.buried, bench.outbox.stats().depth) == (2, 3, 0)


@pytest.mark.parametrize(
    ("endpoint", "reply", "kept"),
    [
        pytest.param(
            Endpoint.EVENTS, REFUSED, "status 400, not Mixpanel's: 2 bytes", id="unreadable-400"
        ),
        pytest.param(PEOPLE, PROFILE_REFUSED, "$token, missing or empty", id="status-zero"),
    ],
)
@pytest.mark.parametrize("bad", list("aehi"))
def test_a_refusal_without_a_culprit_is_halved_down_to_it(endpoint, reply, kept, bad):
    bench = Bench()
    bench.put(*(make_entry(name, endpoint=endpoint) for name in "abcde"))
    bench.put(make_entry(*"fghi", endpoint=endpoint))

    sent = bench.drain(bad, reply)

    assert bench.dead() == [(bad, "rejected")]
    assert bench.outbox.dead()[0].reply == kept
    assert bench.counters.snapshot().delivered == 8
    delivered = [name for batch in sent if bad not in batch for name in batch]
    assert sorted([*delivered, bad]) == list("abcdefghi")


def test_a_halved_batch_leaves_without_gathering_again():
    bench = Bench()
    bench.put(*(make_entry(name) for name in "abcd"))
    bench.exchange(REFUSED)

    assert names(bench.send(is_flushing=False)) == ["a", "b"]


def test_batches_widen_again_after_the_culprit():
    bench = Bench(batch_size=4)
    bench.put(*(make_entry(name) for name in "abcdefghijk"))

    sent = bench.drain("a", REFUSED)

    assert sent == [list("abcd"), ["a", "b"], ["a"], ["b"], ["c", "d"], list("efgh"), list("ijk")]


def test_a_second_lone_refusal_in_a_row_slows_down():
    bench = Bench(batch_size=1)
    bench.put(*(make_entry(name) for name in "abcd"))

    assert [bench.exchange(REFUSED), bench.exchange(REFUSED)] == [["a"], ["b"]]
    assert bench.wait() == 1
    bench.now += 1
    bench.exchange(REFUSED)
    assert bench.wait() == 2


def test_a_lone_refusal_after_a_success_does_not_slow_down():
    bench = Bench(batch_size=1)
    bench.put(*(make_entry(name) for name in "abcd"))

    bench.exchange(REFUSED)
    bench.exchange()
    bench.exchange(REFUSED)

    assert bench.exchange() == ["d"]


def test_a_413_is_halved_by_bytes():
    bench = Bench()
    bench.put(*(make_entry(name, size_bytes=1000) for name in "abcd"))
    bench.exchange(Reply(413, b""))

    assert bench.exchange() == ["a", "b"]
    assert bench.exchange() == ["c", "d"]


def test_a_413_splits_a_single_entry_and_buries_a_single_message():
    bench = Bench()
    bench.put(make_entry("a", "b", size_bytes=1000))
    bench.exchange(Reply(413, b""))
    bench.exchange(Reply(413, b"request exceeds max limit"))
    bench.exchange()

    assert bench.dead() == [("a", "too_large")]
    assert bench.counters.snapshot().delivered == 1


def test_what_mixpanel_does_not_count_is_delivered_counted_and_said_once(caplog):
    bench = Bench(batch_size=3)
    bench.put(make_entry(*"abcdef"))

    for imported in (1, 3):
        bench.exchange(json_reply(200, {"code": 200, "num_records_imported": imported}))
    bench.put(make_entry("g"))
    bench.exchange(success(Endpoint.EVENTS, 0))

    stats = bench.counters.snapshot()
    assert (stats.delivered, stats.other) == (7, {"unimported": 3})
    (message,) = caplog.messages
    assert "a batch of 3 events, but counts 2 of them less" in message


def test_a_dead_letter_keeps_nothing_that_a_reply_repeats():
    bench = Bench(service_account_username="u", service_account_secret="acc0unt", project_id="1")
    bench.put(make_entry("a"), make_entry("b"), make_entry("c"))

    bench.exchange(Reply(413, b"you sent user-17 with t0ken"))
    bench.exchange(json_reply(413, {"error": "t0ken and acc0unt", "sent": "user-17"}))
    record = {"index": 0, "field": "properties.token", "message": "t0ken of acc0unt"}
    bench.exchange(json_reply(400, {"failed_records": [record], "sent": "user-17"}))

    assert [letter.reply for letter in bench.outbox.dead()] == [
        "*** and ***",
        "properties.token: *** of ***",
    ]


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_a_wrong_door_stops_loudly_and_keeps(status, caplog):
    bench = Bench(retry_budget=3600.0)
    bench.put(make_entry("a"))
    bench.now += 7200

    bench.exchange(json_reply(status, {"error": "Invalid\r\ncredentials", "status": 0}))
    assert bench.wait() == 60
    bench.now += 60
    bench.exchange(Reply(status, b"Invalid credentials"))

    assert bench.outbox.stats().depth == 1
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"status {status} (Invalid  credentials)" in record.message
    assert "MIXPANEL_TOKEN" in record.message
    assert "MIXPANEL_REGION" in record.message


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(404, b"<html>you sent user-17"), id="no-json"),
        pytest.param(json_reply(404, ["user-17"]), id="no-object"),
        pytest.param(json_reply(404, {"message": "user-17"}), id="no-error"),
        pytest.param(json_reply(404, {"error": {"sent": "user-17"}}), id="error-is-no-text"),
        pytest.param(json_reply(401, {"error": "t0ken of " + "x" * 200 + "user-17"}), id="long"),
        pytest.param(json_reply(401, {"error": "x" * 198 + "t0ken"}), id="cut-in-a-secret"),
        pytest.param(json_reply(401, {"error": "acc0unt and t0ken"}), id="secrets"),
    ],
)
def test_the_log_of_a_wrong_door_holds_no_id_and_no_secret(reply, caplog):
    bench = Bench(service_account_username="u", service_account_secret="acc0unt", project_id="1")
    bench.put(make_entry("a"))

    bench.exchange(reply)

    (message,) = caplog.messages
    assert not [secret for secret in ("user-17", "t0", "acc0unt") if secret in message]


def test_a_door_that_opens_again_is_announced(caplog):
    bench = Bench()
    bench.put(make_entry("a"))
    bench.exchange(Reply(401, b""))
    bench.now += 60
    caplog.clear()

    bench.exchange()

    assert caplog.messages == ["Mixpanel takes /import again, after 1 failed requests."]
    assert bench.counters.snapshot().delivered == 1


def test_an_hour_of_a_flapping_host_is_two_log_lines(caplog):
    bench = Bench()
    faults = [LOST, Reply(502, b""), success(Endpoint.EVENTS)]

    for _ in range(120):
        bench.put(make_entry("a", at=bench.now))
        for fault in faults:
            bench.suffer(fault)
            bench.now -= 50

    assert caplog.messages == [
        "Sending to /import failed and is tried again: gave no reply.",
        "Sending to /import failed and is tried again: status 502.",
    ]


def test_a_blocked_endpoint_does_not_hold_up_the_others():
    bench = Bench()
    bench.put(make_entry("a"), make_entry("p", endpoint=PEOPLE))

    bench.exchange(Reply(401, b""))

    assert bench.exchange() == ["p"]


def test_a_busy_host_is_retried_after_a_pause():
    bench = Bench()
    bench.put(make_entry("a", "b"))

    bench.exchange(Reply(503, b""))

    assert bench.wait() == 1
    bench.now += 1
    assert bench.send().leased[0].attempts == 1
    assert bench.counters.snapshot().retried == 2


def test_each_failure_in_a_row_doubles_the_pause():
    bench = Bench()
    bench.put(make_entry("a"))
    pauses = []

    for _ in range(3):
        bench.exchange(Reply(500, b""))
        pauses.append(bench.wait())
        bench.now += pauses[-1]

    assert pauses == [1, 2, 4]


def test_retry_after_is_obeyed_as_a_minimum():
    bench = Bench()
    bench.put(make_entry("a"))

    bench.exchange(json_reply(429, {}, retry_after="30"))

    assert bench.wait() == 30


def test_a_refused_connection_keeps_everything_and_rests_the_whole_host():
    bench = Bench()
    bench.put(make_entry("add", endpoint=PEOPLE, is_repeatable=False), make_entry("a"))
    batch = bench.send()

    bench.pump.fail(batch, REFUSED_CONNECTION, NOW)

    assert bench.wait() == 1
    assert bench.outbox.stats().depth == 2


def test_an_answer_on_one_endpoint_ends_the_rest_of_the_host():
    bench = Bench()
    bench.put(make_entry("a"), make_entry("p", endpoint=PEOPLE))
    bench.pump.fail(bench.send(), REFUSED_CONNECTION, NOW)
    bench.now += 1
    bench.pump.fail(bench.send(), REFUSED_CONNECTION, bench.now)
    bench.now += 2

    bench.exchange()
    bench.put(make_entry("g", endpoint=Endpoint.GROUPS))
    bench.pump.fail(bench.send(), REFUSED_CONNECTION, bench.now)

    assert bench.pump._host.remaining(bench.now) == 1


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_a_lost_answer_repeats_what_is_repeatable(endpoint):
    bench = Bench()
    bench.put(make_entry("set", endpoint=endpoint))

    bench.pump.fail(bench.send(), LOST, NOW)
    bench.now += 60

    assert names(bench.send()) == ["set"]


def test_a_lost_answer_buries_what_would_count_twice():
    bench = Bench()
    bench.put(make_entry("add", endpoint=PEOPLE, is_repeatable=False))
    bench.put(make_entry("set", endpoint=PEOPLE))

    bench.pump.fail(bench.send(), LOST, NOW)

    assert bench.dead() == [("add", "answer_lost")]
    assert bench.outbox.stats().depth == 1


@pytest.mark.parametrize("is_repeatable", [True, False])
def test_an_answer_that_is_not_mixpanels_is_a_lost_one(is_repeatable):
    bench = Bench()
    bench.put(make_entry("p", endpoint=PEOPLE, is_repeatable=is_repeatable))

    bench.exchange(Reply(200, b"<html>"))

    assert bench.outbox.stats().depth == is_repeatable
    assert bench.dead() == [("p", "answer_lost")] * (not is_repeatable)


@pytest.mark.parametrize("status", [429, 503])
def test_an_answer_is_an_answer_even_for_what_would_count_twice(status):
    bench = Bench()
    bench.put(make_entry("add", endpoint=PEOPLE, is_repeatable=False))

    bench.exchange(Reply(status, b""))
    bench.now += 60

    assert names(bench.send()) == ["add"]


@pytest.mark.parametrize("is_repeatable", [True, False])
def test_a_gateway_that_gave_up_is_a_lost_answer(is_repeatable):
    bench = Bench()
    bench.put(make_entry("p", endpoint=PEOPLE, is_repeatable=is_repeatable))

    bench.exchange(Reply(504, b"", {"retry-after": "9"}))

    assert bench.outbox.stats().depth == is_repeatable
    assert bench.dead() == [("p", "answer_lost")] * (not is_repeatable)
    assert bench.wait() == (9 if is_repeatable else MAX_WAIT_SECONDS)


def test_who_ended_without_a_word_may_have_sent_what_would_count_twice():
    bench = Bench()
    bench.put(make_entry("add", endpoint=PEOPLE, is_repeatable=False))
    bench.put(make_entry("set", endpoint=PEOPLE))
    bench.send()
    bench.now += LEASE_SECONDS

    assert names(bench.send()) == ["set"]
    assert bench.dead() == [("add", "answer_lost")]


def test_who_ended_without_a_word_did_not_send_what_they_did_not_hold():
    bench = Bench()
    bench.put(make_adds("a"))
    bench.send()
    bench.put(make_adds("b"))
    bench.now += LEASE_SECONDS

    assert bench.exchange() == ["b"]
    assert bench.dead() == [("a", "answer_lost")]


def test_who_ended_before_they_split_it_sent_nothing_of_it():
    bench = Bench()
    many = [f"add{number}" for number in range(MAX_UNREPEATABLE + 1)]
    bench.put(make_adds(*many))
    limits = {"max_messages": 1, "max_bytes": 1, "seconds": LEASE_SECONDS}
    bench.outbox.lease(PEOPLE, NOW, **limits)
    bench.now += LEASE_SECONDS

    assert bench.exchange() + bench.exchange() == many
    assert bench.dead() == []


def make_adds(*names: str, **fields: Any) -> Entry:
    return make_entry(*names, endpoint=PEOPLE, is_repeatable=False, **fields)


def test_what_would_count_twice_travels_in_small_batches_of_its_own():
    bench = Bench()
    bench.put(make_entry("p", endpoint=PEOPLE), make_adds("q"), make_adds("r", "s"))
    bench.put(make_entry("t", endpoint=PEOPLE))
    bench.put(*(make_adds("add") for _ in range(MAX_UNREPEATABLE + 1)))

    sent = [bench.exchange() for _ in range(5)]

    assert sent[:3] == [["p"], ["q", "r", "s"], ["t"]]
    assert [len(batch) for batch in sent[3:]] == [MAX_UNREPEATABLE, 1]


@pytest.mark.parametrize("fault", [LOST, Reply(502, b""), Reply(200, b"?"), PROFILE_REFUSED])
def test_what_would_count_twice_shares_the_fate_of_its_batch(fault):
    bench = Bench()
    bench.put(make_adds("a"), make_adds("b", "c"))

    bench.suffer(fault)

    assert bench.dead() == [(name, "answer_lost") for name in "abc"]


@pytest.mark.parametrize("fault", [REFUSED_CONNECTION, Reply(503, b""), Reply(401, b"")])
def test_what_would_count_twice_and_was_not_taken_goes_again(fault):
    bench = Bench()
    bench.put(make_adds("a"), make_adds("b", "c"))

    bench.suffer(fault)

    assert bench.exchange() == ["a", "b", "c"]


def test_a_culprit_takes_no_second_batch_along():
    bench = Bench()
    bench.put(make_adds("a"), make_adds("bad"), make_adds("b"))
    bench.exchange(PROFILE_REFUSED)
    bench.put(make_adds("worse"), make_adds("c", "d"))

    bench.exchange(PROFILE_REFUSED)

    assert [bench.exchange(), bench.exchange()] == [["c"], ["d"]]
    lost = [(name, "answer_lost") for name in ("a", "bad", "b")]
    assert bench.dead() == [*lost, ("worse", "rejected")]


def test_an_outage_takes_a_batch_along_once_and_then_one_update_at_a_time():
    bench = Bench()
    bench.put(*(make_adds(name) for name in "abcdef"))
    bench.suffer(LOST)
    bench.put(*(make_adds(name) for name in "ghijk"))

    bench.suffer(LOST)

    assert bench.dead() == [(name, "answer_lost") for name in "abcdefg"]
    assert [bench.exchange() for _ in range(3)] == [["h"], ["i", "j"], ["k"]]


def test_what_would_count_twice_and_was_too_large_is_halved():
    bench = Bench()
    bench.put(*(make_adds(name, size_bytes=1000) for name in "abcd"))
    bench.exchange(Reply(413, b""))

    assert [bench.exchange(), bench.exchange()] == [["a", "b"], ["c", "d"]]
    assert bench.dead() == []


def test_halving_never_repeats_what_would_count_twice():
    bench = Bench()
    bench.put(make_entry("p", "bad", endpoint=PEOPLE))
    bench.put(make_entry("add", "bad", endpoint=PEOPLE, is_repeatable=False))

    sent = bench.drain("bad", PROFILE_REFUSED)

    assert sum("add" in batch for batch in sent) == 1


def test_what_was_tried_for_the_retry_budget_is_buried():
    bench = Bench(retry_budget=180.0)
    bench.put(make_entry("old"))
    bench.exchange(Reply(503, b"busy"))
    bench.now += 60
    bench.put(make_entry("young"))
    for _ in range(3):
        bench.exchange(Reply(503, b"busy"))
        bench.now += 60
    assert bench.dead() == []

    bench.exchange(Reply(503, b"busy"))

    assert bench.dead() == [("old", "expired")]
    assert bench.outbox.dead()[0].reply == "status 503, not Mixpanel's: 4 bytes"
    assert bench.outbox.stats().depth == 1


@pytest.mark.parametrize("fault", [REFUSED_CONNECTION, LOST, Reply(503, b"")])
def test_what_was_hardly_tried_is_kept_whatever_its_age(fault):
    bench = Bench(retry_budget=600.0)
    bench.put(make_entry("a"))
    bench.now += 86_400

    for _ in range(10):
        bench.suffer(fault)

    assert (bench.outbox.stats().depth, bench.dead()) == (1, [])
    bench.exchange(Reply(503, b""))
    assert bench.dead() == [("a", "expired")]


def test_what_was_tracked_long_before_it_came_is_tried_as_long_as_the_rest():
    bench = Bench(retry_budget=120.0)
    bench.put(make_entry("offline", at=NOW - 4 * 86_400), make_entry("young"))
    for _ in range(3):
        bench.exchange(Reply(503, b"busy"))
        bench.now += 60
    assert bench.dead() == []

    bench.exchange(Reply(503, b"busy"))

    assert bench.dead() == [("offline", "expired"), ("young", "expired")]


def test_profile_updates_keep_their_order_through_a_failure():
    bench = Bench(batch_size=1)
    bench.put(*(make_entry(name, endpoint=PEOPLE) for name in "pqr"))

    bench.exchange(Reply(503, b""))
    bench.now += 60

    assert [bench.exchange()[0] for _ in range(3)] == ["p", "q", "r"]


def test_a_failure_that_repeats_is_logged_once(caplog):
    bench = Bench()
    bench.put(make_entry("a"))

    for error in (LOST, REFUSED_CONNECTION):
        bench.pump.fail(bench.send(), error, bench.now)
        bench.now += 60

    assert caplog.messages == ["Sending to /import failed and is tried again: gave no reply."]


def test_a_log_line_names_no_property_and_holds_no_control_character(caplog):
    bench = Bench()
    bench.put(make_entry("a\nb"))

    bench.exchange(Reply(400, b"secret\x1b[31m"))

    (text,) = caplog.messages
    assert "the first a b: rejected" in text
    assert "secret" not in text


def test_burials_of_one_kind_are_logged_once_and_all_kinds_are_bounded(caplog):
    bench = Bench(batch_size=1)
    many = [f"n{number}" for number in range(MAX_BURIALS + 1)]
    bench.put(*(make_entry(name) for name in ["n0", *many]))

    for _ in range(len(many) + 1):
        bench.exchange(REFUSED)
        bench.now += 60

    assert len(caplog.messages) == MAX_BURIALS
    assert bench.counters.snapshot().buried == len(many) + 1


def test_a_lease_that_finds_nothing_lets_the_others_go():
    class Elsewhere(MemoryOutbox):
        """Another process takes what the backlog showed."""

        def lease(self, endpoint, now, **limits):
            return [] if endpoint is Endpoint.EVENTS else super().lease(endpoint, now, **limits)

    bench = Bench()
    outbox = Elsewhere(bench.settings)
    outbox.put([make_entry("a"), make_entry("p", endpoint=PEOPLE)], NOW)
    step = Pump(outbox, bench.settings, bench.counters).next_step(NOW, is_flushing=True)

    assert isinstance(step, Send)
    assert step.batch.endpoint is PEOPLE


# --- aliases --------------------------------------------------------------------------------------


def make_alias(*names: str, **fields: Any) -> Entry:
    names = names or ("alias",)
    return make_entry(*names, endpoint=ALIASES, user=b"user", is_identity=True, **fields)


def tried(batch: Batch, attempts: int) -> Batch:
    """Answer a batch whose entries were tried so often before."""
    leased = tuple(replace(leased, attempts=attempts) for leased in batch.leased)
    return Batch(batch.endpoint, leased)


def make_sign_up(**settings: Any) -> Bench:
    """Answer a bench where an alias waits, then its user's event, then a stranger's."""
    bench = Bench(**settings)
    bench.put(make_alias(), make_entry("a", user=b"user", at=NOW + 1), make_entry("b"))
    return bench


def test_an_alias_leaves_at_once_and_its_answer_wakes_the_others():
    bench = make_sign_up(flush_interval=5.0)

    alias = bench.send(is_flushing=False)
    while_under_way = bench.wait(is_flushing=False)
    bench.now += 5
    bench.pump.receive(alias, success(ALIASES), bench.now)

    assert (alias.endpoint, names(alias)) == (ALIASES, ["alias"])
    assert while_under_way == 5
    assert names(bench.send(is_flushing=False)) == ["a", "b"]


def test_aliases_leave_one_by_one_between_the_others():
    bench = Bench()
    bench.put(make_alias("one", "two", "three"), make_alias("four"), make_entry("a"))

    sent = [bench.exchange() for _ in range(5)]

    assert sent == [["one"], ["a"], ["two"], ["three"], ["four"]]


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(lambda bench, batch: bench.pump.fail(batch, LOST, NOW), id="lost-answer"),
        pytest.param(
            lambda bench, batch: bench.pump.fail(batch, REFUSED_CONNECTION, NOW), id="unreachable"
        ),
        pytest.param(
            lambda bench, batch: bench.pump.receive(batch, Reply(503, b""), NOW), id="unavailable"
        ),
        pytest.param(
            lambda bench, batch: bench.pump.receive(batch, Reply(200, b"<html>"), NOW), id="unclear"
        ),
        pytest.param(
            lambda bench, batch: bench.pump.receive(batch, Reply(401, b""), NOW), id="blocked"
        ),
        pytest.param(lambda bench, batch: bench.pump.postpone(batch, NOW), id="nobody-can-judge"),
    ],
)
def test_an_alias_that_did_not_pass_goes_again_before_its_user(fail):
    bench = Bench()
    bench.put(make_alias(), make_entry("a", user=b"user", at=NOW + 1))

    fail(bench, bench.send())
    pause = bench.wait()
    bench.now += pause
    sent = [bench.exchange(), bench.exchange()]

    assert 0 < pause <= PROBE_SECONDS
    assert sent == [["alias"], ["a"]]
    assert bench.dead() == []


def test_an_alias_that_does_not_pass_holds_up_only_its_user(caplog):
    bench = make_sign_up(flush_interval=5.0)
    bench.put(make_entry("$set", "more", endpoint=PEOPLE, user=b"user"))
    bench.exchange(Reply(401, b""))
    bench.now += 5

    stranger = bench.send(is_flushing=False)
    bench.pump.receive(stranger, success(stranger.endpoint), bench.now)

    assert names(stranger) == ["b"]
    assert bench.outbox.stats().behind_aliases == 3
    assert "3 messages of its users wait for it" in caplog.text


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(lambda bench: bench.exchange(Reply(503, b"")), id="busy"),
        pytest.param(lambda bench: bench.exchange(Reply(200, b"<html>")), id="unclear"),
        pytest.param(lambda bench: bench.pump.fail(bench.send(), LOST, NOW), id="unavailable"),
    ],
)
def test_who_hears_of_an_alias_that_fails_hears_who_waits_for_it(fail, caplog):
    fail(make_sign_up())

    assert "/track" in caplog.text
    assert "1 messages of its users wait for it" in caplog.text


def test_only_aliases_have_somebody_waiting_for_them(caplog):
    bench = Bench()
    bench.put(make_entry("a"))

    bench.exchange(Reply(401, b""))

    assert "wait for it" not in caplog.text


@pytest.mark.parametrize("is_flushing", [True, False], ids=["flushing", "gathering"])
def test_many_sign_ups_do_not_become_as_many_requests(is_flushing):
    bench = Bench(flush_interval=5.0)
    users = [b"%d" % number for number in range(100)]
    for user in users:
        alias = make_entry("alias", endpoint=ALIASES, user=user, is_identity=True)
        bench.put(alias, make_entry(*["a"] * 11, user=user))

    sent = []
    while bench.outbox.stats().depth:
        step = bench.step(is_flushing=is_flushing)
        if isinstance(step, Send):
            bench.now += 0.1  # what an exchange takes
            bench.pump.receive(step.batch, success(step.batch.endpoint), bench.now)
            sent.append(step.batch.endpoint)
        else:
            bench.now += step.seconds

    assert sent.count(ALIASES) == 100
    assert 1 <= sent.count(Endpoint.EVENTS) <= 12


def test_what_aliases_let_go_gathers_no_longer_than_a_second():
    bench = Bench()
    bench.put(make_alias("one", "two", "three"), make_entry("a"))

    assert [bench.exchange(), bench.exchange()] == [["one"], ["a"]]
    bench.put(make_entry("b"))
    bench.now += GATHER_SECONDS - 0.1
    assert bench.exchange() == ["two"]
    bench.now += 0.1
    assert bench.exchange() == ["b"]


def test_nothing_gathers_once_no_alias_can_leave():
    bench = Bench()
    bench.put(make_alias("one", "two"), make_entry("a"))
    assert [bench.exchange(), bench.exchange()] == [["one"], ["a"]]
    bench.put(make_entry("b"))

    bench.exchange(Reply(401, b""))

    assert bench.exchange() == ["b"]


def test_what_was_left_behind_does_not_gather():
    bench = Bench()
    bench.put(make_alias("one", "two", "three"))
    bench.put(make_adds("p"), make_entry("q", endpoint=PEOPLE))

    assert [bench.exchange() for _ in range(4)] == [["one"], ["p"], ["two"], ["q"]]


def test_groups_do_not_gather_for_aliases():
    bench = Bench()
    bench.put(make_alias("one", "two", "three"), make_entry("g", endpoint=Endpoint.GROUPS))
    assert [bench.exchange(), bench.exchange()] == [["one"], ["g"]]

    bench.put(make_entry("h", endpoint=Endpoint.GROUPS))

    assert [bench.exchange(), bench.exchange()] == [["two"], ["h"]]


@pytest.mark.parametrize(
    ("settle", "reason"),
    [
        pytest.param(
            lambda bench, batch: bench.pump.receive(batch, PROFILE_REFUSED, NOW),
            "rejected",
            id="status-zero",
        ),
        pytest.param(
            lambda bench, batch: bench.pump.receive(batch, REFUSED, NOW), "rejected", id="400"
        ),
        pytest.param(
            lambda bench, batch: bench.pump.receive(batch, Reply(413, b""), NOW),
            "too_large",
            id="413",
        ),
        pytest.param(
            lambda bench, batch: bench.pump.receive(tried(batch, 60), Reply(503, b""), NOW + 4000),
            "expired",
            id="expired",
        ),
    ],
)
def test_an_alias_that_is_buried_lets_its_user_go(settle, reason):
    bench = make_sign_up(retry_budget=3600.0)

    settle(bench, bench.send())

    assert bench.dead() == [("alias", reason)]
    assert bench.exchange() == ["a", "b"]


def test_an_alias_that_the_ledger_denies_lets_its_user_go():
    bench = make_sign_up()

    bench.pump.leave_out_denied(bench.send(), [False], NOW)

    assert bench.exchange() == ["a", "b"]


# --- the ledger's word ----------------------------------------------------------------------------


def test_what_nobody_can_judge_now_goes_back_and_rests():
    bench = Bench()
    bench.put(make_entry("a"), make_entry("b"))

    bench.pump.postpone(bench.send(), NOW)

    assert bench.wait() == 1
    bench.now += 1
    assert names(bench.send()) == ["a", "b"]
    assert bench.counters.snapshot().retried == 2


def test_what_nobody_can_judge_waits_whatever_its_age():
    bench = Bench(retry_budget=3600.0)
    bench.put(make_entry("old"))
    bench.now += 7200

    bench.pump.postpone(bench.send(), bench.now)

    assert (bench.outbox.stats().depth, bench.dead()) == (1, [])


def test_each_time_that_nobody_can_judge_doubles_the_rest():
    bench = Bench()
    bench.put(make_entry("a"))
    pauses = []

    for _ in range(3):
        bench.pump.postpone(bench.send(), bench.now)
        pauses.append(bench.wait())
        bench.now += pauses[-1]

    assert pauses == [1, 2, 4]


def test_a_denied_entry_goes_and_the_rest_of_the_batch_stays_in_order():
    bench = Bench()
    bench.put(make_entry("a"), make_entry("b", "b2"), make_entry("c"))

    batch = bench.pump.leave_out_denied(bench.send(), [True, False, True], NOW)

    assert names(batch) == ["a", "c"]
    assert batch.endpoint is Endpoint.EVENTS
    assert bench.counters.snapshot().dropped == {"withdrawn": 2}
    assert bench.outbox.stats().depth == 2


def test_a_batch_without_a_denied_entry_is_the_same():
    bench = Bench()
    bench.put(make_entry("a"))
    batch = bench.send()

    assert bench.pump.leave_out_denied(batch, [True], NOW) is batch
    assert bench.counters.snapshot().dropped == {}


def test_a_batch_that_is_all_denied_is_none():
    bench = Bench()
    bench.put(make_entry("a"), make_entry("b"))

    assert bench.pump.leave_out_denied(bench.send(), [False, False], NOW) is None
    assert bench.counters.snapshot().dropped == {"withdrawn": 2}


def test_a_denied_entry_that_was_forgotten_meanwhile_is_counted_once():
    bench = Bench()
    bench.put(make_entry("a"))
    batch = bench.send()
    bench.outbox.forget([b"device"], NOW, NOW)

    bench.pump.leave_out_denied(batch, [False], NOW)

    assert bench.counters.snapshot().dropped == {}


def test_an_answer_for_fewer_entries_lets_nothing_leave():
    bench = Bench()
    bench.put(make_entry("a"), make_entry("b"))
    batch = bench.send()

    with pytest.raises(ValueError, match="shorter"):
        bench.pump.leave_out_denied(batch, [True], NOW)


# --- clocks ---------------------------------------------------------------------------------------

FUTURE = "must not be in the future"


def refuse_times(bench: Bench, *indexes: int, message: str = FUTURE, their_now: float) -> None:
    """Let Mixpanel refuse the times of these messages of the next batch."""
    records = [{"index": i, "field": "properties.time", "message": message} for i in indexes]
    date = formatdate(their_now, usegmt=True)
    bench.exchange(json_reply(400, {"failed_records": records}, date=date))


def test_what_a_clock_ahead_has_dated_is_kept_and_tried_again(caplog):
    bench = Bench()
    bench.put(make_entry("a", "b"), make_entry("c", at=NOW - 9000))

    refuse_times(bench, 0, 1, their_now=NOW - 7200)

    assert bench.dead() == []
    assert (bench.counters.snapshot().delivered, bench.outbox.stats().depth) == (1, 2)
    assert bench.wait() == MAX_WAIT_SECONDS
    bench.now += PROBE_SECONDS
    assert bench.exchange() == ["a", "b"]
    assert "7200 seconds ahead of" in caplog.text


@pytest.mark.parametrize(
    ("indexes", "message", "their_now"),
    [
        pytest.param([0], FUTURE, NOW - 7200, id="a-part-of-the-entry"),
        pytest.param([0, 1], "must be an integer", NOW - 7200, id="for-another-reason"),
        pytest.param([0, 1], FUTURE, NOW, id="by-no-clock"),
        pytest.param([0, 1], FUTURE, NOW - 4000 * 3600, id="beyond-the-retry-budget"),
    ],
)
def test_other_refusals_of_a_time_are_final(indexes, message, their_now):
    bench = Bench()
    bench.put(make_entry("a", "b"))

    refuse_times(bench, *indexes, message=message, their_now=their_now)

    assert [reason for _, reason in bench.dead()] == ["rejected"] * len(indexes)
    assert bench.outbox.stats().depth == 0


# --- a storage that fails -------------------------------------------------------------------------


class Failing(MemoryOutbox):
    """An outbox whose storage fails at the named methods, as often as told."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.failures: Counter[str] = Counter()

    def fail(self, method: str) -> None:
        if self.failures[method]:
            self.failures[method] -= 1
            raise OutboxUnavailable("no space left")

    def ack(self, ids):
        self.fail("ack")
        return super().ack(ids)

    def release(self, ids, not_before):
        self.fail("release")
        return super().release(ids, not_before)

    def split(self, *args):
        self.fail("split")
        return super().split(*args)

    def bury(self, *args):
        self.fail("bury")
        return super().bury(*args)

    def drop(self, ids, reason):
        self.fail("drop")
        return super().drop(ids, reason)

    def expire(self, now):
        self.fail("expire")
        return super().expire(now)

    def stats(self):
        self.fail("stats")
        return super().stats()


class FailingBench(Bench):
    def __init__(self, *methods: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.outbox = Failing(self.settings)
        self.outbox.failures.update(methods)
        self.pump = Pump(self.outbox, self.settings, self.counters, lambda: 0.5)


def test_what_was_delivered_is_settled_before_anything_else_leaves():
    bench = FailingBench("ack", "ack")
    bench.put(make_entry("add", endpoint=PEOPLE, is_repeatable=False))
    batch = bench.send()
    bench.put(make_entry("a"))

    with pytest.raises(OutboxUnavailable):
        bench.pump.receive(batch, success(PEOPLE), NOW)
    with pytest.raises(OutboxUnavailable):
        bench.step()
    bench.now += 2 * LEASE_SECONDS

    assert names(bench.send()) == ["a"]
    assert (bench.counters.snapshot().delivered, bench.dead()) == (1, [])


def test_a_settlement_of_several_parts_goes_on_where_it_failed():
    bench = FailingBench("bury")
    bench.put(make_entry("a"), make_entry("b"), make_entry("c"))
    records = [{"index": 1, "field": "f", "message": "m"}]
    batch = bench.send()

    with pytest.raises(OutboxUnavailable):
        bench.pump.receive(batch, json_reply(400, {"failed_records": records}), NOW)
    assert bench.wait() == MAX_WAIT_SECONDS

    assert bench.dead() == [("b", "rejected")]
    stats = bench.counters.snapshot()
    assert (stats.delivered, stats.buried, bench.outbox.stats().depth) == (2, 1, 0)


def test_a_batch_that_could_not_be_given_back_goes_back_with_the_next_step():
    bench = FailingBench("release")
    bench.put(make_entry("add", endpoint=PEOPLE, is_repeatable=False))
    with pytest.raises(OutboxUnavailable):
        bench.pump.fail(bench.send(), REFUSED_CONNECTION, NOW)

    pause = bench.wait()
    bench.now += pause

    assert (pause, names(bench.send())) == (1, ["add"])


def test_what_could_not_be_split_is_split_with_the_next_step():
    bench = FailingBench("split", batch_size=1)
    bench.put(make_adds("add", "append"))
    with pytest.raises(OutboxUnavailable):
        bench.step()

    assert [bench.exchange(), bench.exchange()] == [["add"], ["append"]]
    assert bench.dead() == []


def test_a_look_for_what_is_too_old_that_failed_is_repeated_at_once():
    bench = FailingBench("expire", outbox_max_age=3600.0, retry_budget=3600.0)
    bench.put(make_entry("old"))
    bench.now += EXPIRE_SECONDS + 1
    with pytest.raises(OutboxUnavailable):
        bench.step()

    assert bench.wait() == MAX_WAIT_SECONDS
    assert bench.counters.snapshot().dropped == {"too_old": 1}


def test_what_is_too_old_is_looked_for_once_an_hour():
    bench = FailingBench()
    bench.step()
    bench.outbox.failures["expire"] = 1

    bench.now += EXPIRE_SECONDS - 1
    bench.step()
    bench.now += 1

    with pytest.raises(OutboxUnavailable):
        bench.step()


def test_what_the_ledger_denied_stays_while_the_rest_goes_back():
    bench = FailingBench("drop")
    bench.put(make_entry("a"), make_entry("b"))
    batch = bench.send()

    with pytest.raises(OutboxUnavailable):
        bench.pump.leave_out_denied(batch, [False, True], NOW)

    assert bench.exchange() == ["b"]
    assert bench.counters.snapshot().dropped == {"withdrawn": 1}


def test_an_alias_is_settled_even_if_nobody_can_tell_who_waits_for_it(caplog):
    bench = FailingBench()
    bench.put(make_alias())
    batch = bench.send()
    bench.outbox.failures["stats"] = 1

    bench.pump.receive(batch, Reply(503, b""), NOW)

    assert caplog.messages == ["Sending to /track failed and is tried again: status 503."]
    assert bench.outbox.backlog(ALIASES, NOW).messages == 1


# --- what others see ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "rest"), [(5.0, 5.0), (0.1, MIN_POLL_SECONDS)], ids=["interval", "at-least"]
)
def test_an_outbox_that_others_fill_is_looked_at_again_soon(interval, rest):
    class Shared(MemoryOutbox):
        is_shared = True

    bench = Bench(flush_interval=interval)
    pump = Pump(Shared(bench.settings), bench.settings, bench.counters)

    assert pump.next_step(NOW) == Wait(rest)


def test_a_pump_is_blocked_while_a_door_is_wrong():
    bench = Bench()
    bench.put(make_entry("a"))
    before = bench.pump.is_blocked
    bench.exchange(Reply(401, b""))
    while_wrong = bench.pump.is_blocked
    bench.now += PROBE_SECONDS
    bench.exchange()

    assert (before, while_wrong, bench.pump.is_blocked) == (False, True, False)
