import pytest

from mp_asgi.readers.base import DENIED, GRANTED, UNREADABLE
from mp_asgi.readers.react_cookie_consent import ReactCookieConsent
from tests.readers.rows import read_header, rows_of, state_of


@pytest.mark.parametrize(("header", "expected"), rows_of("react-cookie-consent"))
def test_a_real_header_is_read(header, expected):
    assert state_of(read_header(ReactCookieConsent(), header)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("true", GRANTED, id="accepted"),
        pytest.param("false", DENIED, id="declined"),
        pytest.param("", UNREADABLE, id="empty"),
        pytest.param("True", UNREADABLE, id="another-case"),
        pytest.param("1", UNREADABLE, id="number"),
        pytest.param("{stamp:%27x%27%2Cstatistics:true}", UNREADABLE, id="cookiebot"),
    ],
)
def test_only_the_two_words_are_a_choice(text, expected):
    assert ReactCookieConsent().read({"CookieConsent": text}) is expected


def test_another_cookie_can_be_named():
    reader = ReactCookieConsent(cookie="choice")

    assert reader.cookies == ("choice",)
    assert reader.read({"choice": "true"}) is GRANTED
