import json
import time

import pytest

from mp_asgi.delivery.replies import MAX_RETRY_AFTER_SECONDS, Verdict, judge, printable
from mp_asgi.delivery.transport import Reply
from mp_asgi.events import Endpoint
from tests.support import NOW, json_reply, make_message, success

MESSAGES = [make_message("a"), make_message("b"), make_message("c")]
RATE_LIMIT = "Project exceeded rate limits. Please retry the request with exponential backoff."


@pytest.fixture(autouse=True, scope="module")
def time_zone():
    yield
    time.tzset()


def failed(*records: object, **others: object) -> Reply:
    return json_reply(400, {"code": 400, "failed_records": list(records), **others})


def verdict(reply: Reply, endpoint: Endpoint = Endpoint.EVENTS) -> Verdict:
    return judge(endpoint, reply, MESSAGES, NOW).verdict


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_the_documented_success_is_delivered(endpoint):
    assert verdict(success(endpoint, 3), endpoint) is Verdict.DELIVERED


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>welcome</html>", id="captive-portal"),
        pytest.param(b"1", id="digit"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"1" * 5_000, id="huge-number"),
        pytest.param(b"\xff\xfe", id="no-text"),
        pytest.param(b'{"code": 400}', id="other-code"),
        pytest.param(b'{"code": 200, "status": 0}', id="status-zero"),
        pytest.param(b'{"code": 200, "error": "some data points"}', id="error"),
    ],
)
def test_a_success_that_is_not_imports_is_unclear(body):
    assert verdict(Reply(200, body)) is Verdict.UNCLEAR


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"1", Verdict.DELIVERED, id="bare-one"),
        pytest.param(b"0", Verdict.REFUSED, id="bare-zero"),
        pytest.param(
            b'{"error": "$token, missing or empty", "status": 0}', Verdict.REFUSED, id="error"
        ),
        pytest.param(
            json.dumps({"error": RATE_LIMIT, "status": 0}).encode(), Verdict.RETRY, id="rate"
        ),
        pytest.param(b'{"error": "Temporary Failure", "status": 0}', Verdict.RETRY, id="temporary"),
        pytest.param(b'{"error": "?", "status": "error"}', Verdict.UNCLEAR, id="text-status"),
        pytest.param(b'{"status": [1]}', Verdict.UNCLEAR, id="list-status"),
        pytest.param(b"true", Verdict.UNCLEAR, id="bool"),
        pytest.param(b"[1]", Verdict.UNCLEAR, id="list"),
        pytest.param(b"<html>", Verdict.UNCLEAR, id="html"),
    ],
)
@pytest.mark.parametrize("endpoint", [Endpoint.ALIASES, Endpoint.PEOPLE, Endpoint.GROUPS])
def test_what_is_no_import_says_in_the_body_how_it_went(endpoint, body, expected):
    assert verdict(Reply(200, body), endpoint) is expected


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 524, 599])
def test_what_may_pass_later_is_retried(status):
    assert verdict(Reply(status, b"")) is Verdict.RETRY


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 405])
def test_a_wrong_door_blocks(status):
    assert verdict(Reply(status, b"")) is Verdict.BLOCKED


def test_a_request_that_is_too_large_says_so():
    assert verdict(Reply(413, b"")) is Verdict.TOO_LARGE


def test_a_400_names_what_it_refused_and_why():
    reply = failed(
        {"index": 2, "insert_id": "id-c", "field": "properties.time", "message": "in\x1bvalid"},
        {"index": 0, "$insert_id": "id-a", "field": "event", "message": "blank"},
        {"index": 0, "field": "event", "message": "a second complaint"},
        num_records_imported=1,
    )

    judgement = judge(Endpoint.EVENTS, reply, MESSAGES, NOW)

    assert judgement.verdict is Verdict.PARTLY
    assert judgement.failed == {2: "properties.time: in valid", 0: "event: blank"}


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(400, b"<html>"), id="html"),
        pytest.param(Reply(422, b""), id="422"),
        pytest.param(json_reply(400, ["index"]), id="list"),
        pytest.param(json_reply(400, {"failed_records": {"index": 0}}), id="no-list"),
        pytest.param(failed(), id="nothing-failed"),
        pytest.param(failed(0), id="no-record"),
        pytest.param(failed({"index": "0"}), id="text-index"),
        pytest.param(failed({"index": True}), id="bool-index"),
        pytest.param(failed({"index": -1}), id="negative-index"),
        pytest.param(failed({"index": 3}), id="index-beyond"),
        pytest.param(failed({"index": 0}, {"index": 3}), id="one-index-beyond"),
        pytest.param(failed({"index": 0, "insert_id": "id-b"}), id="other-insert-id"),
        pytest.param(failed({"index": 0}, num_records_imported=3), id="other-number"),
    ],
)
def test_a_400_that_names_nobody_credibly_refuses_the_batch(reply):
    judgement = judge(Endpoint.EVENTS, reply, MESSAGES, NOW)

    assert judgement.verdict is Verdict.REFUSED
    assert judgement.failed == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("30", 30.0, id="seconds"),
        pytest.param("Fri, 15 Jan 2027 08:00:20 GMT", 20.0, id="date"),
        pytest.param("Fri, 15 Jan 2027 08:00:20 -0000", 20.0, id="date-without-zone"),
        pytest.param("Fri, 15 Jan 2027 07:00:00 GMT", 0.0, id="past"),
        pytest.param("999999", MAX_RETRY_AFTER_SECONDS, id="too-long"),
        pytest.param("-5", 0.0, id="negative"),
        pytest.param("nan", 0.0, id="nan"),
        pytest.param("soon", 0.0, id="word"),
        pytest.param("", 0.0, id="empty"),
    ],
)
def test_retry_after_is_read_in_both_forms(text, expected, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    reply = json_reply(429, {}, retry_after=text)

    assert judge(Endpoint.EVENTS, reply, MESSAGES, NOW).retry_after == expected


def test_foreign_text_cannot_forge_a_log_line():
    assert printable("a\r\nERROR b\x1b[31mc\u2028d" + "x" * 600) == "a  ERROR b [31mc d" + "x" * 482
