import pytest

from mp_asgi.delivery.lanes import MAX_DELAY_SECONDS
from mp_asgi.delivery.outbox.reach import Reach
from mp_asgi.delivery.outbox.redis import RedisOutbox
from mp_asgi.errors import OutboxUnavailable
from tests.support import FakeClock, make_settings


class Road:
    """A way to an outbox, with what was called and what failed."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.failures = 0
        self.calls = 0
        self.reach = Reach(
            RedisOutbox("redis://host", make_settings(), "project"),
            clock=self.clock,
            random=lambda: 0.5,
            on_failure=self.count,
        )

    def count(self) -> None:
        self.failures += 1

    def fail(self, _: RedisOutbox) -> None:
        self.calls += 1
        raise OutboxUnavailable("Redis at host:6379: away.")

    def answer(self, _: RedisOutbox) -> int:
        self.calls += 1
        return 7


@pytest.fixture
def road():
    pytest.importorskip("redis", reason="no client: the extra mp-asgi[redis] is missing")
    return Road()


def test_after_a_failure_it_is_left_alone_for_a_while(road):
    for _ in range(3):
        with pytest.raises(OutboxUnavailable, match="Redis at host"):
            road.reach.ask(road.fail)

    assert (road.calls, road.failures) == (1, 1)
    assert road.reach.pause() == 1
    road.clock.advance(MAX_DELAY_SECONDS)
    assert road.reach.ask(road.answer) == 7


def test_who_insists_asks_it_all_the_same_and_ends_the_pause(road, caplog):
    with pytest.raises(OutboxUnavailable):
        road.reach.ask(road.fail)

    assert road.reach.insist(road.answer) == 7

    assert (road.reach.pause(), road.reach.trouble) == (0, "")
    assert "Redis at host:6379 answers again." in caplog.text


def test_a_foreign_failure_is_told_by_its_type_alone(road, caplog):
    def fail(_: RedisOutbox) -> None:
        raise UnicodeError("s3cret")

    with pytest.raises(OutboxUnavailable, match="UnicodeError"):
        road.reach.ask(fail)

    assert "The shared outbox fails: UnicodeError. Events wait" in caplog.text
    assert "s3cret" not in caplog.text
