import json
import time

import pytest

from mp_asgi.delivery.replies import MAX_RETRY_AFTER_SECONDS, Verdict, judge, printable, read_date
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


@pytest.mark.parametrize("status", [408, 425, 429, 503])
def test_what_was_not_taken_is_retried(status):
    assert verdict(Reply(status, b"<html>busy</html>")) is Verdict.RETRY


@pytest.mark.parametrize("status", [100, 103, 199, 500, 502, 504, 524, 599])
def test_what_a_failing_server_may_have_taken_is_lost(status):
    assert verdict(Reply(status, b"<html>sorry</html>")) is Verdict.LOST


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        pytest.param("", Verdict.LOST, id="none"),
        pytest.param(". reset reason: connection termination", Verdict.LOST, id="cut"),
        pytest.param(". reset reason: connection failure", Verdict.RETRY, id="refused"),
        pytest.param(". reset reason: remote connection failure", Verdict.RETRY, id="remote"),
        pytest.param(". reset reason: connection timeout", Verdict.RETRY, id="timeout"),
        pytest.param(". reset reason: overflow", Verdict.RETRY, id="overflow"),
        pytest.param(
            ". retried and the latest reset reason: connection timeout", Verdict.LOST, id="retried"
        ),
    ],
)
def test_a_gateway_that_lost_its_connection_may_have_sent_it_on(reason, expected):
    text = f"upstream connect error or disconnect/reset before headers{reason}"

    assert verdict(Reply(503, text.encode())) is expected


def test_a_503_without_an_upstream_was_not_taken():
    assert verdict(Reply(503, b"no healthy upstream")) is Verdict.RETRY


@pytest.mark.parametrize(
    ("imported", "expected"),
    [
        pytest.param(3, 0, id="all"),
        pytest.param(1, 2, id="some"),
        pytest.param(0, 3, id="none"),
        pytest.param(7, 0, id="more"),
        pytest.param(-(10**20), 3, id="less-than-none"),
        pytest.param(True, 0, id="bool"),
        pytest.param("1", 0, id="text"),
        pytest.param(None, 0, id="null"),
    ],
)
def test_a_success_tells_how_many_mixpanel_does_not_count(imported, expected):
    reply = json_reply(200, {"code": 200, "num_records_imported": imported})

    judgement = judge(Endpoint.EVENTS, reply, MESSAGES, NOW)

    assert (judgement.verdict, judgement.unimported) == (Verdict.DELIVERED, expected)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(
            Reply(400, b"you sent user-17"), "status 400, not Mixpanel's: 16 bytes", id="no-json"
        ),
        pytest.param(Reply(503, b""), "status 503, not Mixpanel's: 0 bytes", id="empty"),
        pytest.param(Reply(200, b"0"), "0", id="digit"),
        pytest.param(json_reply(400, {"error": "no t0ken"}), "no ***", id="error"),
        pytest.param(
            failed({"index": 9}, error="some data points"), "some data points", id="no-culprit"
        ),
    ],
)
def test_of_a_reply_only_mixpanels_error_is_kept(reply, expected):
    assert judge(Endpoint.EVENTS, reply, MESSAGES, NOW, secrets=("t0ken", "")).text == expected


def test_the_text_of_a_failed_record_holds_no_secret():
    reply = failed({"index": 0, "field": "t0ken", "message": "x" * 497 + "t0ken"})

    (text,) = judge(Endpoint.EVENTS, reply, MESSAGES, NOW, secrets=("t0ken",)).failed.values()

    assert "t0" not in text


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


@pytest.mark.parametrize("status", [429, 503, 504])
def test_retry_after_counts_whatever_failed(status):
    assert (
        judge(Endpoint.EVENTS, Reply(status, b"", {"retry-after": "7"}), [], NOW).retry_after == 7
    )


def test_a_date_to_retry_after_is_of_the_hosts_clock():
    headers = {
        "retry_after": "Fri, 15 Jan 2027 08:00:20 GMT",
        "date": "Fri, 15 Jan 2027 08:00:00 GMT",
    }

    reply = json_reply(429, {}, **headers)

    assert judge(Endpoint.EVENTS, reply, MESSAGES, NOW + 7200).retry_after == 20


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"date": "Fri, 15 Jan 2027 08:00:20 GMT"}, NOW + 20, id="date"),
        pytest.param({"date": "today"}, NOW, id="word"),
        pytest.param({}, NOW, id="none"),
    ],
)
def test_a_reply_tells_the_time_of_its_host(headers, expected):
    assert read_date(Reply(200, b"", headers), NOW) == expected


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
