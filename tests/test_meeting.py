import json

import pytest

from mp_asgi.context import RequestContext
from mp_asgi.identity import Visitor
from mp_asgi.meeting import fill_first_touch, items_of_meeting, late_alias, read_first_touch
from mp_asgi.place import Place
from mp_asgi.wire import What
from tests.support import NOW, FakeClock, make_core

A = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
U1 = Visitor(A, int(NOW)).with_user("U1", int(NOW))
TOUCH = '{"initial_utm_source":"news"}'
MODES = ["simplified", "original", "legacy"]


def meet(mode="simplified", *, first_touch="", is_minted=False, is_new_user=False, epoch=3):
    core = make_core(FakeClock(NOW + 5), random_bytes=lambda size: b"r" * size, identity=mode)
    return items_of_meeting(
        core,
        U1,
        epoch,
        first_touch=first_touch,
        is_minted=is_minted,
        is_new_user=is_new_user,
    )


def arrive(*headers, query=""):
    """Answer the context of a page that somebody opened."""
    head = make_core().heads.read_asgi(NOW, "https", None, [(b"host", b"shop.test"), *headers])
    return RequestContext(head, Place("GET", "/", query), is_secure=True)


CAMPAIGN = arrive(query="utm_source=news")
SILENT = arrive()


# --- what Mixpanel gets to know -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "is_new_user", "expected"),
    [
        pytest.param("simplified", False, [], id="simplified-needs-nothing"),
        pytest.param("simplified", True, [], id="simplified-nor-at-a-sign-up"),
        pytest.param("original", False, [(What.IDENTIFY, "$identify")], id="original"),
        pytest.param("original", True, [(What.IDENTIFY, "$identify")], id="original-sign-up"),
        pytest.param("legacy", False, [], id="legacy-login"),
        pytest.param("legacy", True, [(What.ALIAS, "$create_alias")], id="legacy-sign-up"),
    ],
)
def test_each_id_merge_is_told_of_a_meeting_in_its_own_way(mode, is_new_user, expected):
    items = meet(mode, is_new_user=is_new_user)

    assert [(item[0], item[1]) for item in items] == expected


@pytest.mark.parametrize("mode", ["original", "legacy"])
def test_an_identity_event_is_of_this_moment_with_an_insert_id(mode):
    [item] = meet(mode, is_new_user=True)

    assert item[2:] == ((b"r" * 16).hex(), NOW + 5, U1, "", None, 3)


@pytest.mark.parametrize(
    ("mode", "is_told"), [("simplified", False), ("original", False), ("legacy", True)]
)
def test_who_turns_out_to_sign_up_gets_the_alias_of_a_sign_up(mode, is_told):
    core = make_core(FakeClock(NOW + 5), random_bytes=lambda size: b"r" * size, identity=mode)

    items = late_alias(core, U1, 3)

    assert items == (meet("legacy", is_new_user=True) if is_told else [])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("first_touch", "is_minted", "expected"),
    [
        pytest.param("", False, [], id="a-device-that-tells-nothing"),
        pytest.param(TOUCH, False, [TOUCH], id="as-its-cookie-says"),
        pytest.param("", True, [""], id="minted-here-which-is-told-later"),
        pytest.param(TOUCH, True, [TOUCH], id="the-cookie-knows-better"),
    ],
)
def test_how_the_device_was_found_goes_on_the_profile(mode, first_touch, is_minted, expected):
    items = meet(mode, first_touch=first_touch, is_minted=is_minted, is_new_user=True)

    told = [item for item in items if item[0] is What.FIRST_TOUCH]
    assert [item[1:] for item in told] == [
        ("$set_once", "", NOW + 5, U1, touch, None, 3) for touch in expected
    ]
    assert items[: len(items) - len(told)] == meet(mode, is_new_user=True)


# --- how the device was found ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "settings", "expected"),
    [
        pytest.param(CAMPAIGN, {}, "news", id="a-campaign"),
        pytest.param(CAMPAIGN, {"context": False}, None, id="switched-off"),
        pytest.param(SILENT, {}, None, id="nothing-tells"),
        pytest.param(None, {}, None, id="outside-of-a-request"),
    ],
)
def test_how_a_device_was_found_is_read_from_its_first_request(context, settings, expected):
    text = read_first_touch(make_core(**settings), context)

    assert (json.loads(text)["initial_utm_source"] if text else None) == expected
    assert " " not in text


def touch(values=""):
    return (What.FIRST_TOUCH, "$set_once", "", NOW, U1, values, None, 3)


def event(values):
    return (What.EVENT, "Seen", "i" * 32, NOW, U1, values, None, 3)


def test_what_is_open_is_told_by_the_request():
    core = make_core()

    filled = fill_first_touch([touch()], core, CAMPAIGN)

    assert filled == [touch(read_first_touch(core, CAMPAIGN))]


@pytest.mark.parametrize("context", [CAMPAIGN, SILENT, None], ids=["campaign", "silent", "none"])
def test_what_the_cookie_told_stays(context):
    assert fill_first_touch([touch(TOUCH)], make_core(), context) == [touch(TOUCH)]


@pytest.mark.parametrize("context", [SILENT, None], ids=["silent", "none"])
def test_what_nothing_tells_is_left_out_alone(context):
    items = [event({}), touch(), event({"a": 1})]

    assert fill_first_touch(items, make_core(), context) == [event({}), event({"a": 1})]
