import pytest

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE
from mp_asgi.readers.mixpanel_browser import MixpanelBrowser
from mp_asgi.readers.registry import parse_readers
from tests.readers.rows import read_header, rows_of, state_of

TOKEN = "abc123token"
COOKIE = "__mp_opt_in_out_abc123token"
MARK = f"{COOKIE}_mp_asgi"


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
        pytest.param({COOKIE: "0", MARK: "1"}, NOTHING, id="opted-out-by-us"),
        pytest.param({COOKIE: "1", MARK: "1"}, GRANTED, id="opted-in-since-we-opted-out"),
        pytest.param({COOKIE: "true", MARK: "1"}, UNREADABLE, id="word-beside-our-mark"),
        pytest.param({MARK: "1"}, NOTHING, id="our-mark-alone"),
        pytest.param({COOKIE: "0", MARK: "1", "mp_optout": "1"}, DENIED, id="long-ago-and-by-us"),
        pytest.param({COOKIE: "0", COOKIE + "2_mp_asgi": "1"}, DENIED, id="another-projects-mark"),
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

    name = "choice_abc123token"
    assert reader.cookies == (name, f"{name}_mp_asgi", "mp_optout")
    assert reader.read({name: "1"}) is GRANTED
    assert reader.read({name: "0", f"{name}_mp_asgi": "1"}) is NOTHING


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        pytest.param({COOKIE: "1"}, NOTHING, id="opted-in"),
        pytest.param({COOKIE: "0"}, DENIED, id="opted-out"),
        pytest.param({COOKIE: "1", "mp_optout": "1"}, DENIED, id="opted-out-long-ago"),
        pytest.param({"mp_optout": "1"}, DENIED, id="only-opted-out-long-ago"),
        pytest.param({COOKIE: "true"}, UNREADABLE, id="word"),
    ],
)
def test_an_opt_in_can_be_made_to_say_nothing(cookies, expected):
    [reader] = parse_readers(f"mixpanel-browser?token={TOKEN}&only_denials=true")

    assert reader == MixpanelBrowser(token=TOKEN, only_denials=True)
    assert reader.read(cookies) is expected
