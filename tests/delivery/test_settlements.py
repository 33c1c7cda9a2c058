import pytest

from mp_asgi.delivery.complaints import Complaints
from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.settlements import MAX_LATE_SECONDS, Settlements
from mp_asgi.events import Endpoint
from tests.support import NOW, make_entry, make_settings


class Shared(MemoryOutbox):
    """An outbox of which others could take what a lease no longer holds."""

    is_shared = True


class Broken(MemoryOutbox):
    def ack(self, ids):
        raise KeyError("a bug")


class Interrupted(MemoryOutbox):
    interruptions = 1

    def ack(self, ids):
        if self.interruptions:
            self.interruptions -= 1
            raise SystemExit
        return super().ack(ids)


class Bench:
    def __init__(self, kind: type[MemoryOutbox] = MemoryOutbox) -> None:
        settings = make_settings()
        self.outbox = kind(settings)
        self.settlements = Settlements(self.outbox, Counters(), Complaints(self.outbox, settings))

    def lease(self, *names: str):
        self.outbox.put([make_entry(name) for name in names], NOW)
        limits = {"max_messages": 9, "max_bytes": 9999, "seconds": 120.0}
        return self.outbox.lease(Endpoint.EVENTS, NOW, **limits)

    def ready(self, now: float = NOW) -> int:
        return self.outbox.backlog(Endpoint.EVENTS, now).messages


def test_nothing_is_stored_before_it_is_told_to():
    bench = Bench()
    bench.settlements.ack(bench.lease("a"))

    assert bench.outbox.stats().depth == 1
    bench.settlements.store(NOW)
    assert bench.outbox.stats().depth == 0


@pytest.mark.parametrize(
    ("kind", "late", "ready"),
    [
        pytest.param(Shared, MAX_LATE_SECONDS, 1, id="in-time"),
        pytest.param(Shared, MAX_LATE_SECONDS + 1, 0, id="too-late"),
        pytest.param(Shared, -MAX_LATE_SECONDS - 1, 0, id="the-clock-was-set-back"),
        pytest.param(MemoryOutbox, MAX_LATE_SECONDS + 1, 1, id="nobody-else-leases"),
    ],
)
@pytest.mark.parametrize(
    "settle",
    [
        pytest.param(lambda settlements, leased: settlements.release([leased], NOW), id="release"),
        pytest.param(lambda settlements, leased: settlements.split(leased, NOW), id="split"),
    ],
)
def test_a_lease_that_may_be_another_processs_by_now_is_not_ended(kind, late, ready, settle):
    bench = Bench(kind)
    bench.outbox.put([make_entry("a", "b")], NOW)
    (leased,) = bench.lease()
    settle(bench.settlements, leased)

    bench.settlements.store(NOW + late)

    assert bench.ready() == 2 * ready


def test_what_is_given_back_may_be_held_for_a_while():
    bench = Bench()
    bench.settlements.release(bench.lease("a"), NOW, hold_seconds=60)

    bench.settlements.store(NOW)

    assert (bench.ready(NOW + 59), bench.ready(NOW + 60)) == (0, 1)


def test_a_bug_of_a_storage_does_not_stand_in_the_way_for_ever():
    bench = Bench(Broken)
    bench.settlements.ack(bench.lease("a"))

    for _ in range(2):
        with pytest.raises(KeyError):
            bench.settlements.store(NOW)

    bench.settlements.store(NOW)
    assert bench.outbox.stats().depth == 1


def test_what_was_interrupted_is_stored_with_the_next_call():
    bench = Bench(Interrupted)
    bench.settlements.ack(bench.lease("a"))
    with pytest.raises(SystemExit):
        bench.settlements.store(NOW)

    bench.settlements.store(NOW)

    assert bench.outbox.stats().totals["delivered", ""] == 1
