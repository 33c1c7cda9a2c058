"""The stand-in fails on request, as Mixpanel and the network do."""

import json
import socket
from typing import Any

import httpx
import pytest

from mp_asgi.dev import Fault, StandIn
from mp_asgi.dev.server import Address
from tests.dev.messages import GOOD, PERSON, post_import

STATUSES = {
    Fault.UNAVAILABLE: 503,
    Fault.RATE_LIMITED: 429,
    Fault.TOO_LARGE: 413,
    Fault.UNAUTHORIZED: 401,
    Fault.BAD_REQUEST: 400,
    Fault.GARBAGE: 200,
}
LIMITED = "Project exceeded rate limits. Please retry the request with exponential backoff."


@pytest.mark.parametrize(
    ("fault", "path", "answer"),
    [
        (Fault.UNAVAILABLE, "/import", "upstream connect error or disconnect/reset before headers"),
        (
            Fault.RATE_LIMITED,
            "/import",
            {"code": 429, "error": LIMITED, "status": "Too Many Requests"},
        ),
        (Fault.RATE_LIMITED, "/track", {"error": LIMITED, "status": 0}),
        (
            Fault.TOO_LARGE,
            "/import",
            {
                "code": 413,
                "error": "request exceeds max limit of 2097152 bytes",
                "status": "Request Entity Too Large",
            },
        ),
        (
            Fault.UNAUTHORIZED,
            "/import",
            {"code": 401, "error": "Invalid credentials", "status": "Unauthorized"},
        ),
        (Fault.UNAUTHORIZED, "/engage", {"error": "Invalid credentials", "status": "error"}),
        (
            Fault.BAD_REQUEST,
            "/import",
            {"code": 400, "error": "data, missing or empty", "status": "Bad Request"},
        ),
        (Fault.GARBAGE, "/import", "<!doctype html><title>Sign in</title>"),
    ],
)
def test_a_fault_answers_once_and_keeps_nothing(
    client: httpx.Client, standin: StandIn, fault: Fault, path: str, answer: Any
) -> None:
    standin.misbehave(fault)

    got = client.post(path, json=[GOOD], auth=("T", ""))

    assert got.text.startswith(answer) if isinstance(answer, str) else got.json() == answer
    assert got.status_code == STATUSES[fault]
    assert (standin.events, standin.people, standin.groups) == ([], [], [])
    assert (standin.requests[0].fault, standin.requests[0].messages) == (fault.value, (GOOD,))
    assert post_import(client, GOOD).status_code == 200


def test_faults_come_in_order_for_their_path(client: httpx.Client, standin: StandIn) -> None:
    standin.misbehave(Fault.UNAVAILABLE, 2, endpoint="import")
    standin.misbehave(Fault.RATE_LIMITED, None, retry_after=7)

    statuses = [post_import(client, GOOD).status_code for _ in range(4)]
    engaged = client.post("/engage", json=PERSON)

    assert statuses == [503, 503, 429, 429]
    assert engaged.headers["retry-after"] == "7"


HALF_BODY = "without sending complete message body"
NO_HEADERS = "Server disconnected without sending a response"


@pytest.mark.parametrize(
    ("fault", "complaint", "count"),
    [
        pytest.param(Fault.DROP, HALF_BODY, 1, id="cut body, kept"),
        pytest.param(Fault.REFUSE, HALF_BODY, 0, id="cut body, not kept"),
        pytest.param(Fault.CUT_HEADERS, NO_HEADERS, 1, id="cut headers"),
        pytest.param(Fault.HANG_UP, NO_HEADERS, 1, id="no answer"),
    ],
)
def test_a_connection_ends_before_the_answer_does(
    client: httpx.Client, standin: StandIn, fault: Fault, complaint: str, count: int
) -> None:
    standin.misbehave(fault)

    with pytest.raises(httpx.RemoteProtocolError, match=complaint):
        post_import(client, GOOD)

    assert len(standin.events) == count
    assert post_import(client, GOOD).status_code == 200


def test_half_the_headers_come_before_the_connection_ends(
    address: Address, standin: StandIn
) -> None:
    standin.misbehave(Fault.CUT_HEADERS)

    with socket.create_connection(("127.0.0.1", address.port), timeout=5) as connection:
        connection.sendall(b"POST /engage HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(100), b""))

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in received


def test_a_reset_comes_before_the_body_was_read(address: Address, standin: StandIn) -> None:
    standin.misbehave(Fault.RESET)

    with socket.create_connection(("127.0.0.1", address.port), timeout=5) as connection:
        # The body is never sent: who waits for it would wait for ever.
        connection.sendall(b"POST /import HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)

    assert (standin.events, standin.requests[0].body) == ([], b"")


def test_a_hanging_request_never_gets_an_answer_and_is_not_kept(
    client: httpx.Client, standin: StandIn
) -> None:
    client.timeout = httpx.Timeout(0.2)
    standin.misbehave(Fault.HANG)

    with pytest.raises(httpx.ReadTimeout):
        post_import(client, GOOD)

    assert (standin.events, standin.requests[0].fault) == ([], "hang")


def test_a_dripping_answer_comes_byte_by_byte(client: httpx.Client, standin: StandIn) -> None:
    standin.misbehave(Fault.DRIP, seconds=0.05)
    with client.stream("POST", "/import?strict=1", json=[GOOD], auth=("T", "")) as answer:
        parts = list(answer.iter_raw())

    assert len(parts) > 1
    assert json.loads(b"".join(parts))["num_records_imported"] == 1
    assert standin.events == [GOOD]


def test_a_date_is_the_stand_ins_own_so_that_clocks_can_differ(client: httpx.Client) -> None:
    dates = post_import(client, GOOD).headers.get_list("date")

    assert dates == ["Fri, 15 Jan 2027 08:00:00 GMT"]


def test_an_order_without_an_end_ends_when_it_is_withdrawn(
    client: httpx.Client, standin: StandIn
) -> None:
    order = {"fault": "unavailable", "times": None}
    client.put("/_mp/misbehave", json=order)
    before = post_import(client, GOOD).status_code

    client.delete("/_mp/misbehave")

    assert (before, post_import(client, GOOD).status_code) == (503, 200)
    assert len(standin.events) == 1


def test_a_slow_answer_comes_late_although_the_event_counts(
    client: httpx.Client, standin: StandIn
) -> None:
    client.timeout = httpx.Timeout(0.2)
    standin.misbehave(Fault.SLOW, seconds=3_600)

    with pytest.raises(httpx.ReadTimeout):
        post_import(client, GOOD)

    assert standin.events == [GOOD]


def test_a_slow_answer_comes_in_the_end(client: httpx.Client, standin: StandIn) -> None:
    standin.misbehave(Fault.SLOW, seconds=0.01)

    assert post_import(client, GOOD).status_code == 200
