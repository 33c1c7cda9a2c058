import logging
import signal
import uuid

import pytest
import redis

from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.lanes import MAX_DELAY_SECONDS
from mp_asgi.delivery.outbox import redis_server
from mp_asgi.delivery.outbox import spooled as spooled_module
from mp_asgi.delivery.outbox.base import Outbox, PutResult, Refusal, Ticket
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.outbox.redis import RedisOutbox
from mp_asgi.delivery.outbox.spooled import OWED_SECONDS, POLL_SECONDS, PUT_ENTRIES, Spooled
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from mp_asgi.delivery.outbox.standby import Standby
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Endpoint
from mp_asgi.settings import Settings
from tests.delivery.outbox.contract import (
    OutboxContract,
    find_ids,
    imbalance,
    make_alias,
    names,
    take,
)
from tests.redis_server import RedisServer, server, shared_server
from tests.support import NOW, FakeClock, make_entry, make_settings

__all__ = ["server", "shared_server"]

PEOPLE = Endpoint.PEOPLE


class TestSpooledOutbox(OutboxContract):
    @pytest.fixture(autouse=True)
    def use(self, shared_server: RedisServer) -> None:
        self.url = shared_server.url

    def make(self, settings: Settings) -> Outbox:
        primary = RedisOutbox(self.url, settings, uuid.uuid4().hex)
        return Spooled(primary, MemoryOutbox(settings))

    # What is handed in is past: these speak of what was delivered.
    test_who_waits_for_an_alias_counts_among_what_was_put_before = None
    test_a_horizon_is_past_when_all_that_was_put_before_is_gone = None
    test_a_replayed_letter_was_put_after_a_horizon_of_before = None


class Host:
    """A web process whose server fails when told."""

    def __init__(self, server: RedisServer, spool: Outbox | None = None, project: str = "") -> None:
        self.server = server
        self.clock = FakeClock()
        self.primary = server.outbox(project)
        self.spool = spool or MemoryOutbox(make_settings())
        self.outbox = Spooled(self.primary, self.spool, clock=self.clock, random=lambda: 0.5)

    def fail(self) -> None:
        self.server.send(signal.SIGSTOP)

    def recover(self) -> None:
        self.server.send(signal.SIGCONT)
        self.clock.advance(MAX_DELAY_SECONDS)

    def forward(self) -> None:
        while self.outbox.spooled():
            assert self.outbox.forward(NOW) == 0


@pytest.fixture(params=["memory", "file"])
def host(server, monkeypatch, request, tmp_path):
    monkeypatch.setattr(redis_server, "TIMEOUT_SECONDS", 0.25)
    is_file = request.param == "file"
    host = Host(server, SQLiteOutbox(tmp_path / "spool", make_settings()) if is_file else None)
    yield host
    host.outbox.close()


def test_what_is_put_while_the_server_fails_arrives_in_order(host):
    host.outbox.put([make_entry("a", endpoint=PEOPLE)], NOW)
    host.fail()
    host.outbox.put([make_entry("b", endpoint=PEOPLE)], NOW)
    host.outbox.put([make_entry("c", "d", endpoint=PEOPLE)], NOW)
    host.recover()
    host.outbox.put([make_entry("e", endpoint=PEOPLE)], NOW)
    assert host.outbox.spooled() == 4

    host.forward()
    host.outbox.put([make_entry("f", endpoint=PEOPLE)], NOW)

    taken = take(host.outbox, endpoint=PEOPLE)
    assert names(taken) == [["a"], ["b"], ["c", "d"], ["e"], ["f"]]
    assert [item.entry for item in taken][2] == make_entry("c", "d", endpoint=PEOPLE)


def test_a_put_whose_answer_was_lost_is_there_once(host):
    host.outbox.stats()
    host.fail()
    host.outbox.put([make_entry("a"), make_entry("b")], NOW)
    host.server.send(signal.SIGCONT)
    waiting = host.server.outbox(host.primary._tag[9:-1])
    assert waiting.stats().depth == 2
    assert host.outbox.spooled() == 2

    host.recover()
    host.forward()

    assert names(take(host.primary)) == [["a"], ["b"]]
    assert host.outbox.stats().totals == {("accepted", ""): 2, ("outbox_failed", ""): 1}


def test_a_put_that_never_arrived_is_handed_over_once(host):
    host.server.stop(signal.SIGKILL)
    host.outbox.put([make_entry("a", is_repeatable=False), make_entry("b")], NOW)
    host.server.start()

    host.recover()
    host.forward()

    assert names(take(host.primary)) == [["a"]]
    assert host.primary.stats().depth == 2


