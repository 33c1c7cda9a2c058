import pytest

from mp_asgi.ledger.moment import to_milliseconds, to_seconds
from tests.support import NOW

MILLISECONDS = int(NOW) * 1000


@pytest.mark.parametrize(
    ("after", "state", "expected"),
    [
        pytest.param(0.0004, "granted", 0, id="a-grant-counts-from-the-start"),
        pytest.param(0.0004, "lifted", 0, id="a-lift-too"),
        pytest.param(0.0004, "denied", 1, id="a-denial-from-the-end"),
        pytest.param(0.0004, "erased", 1, id="an-erasure-too"),
        pytest.param(0.001, "granted", 1, id="a-whole-one-stays-for-a-grant"),
        pytest.param(0.001, "denied", 1, id="a-whole-one-stays-for-a-denial"),
        pytest.param(99.0, "granted", 5000, id="the-future-is-now"),
        pytest.param(-NOW - 5, "granted", -MILLISECONDS, id="before-the-epoch-is-the-epoch"),
    ],
)
def test_a_time_becomes_whole_milliseconds(after, state, expected):
    assert to_milliseconds(NOW + after, state, NOW + 5) == MILLISECONDS + expected


@pytest.mark.parametrize("state", ["granted", "denied"])
def test_every_whole_millisecond_survives_the_way_there_and_back(state):
    lost = [
        thousandth
        for thousandth in range(1000)
        if to_milliseconds(to_seconds(MILLISECONDS + thousandth), state, NOW + 5)
        != MILLISECONDS + thousandth
    ]

    assert lost == []
