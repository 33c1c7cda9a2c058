import pytest

from mp_asgi.delivery.complaints import (
    MAX_SKEW_SECONDS,
    QUIET_SECONDS,
    REPEAT_SECONDS,
    Complaints,
)
from mp_asgi.delivery.lanes import Lane
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.events import Endpoint
from tests.support import NOW, make_settings

FAILED = "Sending to /import failed and is tried again: busy."


def make_complaints() -> Complaints:
    settings = make_settings()
    return Complaints(MemoryOutbox(settings), settings)


@pytest.mark.parametrize(
    ("skew", "said"),
    [
        pytest.param(MAX_SKEW_SECONDS, "", id="a-minute-ahead"),
        pytest.param(-MAX_SKEW_SECONDS, "", id="a-minute-behind"),
        pytest.param(MAX_SKEW_SECONDS + 1, "61 seconds ahead of", id="more-ahead"),
        pytest.param(-MAX_SKEW_SECONDS - 1, "61 seconds behind", id="more-behind"),
    ],
)
def test_a_clock_that_is_wrong_by_more_than_a_minute_is_said(skew, said, caplog):
    make_complaints().compare_clocks(NOW, NOW + skew)

    assert len(caplog.messages) == bool(said)
    assert said in caplog.text


def test_a_wrong_clock_is_said_once(caplog):
    complaints = make_complaints()

    for _ in range(2):
        complaints.compare_clocks(NOW, NOW + 3600)

    assert len(caplog.messages) == 1


# --- troubles that last ---------------------------------------------------------------------------


@pytest.fixture
def lane() -> Lane:
    return Lane(Endpoint.EVENTS, 2000)


def test_a_trouble_is_said_once_however_long_it_lasts(lane, caplog):
    complaints = make_complaints()

    for turn in range(10):
        complaints.fail(lane, "retry", "busy", NOW + turn * REPEAT_SECONDS)

    assert caplog.messages == [FAILED]


def test_a_trouble_ends_with_the_first_success_after_a_minute_without_a_failure(lane, caplog):
    complaints = make_complaints()
    complaints.fail(lane, "retry", "busy", NOW)
    complaints.fail(lane, "retry", "busy", NOW + 1)
    caplog.clear()

    complaints.recover(lane, NOW + QUIET_SECONDS)
    assert caplog.messages == []
    complaints.recover(lane, NOW + 1 + QUIET_SECONDS)
    complaints.recover(lane, NOW + 2 + QUIET_SECONDS)

    assert caplog.messages == ["Mixpanel takes /import again, after 2 failed requests."]


def test_a_trouble_that_ended_unseen_is_said_to_have_ended_before_the_next(lane, caplog):
    complaints = make_complaints()
    complaints.fail(lane, "retry", "busy", NOW)
    complaints.recover(lane, NOW + 1)
    caplog.clear()

    complaints.fail(lane, "retry", "busy", NOW + REPEAT_SECONDS)

    assert caplog.messages == ["Mixpanel takes /import again, after 1 failed requests.", FAILED]


def test_a_trouble_without_a_success_has_not_ended(lane, caplog):
    complaints = make_complaints()
    complaints.fail(lane, "retry", "busy", NOW)
    complaints.recover(lane, NOW + 1)
    complaints.fail(lane, "retry", "busy", NOW + 2)
    caplog.clear()

    complaints.fail(lane, "retry", "busy", NOW + REPEAT_SECONDS)

    assert caplog.messages == []


def test_a_kind_that_comes_back_is_said_at_most_every_ten_minutes(lane, caplog):
    complaints = make_complaints()
    for seconds in (0, 100, 200):
        complaints.fail(lane, "retry", "busy", NOW + seconds)
        complaints.recover(lane, NOW + seconds + QUIET_SECONDS)
    assert len(caplog.messages) == 2
    caplog.clear()

    complaints.fail(lane, "retry", "busy", NOW + 500)
    complaints.fail(lane, "retry", "busy", NOW + REPEAT_SECONDS)

    assert caplog.messages == [FAILED]


def test_each_kind_of_a_trouble_and_each_endpoint_is_said(lane, caplog):
    complaints = make_complaints()

    complaints.fail(lane, "retry", "busy", NOW)
    complaints.fail(lane, "unavailable", "no reply", NOW + 1)
    complaints.fail(Lane(Endpoint.PEOPLE, 2000), "retry", "busy", NOW + 2)

    assert len(caplog.messages) == 3


def test_a_lane_is_no_longer_in_trouble_with_the_first_success(lane):
    complaints = make_complaints()
    complaints.fail(lane, "retry", "busy", NOW)
    assert lane.trouble == "retry"

    complaints.recover(lane, NOW + 1)

    assert lane.trouble == ""
