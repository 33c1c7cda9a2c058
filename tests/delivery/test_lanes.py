import pytest

from mp_asgi.delivery.lanes import SET_BACK_SECONDS, Circuit, Lane, remaining
from mp_asgi.events import MAX_BATCH_BYTES, Endpoint
from tests.support import NOW


@pytest.mark.parametrize(
    ("failures", "jitter", "expected"),
    [
        pytest.param(1, 0.75, 1.5, id="first"),
        pytest.param(2, 0.75, 3.0, id="second-doubles"),
        pytest.param(5, 0.75, 24.0, id="fifth"),
        pytest.param(6, 0.75, 45.0, id="a-minute-at-most"),
        pytest.param(500, 0.75, 45.0, id="for-ever"),
        pytest.param(3, 0.0, 0.5, id="never-no-pause"),
    ],
)
def test_each_failure_backs_off_further(failures, jitter, expected):
    circuit = Circuit()

    for _ in range(failures):
        circuit.back_off(NOW, jitter)

    assert circuit.remaining(NOW) == expected
    assert circuit.failures == failures


def test_the_host_may_ask_for_a_longer_pause():
    circuit = Circuit()

    circuit.back_off(NOW, 0.5, least=30)

    assert circuit.remaining(NOW + 10) == 20
    assert circuit.remaining(NOW + 30) == 0


def test_a_success_ends_the_pause_and_the_row():
    circuit = Circuit()
    circuit.back_off(NOW, 0.5)

    circuit.close()

    assert (circuit.remaining(NOW), circuit.failures) == (0, 0)


def test_a_clock_set_back_behind_the_failure_ends_the_pause():
    circuit = Circuit()
    circuit.open(NOW, 60)

    assert circuit.remaining(NOW - 3600) == 0


def test_a_lane_widens_step_by_step_to_what_it_was():
    lane = Lane(Endpoint.EVENTS, 2000)
    lane.max_messages, lane.max_bytes, lane.lone_refusals = 600, 600_000, 3
    lane.circuit.back_off(NOW, 0.5)

    lane.recover()
    first = (lane.max_messages, lane.max_bytes)
    lane.recover()

    assert first == (1200, 1_200_000)
    assert (lane.max_messages, lane.max_bytes) == (2000, MAX_BATCH_BYTES)
    assert (lane.lone_refusals, lane.circuit.remaining(NOW)) == (0, 0)


def test_an_alias_always_travels_alone():
    lane = Lane(Endpoint.ALIASES, 2000)

    lane.recover()

    assert lane.max_messages == lane.most_messages == 1


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        pytest.param(NOW + 0.1, 5.0, id="put-while-the-sender-read-the-clock"),
        pytest.param(NOW + SET_BACK_SECONDS, 5.0, id="a-second"),
        pytest.param(NOW + SET_BACK_SECONDS + 0.5, 0.0, id="the-clock-was-set-back"),
    ],
)
def test_two_readings_that_crossed_are_no_clock_set_back(since, expected):
    assert remaining(5.0, since, NOW) == expected
