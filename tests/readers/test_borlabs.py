import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE, Said
from mp_asgi.readers.borlabs import Borlabs
from tests.readers.rows import read_header, rows_of, state_of


def read(text, **options):
    return Borlabs(**options).read({"borlabs-cookie": text})


@pytest.mark.parametrize(("header", "expected"), rows_of("borlabs"))
def test_a_real_header_is_read(header, expected):
    assert state_of(read_header(Borlabs(), header)) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({"consents": {"statistics": ["mixpanel"]}}, GRANTED, id="a-service"),
        pytest.param({"consents": {"statistics": []}}, DENIED, id="no-service"),
        pytest.param({"consents": {"essential": ["borlabs"]}}, DENIED, id="other-groups"),
        pytest.param({"consents": {}}, NOTHING, id="no-groups"),
        pytest.param({"version": "1"}, NOTHING, id="no-consents"),
        pytest.param({"consents": ["statistics"]}, UNREADABLE, id="consents-as-a-list"),
        pytest.param({"consents": {"statistics": "x"}}, UNREADABLE, id="services-as-text"),
        pytest.param({"consents": {"statistics": True}}, UNREADABLE, id="services-as-truth"),
        pytest.param(["statistics"], UNREADABLE, id="no-object"),
    ],
)
def test_a_group_is_granted_by_a_service_in_it(said, expected):
    assert read(quote(json.dumps(said))) is expected


@pytest.mark.parametrize("text", ["", "%7B", "true"])
def test_what_is_no_json_is_unreadable(text):
    assert read(text) is UNREADABLE


def test_another_group_can_be_named():
    assert read('{"consents":{"stats":["x"]}}', group="stats") is GRANTED


def test_another_cookie_can_be_named():
    assert Borlabs(cookie="choices").cookies == ("choices",)


@given(st.text())
def test_no_text_raises_or_grants(text):
    assert read(text).said is not Said.GRANTED