def test_after_doubt_the_next_direct_put_is_no_repetition(host):
    for name in "ab":
        host.fail()
        host.outbox.put([make_entry(name)], NOW)
        host.recover()
        host.forward()
        host.outbox.put([make_entry(name.upper())], NOW)

    assert names(take(host.primary)) == [["a"], ["A"], ["b"], ["B"]]


def test_another_process_hands_over_what_a_dead_one_left(host):
    host.fail()
    host.outbox.put([make_alias(), make_entry("a", user=b"user"), make_entry("b")], NOW)
    host.recover()

    heir = Host(host.server, host.spool, host.primary._tag[9:-1])
    heir.forward()

    assert names(take(heir.primary)) == [["b"]]
    assert heir.outbox.stats().behind_aliases == 1


def test_what_was_handed_over_and_not_removed_is_not_doubled(host):
    host.fail()
    host.outbox.put([make_entry("a")], NOW)
    host.recover()
    taken = take(host.spool, seconds=1)
    host.outbox._hand_over(taken, NOW, host.primary.server_time() + 1)

    host.outbox.forward(NOW + 2)

    assert names(take(host.primary)) == [["a"]]
    assert host.outbox.stats().totals["accepted", ""] == 1


def test_a_dead_server_is_not_asked_at_every_call(host):
    host.outbox.stats()
    host.fail()
    host.outbox.put([make_entry("a")], NOW)
    failed = host.spool.stats().totals["outbox_failed", ""]

    for _ in range(3):
        host.outbox.put([make_entry("b")], NOW)
        host.outbox.stats()
        assert host.outbox.forward(NOW) == 1

    assert host.spool.stats().totals["outbox_failed", ""] == failed == 1


def test_a_server_that_fails_again_keeps_everything_in_the_spool(host):
    host.outbox.stats()
    host.fail()
    host.outbox.put([make_entry("a")], NOW)
    host.clock.advance(MAX_DELAY_SECONDS)

    assert host.outbox.forward(NOW) == 0
    assert host.outbox.forward(NOW) == 2
    assert host.outbox.spooled() == 1
    assert host.outbox.stats().leased == 0


@pytest.mark.parametrize("is_erased", [False, True], ids=["stop", "erasure"])
def test_a_stop_that_the_server_could_not_take_is_handed_over_first(host, is_erased):
    before = NOW - 1
    early = [make_entry(name, at=before) for name in ("a", "dead", "b", "late")]
    host.outbox.put(early[:2], NOW)
    host.primary.bury(find_ids(host.primary)[1], [Refusal(0, "rejected", "")], before)
    host.server.stop(signal.SIGKILL)
    host.outbox.put([early[2], make_entry("c")], NOW)

    if is_erased:
        with pytest.raises(OutboxUnavailable, match="Redis at"):
            host.outbox.erase([b"device"], before, NOW)
    else:
        assert host.outbox.forget([b"device"], before, NOW) == 1
    assert host.outbox.put(early[3:], NOW).stopped == 1
    host.server.start()
    host.recover()
    host.outbox.forward(NOW)

    assert take(host.primary) == []
    assert len(host.primary.dead()) == (0 if is_erased else 1)
    host.forward()
    assert names(take(host.primary)) == [["c"]]
    assert imbalance(host.outbox) == 0


def test_a_stop_that_is_owed_leaves_what_came_after_it(host):
    host.server.stop(signal.SIGKILL)
    host.outbox.forget([b"device"], NOW, NOW)
    host.server.start()
    host.primary.put([make_entry("since", at=NOW + 5)], NOW + 5)
    host.recover()

    while host.outbox.spooled():
        host.outbox.forward(NOW + 6)

    assert names(take(host.primary, NOW + 6)) == [["since"]]


@pytest.mark.parametrize("call", ["forget", "erase"])
def test_the_server_hears_of_a_stop_though_the_spool_fails(server, monkeypatch, call):
    host = Host(server)
    host.primary.put([make_entry("a")], NOW)

    def fail(*_):
        raise OutboxUnavailable("The disk is full.")

    monkeypatch.setattr(host.spool, call, fail)
    with pytest.raises(OutboxUnavailable, match="disk is full"):
        getattr(host.outbox, call)([b"device"], NOW, NOW)

    assert take(host.primary) == []
    host.outbox.close()


