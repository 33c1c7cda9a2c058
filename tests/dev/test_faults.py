"""The stand-in fails on request, as Mixpanel and the network do."""

from typing import Any

import httpx
import pytest

from mp_asgi.dev import Fault, StandIn
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


@pytest.mark.parametrize(("fault", "count"), [(Fault.DROP, 1), (Fault.REFUSE, 0)])
def test_a_cut_off_answer_is_incomplete(
    client: httpx.Client, standin: StandIn, fault: Fault, count: int
) -> None:
    standin.misbehave(fault)

    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        post_import(client, GOOD)

    assert len(standin.events) == count


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
