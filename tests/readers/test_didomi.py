import json
from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.base import NOTHING, UNREADABLE, Reading, Said
from mp_asgi.readers.didomi import Didomi
from tests.readers.rows import read_header, rows_of, state_of

UPDATED = "1970-01-01T00:00:05.000Z"


def encode(**token):
    return b64encode(json.dumps({"updated": UPDATED} | token).encode()).decode()


def read(text, **options):
    return Didomi(**options).read({"didomi_token": text})


@pytest.mark.parametrize(("header", "expected"), rows_of("didomi"))
def test_a_real_header_is_read_with_its_sites_purpose(header, expected):
    # One of the sites has no vendor c:mixpanel, but this purpose.
    reading = read_header(Didomi(), header)
    if state_of(reading) != expected:
        reading = read_header(Didomi(purpose="purpose_analytics"), header)

    assert state_of(reading) == expected


@pytest.mark.parametrize(
    ("token", "options", "said"),
    [
        pytest.param({"vendors": {"enabled": ["c:mixpanel"]}}, {}, Said.GRANTED, id="vendor"),
        pytest.param({"vendors": {"disabled": ["c:mixpanel"]}}, {}, Said.DENIED, id="no-vendor"),
        pytest.param(
            {"vendors": {"enabled": ["c:mixpanel"], "disabled": ["c:mixpanel"]}},
            {},
            Said.DENIED,
            id="vendor-both-ways",
        ),
        pytest.param({"vendors": {"enabled": ["x"]}}, {"vendor": "x"}, Said.GRANTED, id="ours"),
        pytest.param(
            {"purposes": {"enabled": ["p"]}}, {"purpose": "p"}, Said.GRANTED, id="purpose"
        ),
        pytest.param(
            {"purposes": {"disabled": ["p"]}, "vendors": {"enabled": ["c:mixpanel"]}},
            {"purpose": "p"},
            Said.DENIED,
            id="vendor-without-the-purpose",
        ),
        pytest.param(
            {"purposes": {"enabled": ["p"]}, "vendors": {"disabled": ["c:mixpanel"]}},
            {"purpose": "p"},
            Said.DENIED,
            id="purpose-without-the-vendor",
        ),
    ],
)
def test_a_choice_is_read_with_its_time(token, options, said):
    assert read(encode(**token), **options) == Reading(said, 5.0)


@pytest.mark.parametrize(
    ("token", "options"),
    [
        pytest.param({"version": None}, {}, id="before-a-choice"),
        pytest.param({"vendors": {"enabled": ["google"]}}, {}, id="not-among-the-vendors"),
        pytest.param(
            {"vendors": {"enabled": ["c:mixpanel"]}}, {"purpose": "p"}, id="not-among-the-purposes"
        ),
    ],
)
def test_a_token_without_a_word_on_us_says_nothing(token, options):
    assert read(encode(**token), **options) is NOTHING


def test_a_time_that_cannot_be_read_loses_no_denial():
    text = encode(vendors={"disabled": ["c:mixpanel"]}, updated=["soon"])

    assert read(text) == Reading(Said.DENIED)


def test_a_time_that_cannot_be_read_ends_a_grant():
    assert read(encode(vendors={"enabled": ["c:mixpanel"]}, updated="soon")) is UNREADABLE


def test_an_escaped_token_is_read():
    assert read(quote(encode(vendors={"enabled": ["c:mixpanel"]}))).said is Said.GRANTED


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("true", id="word"),
        pytest.param("e30", id="not-filled-up"),
        pytest.param("!" + encode(vendors={"enabled": ["c:mixpanel"]}), id="no-base64"),
        pytest.param(encode(vendors={"enabled": ["c:mixpanel"]})[:-8], id="cut"),
        pytest.param("/w==", id="no-utf-8"),
        pytest.param("W10=", id="no-object"),
        pytest.param(encode(vendors=["c:mixpanel"]), id="vendors-as-a-list"),
        pytest.param(encode(vendors={"enabled": "c:mixpanel"}), id="enabled-as-text"),
        pytest.param(encode(purposes={"disabled": {}}), id="disabled-as-an-object"),
    ],
)
def test_what_cannot_be_decoded_is_unreadable(text):
    assert read(text) is UNREADABLE


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        pytest.param({}, UNREADABLE, id="alone"),
        pytest.param(
            {"didomi_token": encode(vendors={"enabled": ["c:mixpanel"]})}, UNREADABLE, id="grant"
        ),
        pytest.param(
            {"didomi_token": encode(vendors={"disabled": ["c:mixpanel"]})},
            Reading(Said.DENIED, 5.0),
            id="denial",
        ),
    ],
)
def test_the_binary_cookie_ends_a_grant(cookies, expected):
    assert Didomi().read(cookies | {"didomi_dcs": "CQ"}) == expected


def test_another_cookie_can_be_named():
    assert Didomi(cookie="consent").cookies == ("consent", "didomi_dcs")


@given(st.text() | st.binary().map(lambda octets: b64encode(octets).decode()))
def test_no_text_raises_or_grants(text):
    assert read(text).said is not Said.GRANTED