def test_a_stop_is_owed_though_the_spool_is_found_damaged_only_then(server, tmp_path):
    host = Host(server, SQLiteOutbox(tmp_path / "spool", make_settings(), clock=lambda: NOW + 1))
    host.primary.put([make_entry("a")], NOW)
    server.stop()
    host.outbox.put([make_entry("lost", device=b"other")], NOW)
    host.spool.close()
    (tmp_path / "spool").write_bytes(b"no database" * 999)

    host.outbox.forget([b"device"], NOW, NOW)

    assert host.outbox.spooled() == 1
    server.start()
    host.recover()
    host.forward()
    assert take(host.primary) == []
    host.outbox.close()


def test_a_stop_that_nobody_keeps_is_no_success(server, monkeypatch):
    host = Host(server)
    monkeypatch.setattr(host.spool, "put", lambda entries, _: PutResult(0, len(entries), 0))
    server.stop()

    with pytest.raises(OutboxUnavailable, match="Redis at"):
        host.outbox.forget([b"device"], NOW, NOW)

    server.start()
    host.outbox.close()


def test_a_stop_is_known_in_both(host):
    host.outbox.put([make_entry("a")], NOW)

    assert host.outbox.forget([b"device"], NOW, NOW) == 1
    assert host.spool.put([make_entry("b")], NOW).stopped == 1


def test_what_has_a_ticket_of_its_own_is_refused_meanwhile(host):
    ticket = Ticket("journal", 1)
    host.fail()
    with pytest.raises(OutboxUnavailable):
        host.outbox.put([make_entry("a")], NOW, ticket)
    host.outbox.put([make_entry("b")], NOW)
    host.recover()
    with pytest.raises(OutboxUnavailable, match="spool"):
        host.outbox.put([make_entry("a")], NOW, ticket)

    host.forward()
    host.outbox.put([make_entry("a")], NOW, ticket)

    assert sorted(names(take(host.primary))) == [["a"], ["b"]]


def test_each_message_counts_once_wherever_it_is(host):
    host.outbox.put([make_entry("a")], NOW)
    host.outbox.stats()
    host.fail()
    host.outbox.put([make_entry("b", "c")], NOW - 9)
    host.outbox.tally({("retried", ""): 1})
    during = host.outbox.stats()
    host.recover()
    host.outbox.tally({("retried", ""): 2})
    host.forward()
    after = host.outbox.stats()

    # Whether the two of the lost answer are there already nobody knows.
    assert (during.depth, during.oldest_put_at, during.totals["accepted", ""]) == (
        1,
        NOW - 9,
        1,
    )
    assert (after.depth, after.totals["accepted", ""], after.totals["retried", ""]) == (3, 3, 3)
    assert imbalance(host.outbox) == 0


def test_a_flush_waits_only_for_what_is_in_the_spool(host):
    host.outbox.put([make_entry("a")], NOW)
    assert host.outbox.is_past(host.outbox.horizon())
    host.fail()
    host.outbox.put([make_entry("b")], NOW)
    horizon = host.outbox.horizon()
    assert not host.outbox.is_past(horizon)

    host.recover()
    host.forward()

    assert host.outbox.is_past(horizon)


def test_an_outage_is_said_once_and_its_end_too(host, caplog):
    host.fail()
    host.outbox.put([make_entry("a")], NOW)
    host.clock.advance(MAX_DELAY_SECONDS)
    host.outbox.forward(NOW)
    host.clock.advance(MAX_DELAY_SECONDS)
    host.recover()
    host.forward()

    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    assert f"127.0.0.1:{host.server.port} answers again." in caplog.text


def test_an_empty_spool_is_looked_at_now_and_then(host):
    assert host.outbox.forward(NOW) == POLL_SECONDS


def test_what_another_process_hands_over_is_left_to_it(host):
    host.fail()
    host.outbox.put([make_entry("a")], NOW)
    host.recover()
    take(host.spool)

    assert host.outbox.forward(NOW) == POLL_SECONDS


class FailingOutbox(RedisOutbox):
    """One whose client fails in a way of its own."""

    def put(self, *_: object) -> PutResult:
        raise UnicodeError("label empty, with a s3cret")


def test_whatever_the_server_raises_what_was_put_is_kept(host, caplog):
    primary = FailingOutbox(host.server.url, make_settings(), "project")
    outbox = Spooled(primary, MemoryOutbox(make_settings()), clock=host.clock)

    assert outbox.put([make_entry("a")], NOW).stored == 1

    assert outbox.spooled() == 1
    assert outbox.trouble.startswith("The shared outbox fails: UnicodeError. Events wait")
    assert "s3cret" not in caplog.text


