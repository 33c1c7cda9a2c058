import pytest

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE
from mp_asgi.readers.tarteaucitron import Tarteaucitron
from tests.readers.rows import read_header, rows_of, state_of


@pytest.mark.parametrize(("header", "expected"), rows_of("tarteaucitron"))
def test_real_cookies_are_read(header, expected):
    assert state_of(read_header(Tarteaucitron(), header)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("!mixpanel=true", GRANTED, id="yes"),
        pytest.param("!gtag=true!mixpanel=false", DENIED, id="no"),
        pytest.param("!mixpanel=wait", NOTHING, id="wait"),
        pytest.param("!gtag=true", NOTHING, id="not-asked"),
        pytest.param("", NOTHING, id="empty"),
        pytest.param("!mixpanel=true!mixpanel=true", GRANTED, id="told-twice-alike"),
        pytest.param("!mixpanel=false!mixpanel=true", UNREADABLE, id="told-twice"),
        pytest.param("!mixpanel=yes", UNREADABLE, id="another-word"),
        pytest.param("mixpanel=true", UNREADABLE, id="no-mark"),
        pytest.param("!notmixpanel=true", NOTHING, id="a-longer-name"),
    ],
)
def test_only_true_is_a_consent(text, expected):
    assert Tarteaucitron().read({"tarteaucitron": text}) == expected


def test_a_site_may_name_cookie_and_service():
    assert Tarteaucitron(cookie="tac", service="mp").read({"tac": "!mp=true"}) == GRANTED
