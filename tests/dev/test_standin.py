"""The stand-in answers as Mixpanel does, and keeps what it is sent."""

import base64
import gzip
import json
import threading
from typing import Any

import httpx
import pytest

from mp_asgi.dev import Fault, StandIn, run_in_thread
from tests.dev.messages import BAD, GOOD, GROUP, INVALID, NOW, PERSON, TRACKED, post_import

# /import, strict: Mixpanel's OpenAPI file, StrictReceived and StrictInvalid.


def test_a_strict_import_says_how_many_came(client: httpx.Client, standin: StandIn) -> None:
    answer = post_import(client, GOOD, GOOD)

    assert answer.status_code == 200
    assert answer.json() == {"code": 200, "num_records_imported": 2, "status": "OK"}
    assert standin.events == [GOOD, GOOD]


def test_a_strict_import_names_the_failed_and_keeps_the_others(
    client: httpx.Client, standin: StandIn
) -> None:
    answer = post_import(client, GOOD, BAD)

    message = "'properties.time' is invalid: must be specified as seconds since epoch"
    failed = {"index": 1, "insert_id": "i-2", "field": "properties.time", "message": message}
    assert answer.status_code == 400
    assert answer.json() == {
        "code": 400,
        "error": INVALID,
        "failed_records": [failed],
        "num_records_imported": 1,
        "status": "Bad Request",
    }
    assert standin.events == [GOOD]
    assert [(item.message, item.reason) for item in standin.rejected] == [(BAD, message)]


def test_a_record_that_is_no_object_fails_alone(client: httpx.Client) -> None:
    answer = post_import(client, 7, GOOD, {"event": "A", "properties": 7})

    assert answer.json()["num_records_imported"] == 1


def test_one_wrong_byte_fails_one_record_of_ndjson(client: httpx.Client) -> None:
    lines = [json.dumps(GOOD).encode(), json.dumps(GOOD).encode().replace(b"i-1", b"i-1\xff")]
    headers = {"Content-Type": "application/x-ndjson"}

    answer = client.post(
        "/import/?strict=1", content=b"\n".join(lines), headers=headers, auth=("T", "")
    )

    assert [record["index"] for record in answer.json()["failed_records"]] == [1]


def test_gzip_is_counted_as_unpacked(client: httpx.Client) -> None:
    body = gzip.compress(json.dumps([GOOD, " " * 2_100_000]).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    answer = client.post("/import?strict=1", content=body, headers=headers, auth=("T", ""))

    error = "request exceeds max limit of 2097152 bytes"
    assert answer.status_code == 413
    assert answer.json() == {"code": 413, "error": error, "status": "Request Entity Too Large"}


@pytest.mark.parametrize(
    ("auth", "query", "error"),
    [
        pytest.param(None, "", "Invalid credentials", id="none"),
        pytest.param(("other", ""), "", "Invalid credentials", id="another token"),
        pytest.param(("sa", "secret"), "", "Not a valid service account username", id="no project"),
    ],
)
def test_wrong_credentials_are_401(
    client: httpx.Client, standin: StandIn, auth: tuple[str, str] | None, query: str, error: str
) -> None:
    answer = client.post(f"/import?strict=1{query}", json=[GOOD], auth=auth)

    assert answer.status_code == 401
    assert answer.json() == {"code": 401, "error": error, "status": "Unauthorized"}
    assert standin.events == []


def test_a_service_account_names_its_project(client: httpx.Client) -> None:
    answer = post_import(client, GOOD, query="?strict=1&project_id=7", user="sa", password="s")

    assert answer.status_code == 200


@pytest.mark.parametrize("body", [b"{", b"", b"[]"], ids=["unreadable", "empty", "no record"])
def test_a_strict_import_without_records_is_400(client: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}

    answer = client.post("/import?strict=1", content=body, headers=headers, auth=("T", ""))

    assert answer.status_code == 400
    assert "failed_records" not in answer.json()


def test_more_than_2000_records_are_400(client: httpx.Client, standin: StandIn) -> None:
    answer = post_import(client, *[GOOD] * 2001)

    assert answer.status_code == 400
    assert standin.events == []


# /import, not strict


def test_a_lenient_import_says_status_1(client: httpx.Client) -> None:
    answer = post_import(client, GOOD, query="?strict=0&verbose=1")

    assert answer.json() == {"code": 200, "num_records_imported": 1, "status": 1}


def test_a_lenient_import_fails_with_200(client: httpx.Client) -> None:
    answer = post_import(client, BAD, query="")

    assert answer.status_code == 200
    assert answer.json() == {"code": 200, "error": INVALID, "num_records_imported": 0, "status": 0}


def test_a_lenient_import_without_data_has_the_old_shape(client: httpx.Client) -> None:
    answer = client.post("/import", auth=("T", ""))

    assert answer.json() == {"error": "data, missing or empty", "status": 0}


# /track, /engage, /groups: always 200


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("path", "message"), [("/track", TRACKED), ("/engage", PERSON), ("/groups", GROUP)]
)
def test_a_good_object_gets_1(client: httpx.Client, path: str, message: Any, slash: str) -> None:
    answer = client.post(path + slash, data={"data": json.dumps(message)})

    assert (answer.status_code, answer.text) == (200, "1")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/track", "event, missing"),
        ("/engage", "$token, missing or empty"),
        ("/groups", "$token, missing or empty"),
    ],
)
def test_a_bad_object_gets_200_and_0(client: httpx.Client, path: str, error: str) -> None:
    plain = client.post(path, data={"data": "{}"})
    verbose = client.post(path, data={"data": "{}", "verbose": "1"})

    assert (plain.status_code, plain.text) == (200, "0")
    assert (verbose.status_code, verbose.json()) == (200, {"error": error, "status": 0})


