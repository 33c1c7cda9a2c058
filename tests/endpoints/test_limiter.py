import pytest

from mp_asgi.endpoints.browser_wire import MAX_MESSAGES
from mp_asgi.endpoints.limiter import ALL, EACH, NETWORK, Limiter, Rate, Sender

NOW = 1_800_000_000.0
RATE = Rate(1, 10)
A, B, C = (Sender(RATE, name) for name in "ABC")


@pytest.fixture
def limiter():
    """Ten at once and one a second for each; twenty-five at once and two a second for all."""
    return Limiter(Rate(2, 25), max_senders=3)


def take(limiter, sender, number, now=NOW):
    """Charge what there is room for. Answer whether there was."""
    has_room = limiter.has_room(sender, number, now)
    if has_room:
        limiter.charge(sender, number)
    return has_room


def test_a_sender_may_send_a_burst_and_no_more(limiter):
    assert take(limiter, A, 10)
    assert not take(limiter, A, 1)


def test_more_than_a_burst_at_once_never_passes(limiter):
    assert not take(limiter, A, 11)


def test_what_is_not_charged_takes_nothing(limiter):
    assert limiter.has_room(A, 10, NOW)
    assert limiter.has_room(A, 10, NOW)


def test_what_was_taken_at_once_is_owed(limiter):
    take(limiter, A, 10)
    limiter.charge(A, 5)

    assert not limiter.has_room(A, 1, NOW + 5)
    assert limiter.has_room(A, 1, NOW + 6)


def test_a_bucket_fills_with_time(limiter):
    take(limiter, A, 10)

    assert not take(limiter, A, 3, NOW + 2)
    assert take(limiter, A, 3, NOW + 3)


def test_a_bucket_never_holds_more_than_a_burst(limiter):
    take(limiter, A, 10)

    assert not take(limiter, A, 11, NOW + 3_600)


def test_senders_do_not_share_a_bucket(limiter):
    take(limiter, A, 10)

    assert take(limiter, B, 10)


def test_a_network_and_a_device_of_the_same_name_do_not_share_a_bucket(limiter):
    take(limiter, A, 10)

    assert take(limiter, Sender(Rate(5, 12), "A"), 12)


def test_all_together_have_a_limit_too(limiter):
    assert take(limiter, A, 10)
    assert take(limiter, B, 10)
    assert not take(limiter, C, 6)
    assert take(limiter, C, 5)
    assert take(limiter, C, 4, NOW + 2)


def test_a_clock_that_is_set_back_neither_fills_nor_empties(limiter):
    take(limiter, A, 9)

    assert take(limiter, A, 1, NOW - 60)
    assert not take(limiter, A, 2, NOW - 59)


def test_who_sent_longest_ago_is_forgotten_first():
    limiter = Limiter(Rate(0, 100), max_senders=2)
    senders = [Sender(Rate(0, 1), name) for name in ("A", "B", "A", "C")]
    for sender in senders:
        take(limiter, sender, 1)

    assert not take(limiter, senders[0], 1)
    assert take(limiter, senders[1], 1)


@pytest.mark.parametrize("rate", [EACH, NETWORK])
def test_what_one_request_may_hold_is_within_the_limits(rate):
    assert Limiter().has_room(Sender(rate, "A"), MAX_MESSAGES, NOW)
    assert MAX_MESSAGES <= rate.burst <= ALL.burst
