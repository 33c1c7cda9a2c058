import pytest

from mp_asgi.readers.base import DENIED, GRANTED, UNREADABLE, Reading, Said
from mp_asgi.readers.dated import read_dated


@pytest.mark.parametrize(
    ("told", "is_granted", "expected"),
    [
        pytest.param("1970-01-01T00:00:05Z", True, Reading(Said.GRANTED, 5.0), id="yes"),
        pytest.param("1970-01-01T00:00:05Z", False, Reading(Said.DENIED, 5.0), id="no"),
        pytest.param(None, True, GRANTED, id="yes-untold"),
        pytest.param(None, False, DENIED, id="no-untold"),
        pytest.param("x", True, UNREADABLE, id="yes-unreadable"),
        pytest.param("x", False, DENIED, id="no-unreadable"),
    ],
)
def test_an_unreadable_time_ends_a_consent_and_no_refusal(told, is_granted, expected):
    assert read_dated(told, is_granted=is_granted) == expected
