import pytest

from mp_asgi.erasure.pace import MAX_BACKOFF_SECONDS, SECONDS_BETWEEN_REQUESTS, Pace
from tests.support import NOW, FakeClock


def test_the_first_request_starts_at_once():
    clock = FakeClock()

    Pace(clock, clock.advance).wait()

    assert clock.now == NOW


def test_the_next_request_starts_a_second_after_the_last_ended():
    clock = FakeClock()
    pace = Pace(clock, clock.advance)
    pace.wait()
    clock.advance(7.0)
    pace.note_end()
    ended_at = clock.now

    clock.advance(0.5)
    pace.wait()

    assert clock.now == pytest.approx(ended_at + SECONDS_BETWEEN_REQUESTS)


def test_who_comes_late_does_not_wait():
    clock = FakeClock()
    pace = Pace(clock, clock.advance)
    pace.note_end()
    clock.advance(5.0)

    pace.wait()

    assert clock.now == NOW + 5.0


@pytest.mark.parametrize(
    ("failures", "chance", "seconds"),
    [(1, 0.0, 1.0), (1, 1.0, 2.0), (3, 1.0, 8.0), (5, 0.0, 16.0), (40, 1.0, MAX_BACKOFF_SECONDS)],
    ids=["first-least", "first-most", "third", "fifth-least", "never-more-than-a-minute"],
)
def test_each_failure_doubles_the_wait(failures, chance, seconds):
    clock = FakeClock(0.0)

    Pace(clock, clock.advance, lambda: chance).back_off(failures)

    assert clock.now == seconds


def test_the_time_is_the_clocks():
    assert Pace(FakeClock(), [].append).now() == NOW


def test_a_pause_is_as_long_as_it_is_told():
    clock = FakeClock(0.0)

    Pace(clock, clock.advance).pause(60.0)

    assert clock.now == 60.0
