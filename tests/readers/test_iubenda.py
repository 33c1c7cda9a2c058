import pytest

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading, Said
from mp_asgi.readers.iubenda import Iubenda
from tests.readers.rows import read_header, rows_of, state_of

AT = '"timestamp":"1970-01-01T00:00:05Z"'


@pytest.mark.parametrize(("header", "expected"), rows_of("iubenda"))
def test_real_cookies_are_read(header, expected):
    assert state_of(read_header(Iubenda(), header)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('{"purposes":{"4":true},' + AT + "}", Reading(Said.GRANTED, 5.0), id="yes"),
        pytest.param('{"purposes":{"4":false},' + AT + "}", Reading(Said.DENIED, 5.0), id="no"),
        pytest.param(
            '{"purposes":{"1":true},' + AT + "}", Reading(Said.DENIED, 5.0), id="left-out"
        ),
        pytest.param('{"purposes":{}}', NOTHING, id="nothing-asked"),
        pytest.param('{"consent":true}', GRANTED, id="old-yes"),
        pytest.param('{"consent":false,"purposes":{"4":true}}', DENIED, id="old-no-beats-purposes"),
        pytest.param('{"consent":true,"purposes":{"4":false}}', DENIED, id="purposes-beat-old-yes"),
        pytest.param('{"id":5}', NOTHING, id="only-an-id"),
        pytest.param('{"consent":"true"}', UNREADABLE, id="text"),
        pytest.param('{"consent":1,"purposes":{"4":true}}', UNREADABLE, id="number-beside"),
        pytest.param('{"purposes":{"4":1}}', UNREADABLE, id="number"),
        pytest.param('{"purposes":[4]}', UNREADABLE, id="list"),
        pytest.param("consent", UNREADABLE, id="no-json"),
        pytest.param('{"purposes":{"4":true},"timestamp":"x"}', UNREADABLE, id="time-unreadable"),
        pytest.param('{"consent":false,"timestamp":"x"}', DENIED, id="no-without-a-time"),
    ],
)
def test_the_purpose_decides(text, expected):
    assert Iubenda().read({"_iub_cs-5": text}) == expected


def test_cookies_of_other_kinds_are_not_read():
    assert Iubenda().read({"_iub_cs-5-granular": '{"consent":true}'}) == NOTHING


def test_of_several_sites_all_must_grant():
    cookies = {"_iub_cs-5": '{"consent":true}', "_iub_cs-6": '{"consent":false}'}

    assert Iubenda().read(cookies) == DENIED


def test_one_site_and_another_purpose_may_be_named():
    reader = Iubenda(site="5", purpose="3")

    assert reader.cookies == ("_iub_cs-5",)
    assert reader.read({"_iub_cs-5": '{"purposes":{"3":true}}'}) == GRANTED
