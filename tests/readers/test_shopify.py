import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE, Said
from mp_asgi.readers.shopify import Shopify
from tests.readers.rows import read_header, rows_of, state_of


def read(text):
    return Shopify().read({"_tracking_consent": text})


@pytest.mark.parametrize(("header", "expected"), rows_of("shopify"))
def test_a_real_header_is_read(header, expected):
    assert state_of(read_header(Shopify(), header)) == expected


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        pytest.param({"CMP": {"a": "1"}}, GRANTED, id="granted"),
        pytest.param({"CMP": {"a": "0", "m": "1"}}, DENIED, id="denied"),
        pytest.param({"CMP": {"a": ""}}, NOTHING, id="no-interaction"),
        pytest.param({"CMP": {"m": "1"}}, NOTHING, id="another-purpose"),
        pytest.param({"GDPR": ""}, NOTHING, id="version-1-no-interaction"),
        pytest.param({"GDPR": "1"}, UNREADABLE, id="version-1"),
        pytest.param({"GDPR": "1", "CMP": {"a": "1"}}, UNREADABLE, id="both-grant"),
        pytest.param({"GDPR": "1", "CMP": {"a": "0"}}, DENIED, id="both-one-denies"),
        pytest.param({"CMP": {"a": "2"}}, UNREADABLE, id="another-value"),
        pytest.param({"CMP": {"a": 1}}, UNREADABLE, id="number"),
        pytest.param({"CMP": {"a": True}}, UNREADABLE, id="truth"),
        pytest.param({"CMP": {"a": ["1"]}}, UNREADABLE, id="list"),
        pytest.param({"CMP": "1"}, UNREADABLE, id="manager-as-text"),
        pytest.param("1", UNREADABLE, id="consent-as-text"),
    ],
)
def test_the_choice_on_analytics_is_read(consent, expected):
    assert read(quote(json.dumps({"con": consent, "v": "2.1"}))) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("{}", NOTHING, id="no-consent"),
        pytest.param("", UNREADABLE, id="empty"),
        pytest.param("3:AAAA", UNREADABLE, id="encrypted"),
        pytest.param("[]", UNREADABLE, id="no-object"),
    ],
)
def test_anything_else_is_no_choice(text, expected):
    assert read(text) is expected


@given(st.text())
def test_no_text_raises_or_grants(text):
    assert read(text).said is not Said.GRANTED
