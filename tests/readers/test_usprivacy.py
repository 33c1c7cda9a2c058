import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.base import DENIED, NOTHING, UNREADABLE
from mp_asgi.readers.usprivacy import UsPrivacy
from tests.readers.rows import read_header, rows_of, state_of


def read(text):
    return UsPrivacy().read({"usprivacy": text})


@pytest.mark.parametrize(("header", "expected"), rows_of("usprivacy"))
def test_a_real_header_is_read(header, expected):
    assert state_of(read_header(UsPrivacy(), header)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1YYN", DENIED, id="opted-out"),
        pytest.param("1yyn", DENIED, id="opted-out-in-small-letters"),
        pytest.param("1YNY", NOTHING, id="not-opted-out"),
        pytest.param("1Y-N", NOTHING, id="does-not-apply"),
        pytest.param("%7B%22uspString%22%3A%221YYN%22%7D", DENIED, id="iubenda-opted-out"),
        pytest.param('{"uspString":"1YNN"}', NOTHING, id="iubenda-not-opted-out"),
        pytest.param("", UNREADABLE, id="empty"),
        pytest.param("1YY", UNREADABLE, id="cut"),
        pytest.param("1YYNN", UNREADABLE, id="too-long"),
        pytest.param("2YYN", UNREADABLE, id="another-version"),
        pytest.param("1YXN", UNREADABLE, id="another-letter"),
        pytest.param("{", UNREADABLE, id="json-cut"),
        pytest.param("{}", UNREADABLE, id="json-without-the-string"),
        pytest.param('{"uspString":1}', UNREADABLE, id="json-with-a-number"),
        pytest.param('{"uspString":"{}"}', UNREADABLE, id="json-in-json"),
    ],
)
def test_an_opt_out_of_sale_denies_and_nothing_grants(text, expected):
    assert read(text) is expected


@given(st.text())
def test_no_text_raises_or_grants(text):
    assert read(text) in {DENIED, NOTHING, UNREADABLE}