@pytest.mark.parametrize("body", ["", "data=", "data=~"], ids=["nothing", "empty", "unreadable"])
def test_no_data_gets_0(client: httpx.Client, body: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}

    assert client.post("/track", content=body, headers=headers).text == "0"


def test_one_good_object_hides_the_bad_ones(client: httpx.Client, standin: StandIn) -> None:
    answer = client.post("/track?verbose=1", json=[{}, TRACKED])

    assert answer.json() == {"error": None, "status": 1}
    assert standin.events == [TRACKED]


def test_an_old_event_gets_1_and_is_gone(client: httpx.Client, standin: StandIn) -> None:
    old = {"event": "A", "properties": {"token": "T", "time": NOW - 6 * 86_400}}

    answer = client.post("/track", json=old)

    assert answer.text == "1"
    assert standin.events == []
    assert standin.rejected[0].is_silent


def test_a_strict_profile_update_counts_the_good_ones(client: httpx.Client) -> None:
    answer = client.post("/engage?strict=1", json=[PERSON, PERSON])

    assert answer.json() == {"error": None, "status": 1, "num_good_events": 2}


def test_a_pixel_and_a_callback_answer_a_script_tag(client: httpx.Client) -> None:
    data = {"data": base64.b64encode(json.dumps(TRACKED).encode()).decode()}

    pixel = client.get("/track", params={**data, "img": "1"})
    called = client.get("/track", params={**data, "callback": "done", "verbose": "1"})
    hostile = client.get("/track", params={**data, "callback": "alert(1)//"})

    assert pixel.content.startswith(b"GIF89a")
    assert called.text == 'done({"error": null, "status": 1});'
    assert hostile.text == "1"


# What is kept


def test_a_request_is_kept_with_its_wire_bytes(client: httpx.Client, standin: StandIn) -> None:
    body = gzip.compress(json.dumps([GOOD]).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    client.post("/import?strict=1", content=body, headers=headers, auth=("T", ""))

    (request,) = standin.requests
    assert (request.method, request.path, request.query) == ("POST", "/import", "strict=1")
    assert (request.body, request.messages, request.status) == (body, (GOOD,), 200)
    assert ("content-encoding", "gzip") in request.headers


def test_who_is_who_is_told_by_what_arrived_in_the_projects_id_merge() -> None:
    standin = StandIn(mode="original", clock=lambda: NOW)
    device = "aaaaaaaa-1111-4111-8111-aaaaaaaaaaaa"

    def identify(user_id: str) -> dict[str, Any]:
        ids = {"token": "T", "$identified_id": user_id, "$anon_id": device, "distinct_id": user_id}
        return {"event": "$identify", "properties": ids}

    seen = {"event": "Seen", "properties": {"token": "T", "distinct_id": device}}
    with run_in_thread(standin) as server:
        httpx.post(server.url + "/track", json=[seen, {}, identify("U1")]).raise_for_status()
        httpx.post(server.url + "/import", json=[identify("U2")], auth=("T", ""))  # has no time
        httpx.post(server.url + "/track", json=[identify("U2")]).raise_for_status()

    assert standin.who_is(seen) == standin.who_is(standin.events[0]) == standin.who_is("U1")
    assert [cluster.distinct_ids for cluster in standin.clusters()] == [(device, "U1"), ("U2",)]
    assert [(failure.event, failure.reason) for failure in standin.failures()] == [
        (identify("U2"), "errAnonDistinctIdAssignedAlready")
    ]


def test_duplicates_are_told_by_mixpanels_key(client: httpx.Client, standin: StandIn) -> None:
    other = {"event": "A", "properties": {**GOOD["properties"], "time": NOW - 1}}
    unkeyed = {"event": "A", "properties": {"time": NOW, "distinct_id": "U"}}

    post_import(client, GOOD, GOOD, other, unkeyed, unkeyed)

    assert standin.duplicates() == {("A", str(NOW), "U", "i-1"): 2}


def test_reset_forgets_and_behaves(client: httpx.Client, standin: StandIn) -> None:
    post_import(client, GOOD, BAD)
    standin.misbehave(Fault.UNAVAILABLE, None)

    standin.reset()

    assert (standin.events, standin.requests, standin.rejected) == ([], [], [])
    assert post_import(client, GOOD).status_code == 200


def test_wait_for_wakes_when_the_event_comes(client: httpx.Client, standin: StandIn) -> None:
    sender = threading.Thread(target=post_import, args=(client, GOOD))
    sender.start()

    events = standin.wait_for(1)

    sender.join()
    assert events == [GOOD]


def test_wait_for_takes_a_condition(client: httpx.Client, standin: StandIn) -> None:
    client.post("/engage", json=PERSON)

    assert standin.wait_for(lambda standin: len(standin.people) == 1, timeout=0) == []


def test_wait_for_fails_with_what_came_instead(client: httpx.Client, standin: StandIn) -> None:
    post_import(client, GOOD, BAD)

    with pytest.raises(TimeoutError, match=r"Events \['A'\].*'/import', 400.*seconds since epoch"):
        standin.wait_for(2, timeout=0.01)
