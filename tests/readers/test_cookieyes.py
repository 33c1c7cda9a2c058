import pytest

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE
from mp_asgi.readers.cookieyes import CookieYes
from tests.readers.rows import read_header, rows_of, state_of


@pytest.mark.parametrize(("header", "expected"), rows_of("cookieyes"))
def test_real_cookies_are_read(header, expected):
    assert state_of(read_header(CookieYes(), header)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("action:yes,analytics:yes", GRANTED, id="yes"),
        pytest.param("action%3Ayes%2Canalytics%3Ano", DENIED, id="escaped"),
        pytest.param("action:,analytics:yes", NOTHING, id="no-action"),
        pytest.param("action:no,analytics:no", NOTHING, id="action-no"),
        pytest.param("action:yes,functional:yes", NOTHING, id="not-asked"),
        pytest.param("action:ja,analytics:yes", UNREADABLE, id="action-unreadable"),
        pytest.param("analytics:yes", UNREADABLE, id="action-missing"),
        pytest.param("action:yes,analytics:ja", UNREADABLE, id="choice-unreadable"),
        pytest.param("action:yes,analytics:yes,analytics:no", UNREADABLE, id="told-twice"),
        pytest.param("action:yes,analytics:yes,", UNREADABLE, id="no-pair"),
    ],
)
def test_only_an_action_makes_the_category_a_choice(text, expected):
    assert CookieYes().read({"cookieyes-consent": text}) == expected


def test_a_site_may_name_its_category():
    cookies = {"cookieyes-consent": "action:yes,analytics:yes,statistik:no"}

    assert CookieYes(category="statistik").read(cookies) == DENIED
