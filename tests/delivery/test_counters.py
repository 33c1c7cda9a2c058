import os
import threading

import pytest

from mp_asgi.delivery.counters import Counters, Stats
from mp_asgi.errors import OutboxUnavailable
from tests.support import TIMEOUT


def test_nothing_counted_is_all_zero():
    assert Counters().snapshot() == Stats()


def test_each_name_is_counted_in_its_place():
    counters = Counters()
    for name in ("accepted", "delivered", "retried", "unpersisted", "cross_site", "cookie_invalid"):
        counters.count(name)
    counters.count("buried", 2, "expired")
    counters.count("buried", 1, "rejected")
    counters.count("dropped", 4, "overflow")
    counters.count("dropped", 0, "stopped")
    counters.count("refused", 5, "no_consent")
    counters.count("stop_lost")
    counters.count("read", 2, "twice")

    assert counters.snapshot() == Stats(
        accepted=1,
        delivered=1,
        buried=3,
        retried=1,
        dropped={"overflow": 4},
        refused={"no_consent": 5},
        unpersisted=1,
        cross_site=1,
        cookie_invalid=1,
        other={"stop_lost": 1, "read.twice": 2},
    )


def test_a_snapshot_does_not_change_with_what_is_counted_later():
    counters = Counters()
    counters.count("dropped", 1, "overflow")
    snapshot = counters.snapshot()

    counters.count("dropped", 1, "overflow")

    assert snapshot.dropped == {"overflow": 1}


def test_threads_lose_no_count():
    counters = Counters()

    def count() -> None:
        for _ in range(2_000):
            counters.count("accepted")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)

    assert counters.snapshot().accepted == 16_000


def test_another_process_starts_from_zero(monkeypatch: pytest.MonkeyPatch):
    counters = Counters()
    counters.count("accepted", 7)
    store = counters._store()

    with store.lock:  # held by a thread that does not live in the child
        monkeypatch.setattr(os, "getpid", lambda: -1)
        counters.count("accepted")
        assert counters.snapshot().accepted == 1
    monkeypatch.undo()

    assert counters.snapshot().accepted == 7


def test_what_is_told_is_told_once():
    counters = Counters()
    counters.count("refused", 2, "no-choice")
    counters.echo("accepted", 5)  # the outbox knows that
    told = []

    counters.tell(told.append)
    counters.tell(told.append)

    assert told == [{("refused", "no-choice"): 2}]


def test_what_could_not_be_told_is_told_again():
    counters = Counters()
    counters.count("retried", 3)
    told = []

    def fail(counts):
        raise OutboxUnavailable("away")

    with pytest.raises(OutboxUnavailable):
        counters.tell(fail)
    counters.count("retried", 1)
    counters.tell(told.append)

    assert told == [{("retried", ""): 4}]


def test_two_threads_never_tell_the_same():
    counters = Counters()
    counters.count("retried")
    may_others = []

    counters.tell(lambda _: may_others.append(counters._store().telling.acquire(blocking=False)))

    assert may_others == [False]


def test_nothing_is_told_between_an_outboxs_totals_and_what_it_was_not_told():
    counters = Counters()
    counters.count("refused", 1, "no_consent")
    told = []
    teller = threading.Thread(target=counters.tell, args=(told.append,))

    def read() -> list[object]:
        teller.start()
        teller.join(0.05)  # long after it would have told
        return list(told)

    totals, untold = counters.join(read)

    teller.join(TIMEOUT)
    assert (totals, untold) == ([], {("refused", "no_consent"): 1})
    assert told == [untold]


def test_a_process_counts_its_own_by_reason():
    counters = Counters()
    counters.count("dropped", 1, "overflow")
    counters.echo("accepted", 2)

    assert counters.counts() == {("dropped", "overflow"): 1, ("accepted", ""): 2}
