"""What the stand-in offers beside Mixpanel's endpoints, and to whom."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from mp_asgi.dev import StandIn, run_in_thread

EVENT = {"event": "A", "properties": {"token": "T"}}
PERSON = {"$token": "T", "$distinct_id": "U", "$set": {"a": 1}}
GROUP = {"$token": "T", "$group_key": "k", "$group_id": "g", "$set": {"a": 1}}


@pytest.fixture(scope="module")
def server_client() -> Iterator[httpx.Client]:
    with run_in_thread(StandIn()) as server, httpx.Client(base_url=server.url, timeout=5) as client:
        yield client


@pytest.fixture
def client(server_client: httpx.Client) -> httpx.Client:
    server_client.post("/_mp/reset")
    return server_client


def test_what_came_can_be_read(client: httpx.Client) -> None:
    client.post("/track", json=EVENT)
    client.post("/engage", json=PERSON)
    client.post("/groups", json=GROUP)
    client.post("/track", content=b'{"event":"\\ud800"}')

    assert client.get("/_mp/events").json() == [EVENT]
    assert client.get("/_mp/people").json() == [PERSON]
    assert client.get("/_mp/groups").json() == [GROUP]
    assert client.get("/_mp/rejected").json()[0]["reason"] == "token, missing or empty"
    assert [item["path"] for item in client.get("/_mp/requests").json()] == [
        *("/track", "/engage", "/groups", "/track")
    ]


def test_who_is_who_can_be_read(client: httpx.Client) -> None:
    ids = [("D", ""), ("D", "U1"), ("D", "U2")]
    for device_id, user_id in ids:
        properties = {"token": "T", "$device_id": device_id, "$user_id": user_id}
        client.post("/track", json={"event": "A", "properties": properties})

    first = {"canonical_id": "U1", "distinct_ids": ["$device:D", "U1"], "events": 2, "failures": []}
    reason = "errAnonDistinctIdAssignedAlready"
    second = {"canonical_id": "U2", "distinct_ids": ["U2"], "events": 1, "failures": [reason]}
    assert client.get("/_mp/visitors").json() == {
        "mode": "simplified",
        "visitors": [first, second],
    }


def test_the_feed_gives_only_what_is_new(client: httpx.Client) -> None:
    client.post("/track", json=EVENT)
    first = client.get("/_mp/feed").json()
    client.post("/engage", json=[PERSON, {}])

    news = client.get("/_mp/feed", params={"after": 1, "run": first["run"]}).json()["items"]

    assert [item["message"] for item in first["items"]] == [EVENT]
    assert [(item["number"], item["reason"]) for item in news] == [
        (2, ""),
        (3, "$token, missing or empty"),
    ]


def test_a_reset_starts_the_feed_again(client: httpx.Client) -> None:
    client.post("/track", json=EVENT)
    run = client.get("/_mp/feed").json()["run"]

    client.post("/_mp/reset")
    client.post("/track", json=EVENT)

    feed = client.get("/_mp/feed", params={"after": 1, "run": run}).json()
    assert (feed["run"], len(feed["items"])) == (run + 1, 1)


def test_misbehaviour_can_be_ordered(client: httpx.Client) -> None:
    order = {"fault": "rate_limited", "times": 1, "retry_after": 3, "endpoint": "/track"}

    ordered = client.put("/_mp/misbehave", json=order)
    answers = [client.post("/track", json=EVENT) for _ in range(2)]

    assert ordered.json() == {"ok": True}
    assert [answer.status_code for answer in answers] == [429, 200]
    assert answers[0].headers["retry-after"] == "3"


@pytest.mark.parametrize(
    "order",
    [
        {"fault": "no such"},
        {},
        [],
        {"fault": "slow", "seconds": "long"},
        {"fault": "slow", "seconds": -1},
        {"fault": "drop", "times": 0},
        {"fault": "drop", "times": True},
        {"fault": "drop", "endpoint": 7},
        {"fault": "drop", "unknown": 7},
    ],
    ids=str,
)
def test_an_order_that_cannot_be_obeyed_is_400(client: httpx.Client, order: Any) -> None:
    assert client.put("/_mp/misbehave", json=order).status_code == 400
    assert client.post("/track", json=EVENT).status_code == 200


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/")

    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "//" not in page.text.replace("  // another poll", "")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8001", "127.1.2.3", "[::1]:80"])
def test_a_name_of_this_machine_is_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/_mp/events", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.test", "127.0.0.1.evil.test", "localhost.evil.test", "10.0.0.1", "", "[::1"]
)
@pytest.mark.parametrize("path", ["/", "/_mp/events"])
def test_a_foreign_host_name_is_refused(client: httpx.Client, host: str, path: str) -> None:
    assert client.get(path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [("own", 200), ("http://evil.test", 403), ("http://127.0.0.1:9", 403), ("null", 403)],
)
def test_only_the_own_page_may_clear(client: httpx.Client, origin: str, status: int) -> None:
    if origin == "own":
        origin = str(client.base_url).rstrip("/")

    assert client.post("/_mp/reset", headers={"Origin": origin}).status_code == status


def test_any_page_may_send_events(client: httpx.Client) -> None:
    answer = client.post("/track", json=EVENT, headers={"Origin": "http://localhost:3000"})

    assert answer.text == "1"


def test_an_unknown_view_is_404(client: httpx.Client) -> None:
    assert client.get("/_mp/nothing").status_code == 404
