import math

import pytest

from mp_asgi.delivery.outbox.base import Ticket
from mp_asgi.delivery.outbox.stopping import find_oldest, is_ended


@pytest.mark.parametrize(
    ("tracked_at", "ended"),
    [
        pytest.param(9, True, id="before-it"),
        pytest.param(10, True, id="with-it"),
        pytest.param(11, False, id="since"),
        pytest.param(20, False, id="now"),
        pytest.param(80, False, id="as-far-ahead-as-clocks-differ"),
        pytest.param(81, True, id="in-the-future"),
    ],
)
def test_a_stop_ends_what_nobody_can_place_behind_it(tracked_at, ended):
    assert is_ended(tracked_at, at=10, now=20) is ended


@pytest.mark.parametrize(
    ("ticket", "oldest"),
    [
        pytest.param(None, 4, id="none"),
        pytest.param(Ticket("journal", 1), 4, id="of-a-journal"),
        pytest.param(Ticket("file", 1, is_historical=True), -math.inf, id="of-history"),
    ],
)
def test_only_for_history_does_somebody_answer(ticket, oldest):
    assert find_oldest(6, 10, ticket) == oldest
