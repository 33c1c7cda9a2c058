import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.axeptio import Axeptio
from mp_asgi.readers.base import NOTHING, UNREADABLE, Reading, Said
from tests.readers.rows import read_header, rows_of, state_of

DATE = "%22$$date%22:%221970-01-01T00:00:05.000Z%22"


def read(text, **options):
    return Axeptio(**options).read({"axeptio_cookies": text})


@pytest.mark.parametrize(("header", "expected"), rows_of("axeptio"))
def test_a_real_header_is_read(header, expected):
    assert state_of(read_header(Axeptio(), header)) == expected


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        pytest.param("true", Said.GRANTED, id="granted"),
        pytest.param("false", Said.DENIED, id="denied"),
    ],
)
def test_a_choice_is_read_with_its_time(choice, said):
    text = f"{{{DATE}%2C%22mixpanel%22:{choice}%2C%22$$completed%22:true}}"

    assert read(text) == Reading(said, 5.0)


def test_a_time_that_cannot_be_read_loses_no_denial():
    text = '{"$$date":"soon","mixpanel":false,"$$completed":true}'

    assert read(text) == Reading(Said.DENIED)


def test_a_time_that_cannot_be_read_ends_a_grant():
    assert read('{"$$date":"soon","mixpanel":true,"$$completed":true}') is UNREADABLE


def test_another_vendor_can_be_named():
    assert read('{"ours":true,"$$completed":true}', vendor="ours").said is Said.GRANTED


def test_another_cookie_can_be_named():
    assert Axeptio(cookie="choices").cookies == ("choices",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('{"mixpanel":true,"$$completed":false}', NOTHING, id="not-completed"),
        pytest.param('{"mixpanel":true}', NOTHING, id="completed-is-missing"),
        pytest.param('{"$$completed":true}', NOTHING, id="not-among-the-vendors"),
        pytest.param('{"mixpanel":true,"$$completed":1}', UNREADABLE, id="completed-as-a-number"),
        pytest.param('{"mixpanel":1,"$$completed":true}', UNREADABLE, id="choice-as-a-number"),
        pytest.param('{"mixpanel":"true","$$completed":true}', UNREADABLE, id="choice-as-text"),
        pytest.param(
            '{"mixpanel":false,"mixpanel":true,"$$completed":true}', UNREADABLE, id="told-twice"
        ),
        pytest.param("", UNREADABLE, id="empty"),
        pytest.param("[true]", UNREADABLE, id="no-object"),
        pytest.param('{"mixpanel":true,"$$completed":tru', UNREADABLE, id="cut"),
    ],
)
def test_anything_else_is_no_choice(text, expected):
    assert read(text) is expected


@given(st.text())
def test_no_text_raises_or_grants(text):
    assert read(text).said is not Said.GRANTED