def test_a_stop_does_not_wait_until_a_server_is_asked_again_for_the_rest(host):
    host.outbox.put([make_entry("a")], NOW)
    host.fail()
    host.outbox.put([make_entry("b", device=b"other")], NOW)
    host.server.send(signal.SIGCONT)
    with redis.Redis.from_url(host.server.url) as client:
        assert client.ping()
    host.outbox.forget([b"device"], NOW, NOW)

    assert host.outbox.forward(NOW) == 0
    assert ["a"] not in names(take(host.primary))


def test_a_silent_server_is_not_asked_at_every_denial(host):
    host.outbox.put([make_entry("a")], NOW)
    host.fail()
    for _ in range(5):
        host.outbox.forget([b"device"], NOW, NOW)
        with pytest.raises(OutboxUnavailable, match="Redis at"):
            host.outbox.erase([b"device"], NOW, NOW)
        host.outbox.put([make_entry("b", device=b"other")], NOW)

    assert host.spool.stats().totals["outbox_failed", ""] == 1

    host.recover()
    host.forward()
    assert names(take(host.primary)) == [["b"]] * 5
    assert imbalance(host.outbox) == 0


def test_what_the_spools_disk_did_not_remove_is_not_doubled_later(server, tmp_path, monkeypatch):
    file = SQLiteOutbox(tmp_path / "spool", make_settings())
    host = Host(server, Standby(file, MemoryOutbox(make_settings()), Counters()))
    host.server.stop()
    host.outbox.put([make_entry("add", endpoint=PEOPLE, is_repeatable=False)], NOW)
    host.server.start()
    host.recover()

    def fail(*_):
        raise OutboxUnavailable("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(file, "drop", fail)
        host.outbox.forward(NOW)
    host.primary.expire(NOW + 7200)
    heir = Host(server, SQLiteOutbox(tmp_path / "spool", make_settings()), host.primary._tag[9:-1])
    assert heir.outbox.spooled() == 1
    heir.outbox.forward(NOW + 7200)

    assert heir.outbox.spooled() == 0
    assert names(take(host.primary, endpoint=PEOPLE)) == [["add"]]
    for each in (host, heir):
        each.outbox.close()


def test_what_was_accepted_never_falls(host):
    host.outbox.put([make_entry("a")], NOW)
    accepted = [host.outbox.stats().totals["accepted", ""]]
    host.fail()
    host.outbox.put([make_entry("b", "c")], NOW)
    host.outbox.forget([b"other"], NOW, NOW)
    host.outbox.put([make_entry("d")], NOW)
    accepted.append(host.outbox.stats().totals["accepted", ""])
    host.server.send(signal.SIGCONT)
    host.recover()
    during = host.outbox.stats()
    host.forward()
    accepted += [during.totals["accepted", ""], host.outbox.stats().totals["accepted", ""]]

    assert accepted == [1, 2, 4, 4]
    assert during.depth == 4
    assert imbalance(host.outbox) == 0


def test_what_another_process_hands_over_counts_before_the_server_answers_again(server, tmp_path):
    file, project = tmp_path / "spool", uuid.uuid4().hex
    one, other = (Host(server, SQLiteOutbox(file, make_settings()), project) for _ in range(2))
    one.outbox.put([make_entry("a")], NOW)
    accepted = [other.outbox.stats().totals["accepted", ""]]
    server.stop()
    for name in "bcd":
        one.outbox.put([make_entry(name)], NOW)
    one.outbox.forget([b"other"], NOW, NOW)
    other.outbox.put([make_entry("e")], NOW)
    accepted.append(other.outbox.stats().totals["accepted", ""])

    server.start()
    one.recover()
    one.forward()

    stale = other.outbox.stats()
    accepted.append(stale.totals["accepted", ""])
    assert (stale.depth, imbalance(other.outbox)) == (accepted[-1], 0)
    other.recover()
    accepted.append(other.outbox.stats().totals["accepted", ""])
    assert accepted == [1, 4, 4, 5]
    one.outbox.close()
    other.outbox.close()


def test_what_was_handed_over_still_counts_when_the_server_fails_again(host):
    host.server.stop()
    for name in "abc":
        host.outbox.put([make_entry(name)], NOW)
    host.server.start()
    host.recover()
    before = host.outbox.stats()
    host.forward()

    host.server.stop()
    after = host.outbox.stats()

    assert (before.depth, before.totals["accepted", ""]) == (2, 2)
    assert (after.depth, after.totals["accepted", ""]) == (2, 2)
    assert imbalance(host.outbox) == 0
    host.server.start()


def test_what_a_stop_took_out_of_the_spool_is_in_doubt_no_more(host):
    host.outbox.put([make_entry("other", device=b"other")], NOW)
    host.server.stop()
    host.outbox.put([make_entry("a")], NOW)
    host.server.start()
    host.outbox.forget([b"device"], NOW, NOW)
    host.recover()
    host.forward()
    host.outbox.forward(NOW)
    host.outbox.stats()

    host.server.stop()
    for name in "bc":
        host.outbox.put([make_entry(name, device=b"other")], NOW)

    assert host.outbox.stats().depth == 2
    host.server.start()


def test_while_a_stop_is_owed_the_server_is_asked_every_second(host):
    host.outbox.put([make_entry("a")], NOW)
    host.fail()
    for _ in range(9):
        host.outbox.forget([b"device"], NOW, NOW)
    assert host.outbox.forward(NOW) == 0
    assert host.outbox.forward(NOW) == OWED_SECONDS

    host.server.send(signal.SIGCONT)
    host.clock.advance(OWED_SECONDS)
    host.outbox.forward(NOW)

    assert take(host.primary) == []


def test_a_forwarder_that_was_frozen_hands_nothing_over(host):
    host.fail()
    host.outbox.put([make_entry("add", endpoint=PEOPLE, is_repeatable=False)], NOW)
    host.recover()
    taken = host.outbox._take(NOW)
    ends_at = host.primary.server_time() - 1

    assert host.outbox._hand_over(taken, NOW, ends_at) is None
    assert host.primary.stats().depth == 0


def test_what_a_full_server_does_not_take_over_stays_in_the_spool(host):
    host.server.stop()
    host.outbox.put([make_entry("a")], NOW)
    host.server.start()
    with redis.Redis.from_url(host.server.url) as client:
        client.config_set("maxmemory", "1")
    host.recover()

    assert host.outbox.forward(NOW) == 0

    assert (host.outbox.spooled(), host.spool.stats().leased) == (1, 0)


def test_what_came_too_late_is_left_to_whoever_took_it_since(host, monkeypatch):
    host.fail()
    host.outbox.put([make_entry("a")], NOW)
    host.recover()
    monkeypatch.setattr(spooled_module, "HAND_OVER_SECONDS", -1.0)
    leased = host.spool.stats().leased

    assert (host.outbox.forward(NOW), leased) == (0, 0)
    assert host.outbox.spooled() == 1
    assert host.primary.stats().depth == 0


def test_what_was_perhaps_counted_is_counted_once(host):
    host.outbox.stats()
    host.fail()
    host.outbox.tally({("refused", "gpc"): 2})
    host.server.send(signal.SIGCONT)
    host.recover()
    host.outbox.tally({("refused", "gpc"): 1})

    host.forward()

    assert host.primary.stats().totals == {("refused", "gpc"): 3}
    assert host.outbox.stats().totals["refused", "gpc"] == 3


def test_totals_of_a_server_that_never_answered_are_not_made_up(host):
    host.fail()
    with pytest.raises(OutboxUnavailable, match="Redis at"):
        host.outbox.stats()

    host.recover()
    host.outbox.put([make_entry("a")], NOW)
    assert host.outbox.stats().depth == 1
    host.fail()

    assert host.outbox.stats().depth == 1
    assert host.outbox.trouble


def test_many_entries_are_put_in_parts(host):
    entries = [make_entry("a") for _ in range(PUT_ENTRIES)]
    host.outbox.put([make_entry("first")], NOW)
    number = host.outbox._number

    result = host.outbox.put([*entries, make_entry("stopped"), make_entry("last")], NOW)

    assert result == PutResult(PUT_ENTRIES + 2, 0, 0)
    assert host.outbox._number == number + 2
    assert host.primary.stats().depth == PUT_ENTRIES + 3


def test_what_ends_with_the_process_is_what_memory_holds(server, tmp_path):
    settings = make_settings()
    file = SQLiteOutbox(tmp_path / "spool", settings)
    server.stop()
    held = []
    for spool in (MemoryOutbox(settings), Standby(file, MemoryOutbox(settings), Counters())):
        host = Host(server, spool)
        host.outbox.put([make_entry("a")], NOW)
        held.append(host.outbox.held().depth)
        host.outbox.close()

    assert held == [1, 0]
    server.start()


def test_both_are_expired(host):
    host.outbox.put([make_entry("a")], NOW)
    host.outbox.stats()
    host.server.stop(signal.SIGKILL)
    host.outbox.put([make_entry("b")], NOW)
    host.server.start()
    host.recover()

    assert host.outbox.expire(NOW + 31 * 86_400) == 2


def test_a_put_of_nothing_is_nothing(host):
    host.fail()

    assert host.outbox.put([], NOW) == PutResult(0, 0, 0)
    assert host.outbox.spooled() == 0
