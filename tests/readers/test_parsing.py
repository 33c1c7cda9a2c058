from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.parsing import (
    MAX_CHARACTERS,
    decode_percent,
    parse_iso_time,
    parse_json_object,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('{"a": {"b": [true, null, 1.5]}}', {"a": {"b": [True, None, 1.5]}}, id="any"),
        pytest.param('{"a": 1, "a": 1}', {"a": 1}, id="told-twice-alike"),
        pytest.param("{}".ljust(MAX_CHARACTERS), {}, id="as-long-as-a-cookie"),
    ],
)
def test_an_object_is_read(text, expected):
    assert parse_json_object(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut"),
        pytest.param("[]", id="list"),
        pytest.param('"text"', id="text"),
        pytest.param('{"a": NaN}', id="no-number"),
        pytest.param('{"a": 1, "a": 2}', id="told-twice-differently"),
        pytest.param('{"a": 1, "a": true}', id="told-twice-in-another-type"),
        pytest.param('{"x": {"a": [1], "a": [true]}}', id="told-twice-further-down"),
        pytest.param('{"a":' + "[" * 4_000, id="too-deep"),
        pytest.param("{}".ljust(MAX_CHARACTERS + 1), id="too-long"),
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json_object(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1970-01-01T00:00:01.500Z", 1.5, id="utc"),
        pytest.param("1970-01-01T01:00:00+01:00", 0.0, id="another-zone"),
        pytest.param("1970-01-02T00:00:00", 86_400.0, id="without-a-zone"),
        pytest.param("yesterday", None, id="no-time"),
        pytest.param("", None, id="empty"),
        pytest.param(5, None, id="number"),
        pytest.param(None, None, id="nothing"),
    ],
)
def test_an_iso_time_is_read_as_seconds(text, expected):
    assert parse_iso_time(text) == expected


@given(st.datetimes(timezones=st.timezones()).map(str) | st.text(max_size=40))
def test_no_text_breaks_the_time(text):
    time = parse_iso_time(text)

    assert time is None or isinstance(time, float)


@given(st.text('%%%2234CcFf0aé"\\x+\x01 ', max_size=30) | st.text())
def test_escapes_are_decoded_as_the_standard_library_does(text):
    assert decode_percent(text) == unquote(text)
