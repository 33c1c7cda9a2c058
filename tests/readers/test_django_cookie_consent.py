from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, STALE, UNREADABLE
from mp_asgi.readers.django_cookie_consent import DjangoCookieConsent

VERSION = "2026-11-21T10:00:00.123456+00:00"


def read(text, **options):
    return DjangoCookieConsent(**options).read({"cookie_consent": text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(f"analytics={VERSION}", GRANTED, id="accepted"),
        pytest.param("analytics=-1", DENIED, id="declined"),
        pytest.param(f"social=-1|analytics={VERSION}", GRANTED, id="another-declined"),
        pytest.param(f"social={VERSION}", NOTHING, id="not-asked"),
        pytest.param(f"analytics={VERSION}|analytics=-1", DENIED, id="told-twice"),
        pytest.param("analytics=", UNREADABLE, id="no-version"),
        pytest.param("analytics=-", UNREADABLE, id="declined-but-cut"),
        pytest.param(f"analytics={VERSION}=", UNREADABLE, id="too-long"),
        pytest.param(f"social|analytics={VERSION}", UNREADABLE, id="a-group-without-a-version"),
        pytest.param("social|analytics=-1", DENIED, id="declined-beside-it"),
        pytest.param("", UNREADABLE, id="empty"),
        pytest.param('""', UNREADABLE, id="quotes"),
    ],
)
def test_a_group_is_read(text, expected):
    assert read(text) is expected


@pytest.mark.parametrize(
    ("version", "expected"), [(VERSION, GRANTED), ("-1", DENIED)], ids=["accepted", "declined"]
)
def test_the_value_is_read_as_django_writes_it(version, expected):
    cookies = SimpleCookie({"cookie_consent": f"analytics={version}"})

    assert read(cookies["cookie_consent"].coded_value) is expected


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        pytest.param("2026-11-21T10:00:00Z", GRANTED, id="the-current-version"),
        pytest.param("2026-11-21T11:00:00Z", STALE, id="an-older-version"),
    ],
)
def test_who_accepted_an_older_version_is_asked_again(since, expected):
    assert read(f"analytics={VERSION}", since=since) is expected
    assert read("analytics=-1", since=since) is DENIED


def test_another_cookie_and_group_can_be_named():
    reader = DjangoCookieConsent(cookie="consent", group="statistics")

    assert reader.cookies == ("consent",)
    assert reader.read({"consent": f"statistics={VERSION}"}) is GRANTED


def test_a_time_that_is_none_is_refused():
    with pytest.raises(ValueError, match="since is 'soon'"):
        DjangoCookieConsent(since="soon")


@given(st.text())
def test_no_text_raises(text):
    read(text)
