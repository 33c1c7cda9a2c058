import json
from urllib.parse import urlencode

import pytest

from mp_asgi import ANONYMOUS
from mp_asgi.endpoints.message import MAX_BODY_BYTES
from mp_asgi.place import NOWHERE
from tests.endpoints.pages import GRANTED, Page
from tests.endpoints.site import JSON, SAME_ORIGIN, open_site
from tests.support import NOW

BROWSER = "0ee4420c-8699-457a-940f-fec4205e64f4"
OLDER = "19a8f3c1d2e4b-0a1b2c3d4e5f6-1e3a5b7c-e1000-19a8f3c1d2f5c"
IDS = {"distinct_id": f"$device:{BROWSER}", "$device_id": BROWSER}
SENT = (b"content-type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")
ADOPTING = {"adopt_browser_id": True}
SHARING = {"share_id": True}


def ask(page, ids=IDS, *, body=None):
    """Post a page's IDs. Answer the response."""
    return page.ask("POST", "identity", json.dumps(ids).encode() if body is None else body)


def agree(page, ids=IDS):
    """Post a page's IDs. Answer what the page is told once the response has started."""
    response = ask(page, ids)
    page.tracker.open().begin_response(None, NOWHERE)
    return json.loads(response.body())


def test_a_granted_page_keeps_its_id():
    page = Page(SENT, GRANTED, **ADOPTING)

    assert agree(page) == {"adopted": True, **IDS}
    assert page.tracker.device_id == BROWSER


def test_a_form_says_the_same():
    page = Page(FORM, GRANTED, **ADOPTING)

    response = ask(page, body=urlencode(IDS).encode())

    assert json.loads(response.body()) == {"adopted": True, **IDS}


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        pytest.param(SENT, {"$had_persisted_distinct_id": True}, id="json"),
        pytest.param(FORM, {"$had_persisted_distinct_id": "true"}, id="form"),
    ],
)
def test_an_id_of_an_older_page_stays_one(media_type, body):
    page = Page(media_type, GRANTED, identity="original", **ADOPTING)
    ids = {"distinct_id": "U1", "$device_id": OLDER, **body}

    response = ask(page, body=(json.dumps(ids) if media_type is SENT else urlencode(ids)).encode())

    told = {"adopted": True, "distinct_id": OLDER, "$device_id": OLDER}
    assert json.loads(response.body()) == told


def test_an_owned_device_is_not_given_up_and_the_page_told_of_it():
    page = Page(SENT, GRANTED, **ADOPTING)
    page.tracker.identify("U1")
    ours = page.tracker.device_id

    assert agree(page) == {"adopted": False, "distinct_id": f"$device:{ours}", "$device_id": ours}


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"distinct_id": "U1", "$user_id": "U1"}, id="a-user"),
        pytest.param({"distinct_id": 7, "$device_id": [BROWSER]}, id="wrong-types"),
        pytest.param({"distinct_id": "$device:undefined", "$device_id": "undefined"}, id="nobody"),
    ],
)
def test_a_page_without_an_id_gets_ours(ids):
    page = Page(SENT, GRANTED, **ADOPTING)

    told = agree(page, ids)

    assert told["adopted"] is False
    assert told["$device_id"] == page.tracker.device_id


def test_where_nothing_is_adopted_the_page_gets_ours():
    page = Page(SENT, GRANTED, **SHARING)

    told = agree(page)

    assert told["adopted"] is False
    assert told["$device_id"] == page.tracker.device_id != BROWSER


@pytest.mark.parametrize(
    ("extra", "settings"),
    [
        pytest.param([], {}, id="not-asked"),
        pytest.param([(b"x-mp-consent", b"denied")], {}, id="denied"),
        pytest.param([(b"sec-gpc", b"1")], {"consent": "opt-out"}, id="gpc"),
        pytest.param([GRANTED], {"enabled": False}, id="switched-off"),
        pytest.param([], {"consent_from": lambda connection: True}, id="granted-too-late-to-keep"),
    ],
)
def test_without_a_grant_nothing_is_told(extra, settings):
    assert agree(Page(SENT, *extra, **ADOPTING, **settings)) == {"adopted": False}


def test_a_denial_that_comes_late_takes_back_what_was_told():
    page = Page(SENT, GRANTED, consent_from=lambda connection: False, **ADOPTING)

    assert agree(page) == {"adopted": False}


def test_what_is_told_is_what_holds_once_the_server_knows_that_another_user_is_there():
    users = ["U1"]
    page = Page(SENT, identify_from=lambda connection: users[-1], **ADOPTING)
    page.grant(NOW - 60)
    owned = page.tracker.device_id
    users.append("U2")

    told = agree(page)

    assert told["adopted"] is False
    assert told["$device_id"] == page.tracker.device_id != owned


def test_nobody_is_believed_to_have_left_where_the_apps_session_is_not_open():
    users = ["U1"]
    page = Page(SENT, identify_from=lambda connection: users[-1], **ADOPTING)
    page.grant(NOW - 60)
    owned = page.tracker.device_id
    users.append(ANONYMOUS)

    assert agree(page)["$device_id"] == owned


@pytest.mark.parametrize(
    ("here", "body", "status"),
    [
        pytest.param([SENT], b"{}", 403, id="says-nothing"),
        pytest.param([SENT, (b"sec-fetch-site", b"cross-site")], b"{}", 403, id="cross-site"),
        pytest.param([(b"sec-fetch-site", b"same-origin")], b"{}", 415, id="no-type"),
        pytest.param([SENT, (b"sec-fetch-site", b"same-origin")], b"[]", 400, id="list"),
        pytest.param([SENT, (b"sec-fetch-site", b"same-origin")], b"{", 400, id="cut-off"),
        pytest.param(
            [SENT, (b"sec-fetch-site", b"same-origin")],
            b'{"$device_id":"A","$device_id":"B"}',
            400,
            id="said-twice",
        ),
        pytest.param(
            [SENT, (b"sec-fetch-site", b"same-origin")],
            b"{}".ljust(MAX_BODY_BYTES + 1),
            413,
            id="too-long",
        ),
    ],
)
def test_what_is_no_list_of_ids_is_refused(here, body, status):
    page = Page(GRANTED, here=here, **ADOPTING)

    response = ask(page, body=body)

    assert response.status == status
    assert page.tracker.exchange is None
    assert page.sink.counts["cross_site", ""] == (status == 403)


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        pytest.param(ADOPTING, 200, id="adopting"),
        pytest.param(SHARING, 200, id="sharing"),
        pytest.param({}, 404, id="neither"),
    ],
)
def test_the_endpoint_is_there_where_ids_are_exchanged(settings, status):
    assert ask(Page(SENT, **settings)).status == status


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_ids_are_only_posted(method):
    assert Page(SENT, **ADOPTING).ask(method, "identity").status == 405


def test_nobody_may_keep_what_is_told():
    headers = dict(ask(Page(SENT, GRANTED, **ADOPTING)).headers)

    assert headers[b"cache-control"] == b"private, no-store"
    assert headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_both_doors_let_a_page_keep_its_id(kind):
    with open_site(kind, **ADOPTING) as site:
        site.post(analytics="granted")
        answer = site.ask(
            "POST", "/_mp/identity", {**JSON, **SAME_ORIGIN}, json.dumps(IDS).encode()
        )
        site.seen()

        assert answer.json == {"adopted": True, **IDS}
        [event] = site.transport.messages
        assert event["properties"]["$device_id"] == BROWSER
