import pytest

from mp_asgi.readers.base import GRANTED, UNREADABLE
from mp_asgi.readers.cookie_consent_js import CookieConsentJs
from tests.readers.rows import read_header, rows_of, state_of


@pytest.mark.parametrize(("header", "expected"), rows_of("cookie-consent-js"))
def test_real_cookies_are_read(header, expected):
    assert state_of(read_header(CookieConsentJs(), header)) == expected


@pytest.mark.parametrize(("text", "expected"), [("true", GRANTED), ("1", UNREADABLE)])
def test_only_the_exact_words_count(text, expected):
    assert CookieConsentJs(cookie="mine").read({"mine": text}) == expected
