import pytest

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE
from mp_asgi.readers.mixpanel_browser import MixpanelBrowser
from tests.readers.rows import read_header, rows_of, state_of

TOKEN = "abc123token"
COOKIE = "__mp_opt_in_out_abc123token"


@pytest.mark.parametrize(("header", "expected"), rows_of("mixpanel-browser"))
def test_a_real_header_is_read(header, expected):
    assert state_of(read_header(MixpanelBrowser(token=TOKEN), header)) == expected


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        pytest.param({COOKIE: "1"}, GRANTED, id="opted-in"),
        pytest.param({COOKIE: "0"}, DENIED, id="opted-out"),
        pytest.param({COOKIE: ""}, UNREADABLE, id="empty"),
        pytest.param({COOKIE: "true"}, UNREADABLE, id="word"),
        pytest.param({COOKIE: "1", "mp_optout": "1"}, DENIED, id="opted-out-long-ago"),
        pytest.param({"mp_optout": "0"}, DENIED, id="any-value-of-the-old-one"),
        pytest.param({"mp_optout": ""}, NOTHING, id="no-value-of-the-old-one"),
        pytest.param({COOKIE: "1", "mp_optout": ""}, GRANTED, id="opted-in-beside-no-value"),
        pytest.param({COOKIE + "2": "1", "mp_optout": ""}, NOTHING, id="another-project"),
    ],
)
def test_the_projects_choice_is_read(cookies, expected):
    assert MixpanelBrowser(token=TOKEN).read(cookies) is expected


def test_without_a_token_only_the_old_opt_out_is_read():
    reader = MixpanelBrowser()

    assert reader.cookies == ("mp_optout",)
    assert reader.read({"mp_optout": "1"}) is DENIED
    assert reader.read({"__mp_opt_in_out_": "1"}) is NOTHING


def test_another_prefix_can_be_named():
    reader = MixpanelBrowser(token=TOKEN, prefix="choice_")

    assert reader.cookies == ("choice_abc123token", "mp_optout")
    assert reader.read({"choice_abc123token": "1"}) is GRANTED
