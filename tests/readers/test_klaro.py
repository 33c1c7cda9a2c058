import pytest

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE
from mp_asgi.readers.klaro import Klaro
from tests.readers.rows import read_header, rows_of, state_of


@pytest.mark.parametrize(("header", "expected"), rows_of("klaro"))
def test_real_cookies_are_read(header, expected):
    cookie = header.partition("=")[0] or "klaro"  # one site renamed it

    assert state_of(read_header(Klaro(cookie=cookie), header)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("{%22mixpanel%22:true}", GRANTED, id="yes"),
        pytest.param("{%22mixpanel%22:false}", DENIED, id="no"),
        pytest.param("{%22session%22:true}", NOTHING, id="not-asked"),
        pytest.param("{%22mixpanel%22:1}", UNREADABLE, id="number"),
        pytest.param("{%22mixpanel%22:null}", UNREADABLE, id="null"),
        pytest.param("true", UNREADABLE, id="no-object"),
        pytest.param("{%22mixpanel%22:false,%22mixpanel%22:true}", UNREADABLE, id="told-twice"),
    ],
)
def test_only_true_is_a_consent(text, expected):
    assert Klaro().read({"klaro": text}) == expected


def test_a_site_may_name_us_otherwise():
    assert Klaro(service="mp").read({"klaro": "{%22mp%22:true}"}) == GRANTED
