from itertools import permutations

import pytest

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, STALE, UNREADABLE, Reading, Said
from mp_asgi.readers.strictest import strictest


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        pytest.param([], NOTHING, id="no-cookie"),
        pytest.param([GRANTED], GRANTED, id="one"),
        pytest.param([NOTHING, GRANTED], GRANTED, id="silence-is-no-objection"),
        pytest.param([GRANTED, STALE], STALE, id="a-stale-one-ends-a-grant"),
        pytest.param([STALE, UNREADABLE], UNREADABLE, id="unreadable-ends-a-stale-one"),
        pytest.param([UNREADABLE, DENIED, GRANTED], DENIED, id="a-denial-beats-all"),
        pytest.param(
            [Reading(Said.DENIED, 1.0), Reading(Said.DENIED, 2.0)],
            Reading(Said.DENIED, 2.0),
            id="the-later-denial",
        ),
        pytest.param([Reading(Said.DENIED, 1.0), DENIED], DENIED, id="a-denial-without-a-time"),
        pytest.param(
            [Reading(Said.GRANTED, 1.0, 3.0), Reading(Said.GRANTED, 2.0, 4.0)],
            Reading(Said.GRANTED, 1.0, 3.0),
            id="the-earlier-grant",
        ),
    ],
)
def test_the_answer_that_permits_least_counts_in_any_order(readings, expected):
    answers = {strictest(order) for order in permutations(readings)}

    assert answers == {expected}
