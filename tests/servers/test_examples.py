"""Both example shops offer the same endpoints, and take posts only from their own pages."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from examples.shop import LIBRARY
from tests.servers.shops import COMMANDS, Shop, run_example

NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module", params=COMMANDS)
def running(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with run_example(request.param) as shop:
        yield shop


@pytest.fixture
def shop(running: Shop) -> Shop:
    running.standin.reset()
    return running


@pytest.fixture
def visitor(shop: Shop) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop.url, timeout=10) as client:
        yield client


def test_a_stranger_is_nobody(visitor: httpx.Client) -> None:
    answer = visitor.get("/whoami")

    consent = {"state": "unknown", "reason": "no-choice"}
    assert answer.json() == {"device_id": None, "user_id": None, "consent": consent}
    assert "set-cookie" not in answer.headers


def test_whoami_tells_what_the_events_say(shop: Shop, visitor: httpx.Client) -> None:
    visitor.post("/consent", data={"decision": "grant"})
    visitor.post("/login", data={"user": "ada"})
    visitor.post("/track", data={"event": "Ordered ☕"})

    known = visitor.get("/whoami").json()
    (event,) = shop.standin.wait_for(1)
    assert event["event"] == "Ordered ☕"
    assert (known["user_id"], known["consent"]["state"]) == ("ada", "granted")
    assert known["device_id"] == event["properties"]["$device_id"]
    assert known["user_id"] == event["properties"]["$user_id"]


def test_a_login_before_the_consent_is_known_with_it(visitor: httpx.Client) -> None:
    visitor.post("/login", data={"user": "ada"})

    known = visitor.post("/consent", json={"decision": "grant"}).json()

    assert known["user_id"] == "ada"


def test_whoever_comes_after_the_logout_has_another_device(
    shop: Shop, visitor: httpx.Client
) -> None:
    visitor.post("/consent", data={"decision": "grant"})
    visitor.post("/login", data={"user": "ada"})
    visitor.post("/track", data={"event": "Ordered"})

    visitor.post("/logout")
    visitor.post("/track", data={"event": "Looked"})

    ordered, looked = (event["properties"] for event in shop.standin.wait_for(2))
    assert ordered["$user_id"] == "ada"
    assert "$user_id" not in looked
    assert ordered["$device_id"] != looked["$device_id"]


def test_a_page_that_somebody_opens_is_a_page_view(shop: Shop, visitor: httpx.Client) -> None:
    visitor.post("/consent", data={"decision": "grant"})
    visitor.post("/login", data={"user": "ada"})

    visitor.get("/", headers=NAVIGATION)

    (event,) = shop.standin.wait_for(1)
    assert event["event"] == "$mp_web_page_view"
    assert event["properties"]["current_url_route"] == "/"
    assert event["properties"]["$user_id"] == "ada"


def test_what_a_page_tracks_is_the_visitors(shop: Shop, visitor: httpx.Client) -> None:
    device_id = visitor.post("/consent", json={"decision": "grant"}).json()["device_id"]

    page = visitor.get("/browser").text
    data = '{"event": "Tried", "properties": {"distinct_id": "somebody-else"}}'
    own = {"Sec-Fetch-Site": "same-origin"}
    taken = visitor.post("/_mp/track/", data={"data": data}, headers=own).text

    (event,) = shop.standin.wait_for(1)
    assert (taken, event["event"]) == ("1", "Tried")
    assert event["properties"]["distinct_id"] == f"$device:{device_id}"
    assert device_id in page


def test_the_library_is_only_for_those_who_agreed(visitor: httpx.Client) -> None:
    tag = '<script src="/mixpanel.js">'

    before = visitor.get("/browser").text
    visitor.post("/consent", data={"decision": "grant"})
    after = visitor.get("/browser").text

    assert tag not in before
    assert (tag in after) is (LIBRARY is not None)
    assert visitor.get("/mixpanel.js").status_code == (404 if LIBRARY is None else 200)


def test_a_form_gets_the_page_back(visitor: httpx.Client) -> None:
    answer = visitor.post("/track", data={"event": "A"})

    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/login", {"user": "ada"}),
        ("/logout", {}),
        ("/consent", {"decision": "deny"}),
        ("/consent", {"decision": "withdraw"}),
        ("/track", {"event": "A"}),
    ],
)
def test_json_gets_json(visitor: httpx.Client, path: str, fields: Any) -> None:
    assert visitor.post(path, json=fields).json()["ok"] is True
    assert visitor.post(path, data=fields, headers=JSON).json()["ok"] is True


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("/login", {}, "Send user, and not an empty one."),
        ("/login", {"user": " "}, "Send user, and not an empty one."),
        ("/consent", {}, "Send decision as grant, deny or withdraw."),
        ("/consent", {"decision": "maybe"}, "Send decision as grant, deny or withdraw."),
        ("/track", {"event": ""}, "Send event, and not an empty one."),
        ("/track", {"event": 7}, "Send event, and not an empty one."),
        ("/track", [], "Send event, and not an empty one."),
    ],
    ids=str,
)
def test_bad_input_is_400(visitor: httpx.Client, path: str, body: Any, problem: str) -> None:
    answer = visitor.post(path, json=body)

    assert (answer.status_code, answer.json()) == (400, {"error": problem})


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"\xff"),
        ("application/json", b'{"event":"\\ud800"}'),
        ("application/json", b"[" * 100_000),
        ("application/x-www-form-urlencoded", b"\xff=&&&"),
        ("multipart/form-data; boundary=x", b"--x--"),
    ],
)
def test_a_body_that_cannot_be_read_is_400(
    visitor: httpx.Client, media_type: str, body: bytes
) -> None:
    answer = visitor.post("/track", content=body, headers={"Content-Type": media_type})

    assert answer.status_code == 400


PATHS = pytest.mark.parametrize("path", ["/login", "/logout", "/consent", "/track"])
FIELDS = {"user": "ada", "decision": "grant", "event": "A"}


@PATHS
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ],
    ids=str,
)
def test_another_sites_post_is_refused(
    visitor: httpx.Client, path: str, headers: dict[str, str]
) -> None:
    answer = visitor.post(path, data=FIELDS, headers=headers)

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@PATHS
@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin"}, {}], ids=str)
def test_the_own_pages_post_and_curls_are_taken(
    visitor: httpx.Client, path: str, headers: dict[str, str]
) -> None:
    assert visitor.post(path, data=FIELDS, headers=headers).status_code == 303


def test_an_own_origin_is_taken(shop: Shop, visitor: httpx.Client) -> None:
    assert visitor.post("/logout", headers={"Origin": shop.url}).status_code == 303


def test_a_user_name_is_text_in_the_page(visitor: httpx.Client) -> None:
    visitor.post("/login", data={"user": "<script>$x"})

    page = visitor.get("/").text

    assert "Hello, <strong>&lt;script&gt;$x</strong>" in page


def test_only_the_named_button_overrides_gpc(visitor: httpx.Client) -> None:
    gpc = {"Sec-GPC": "1"}

    plain = visitor.post("/consent", json={"decision": "grant"}, headers=gpc).json()
    named = visitor.post(
        "/consent", json={"decision": "grant", "override_gpc": True}, headers=gpc
    ).json()

    assert (plain["consent"]["state"], plain["device_id"]) == ("denied", None)
    assert named["consent"]["state"] == "granted"
