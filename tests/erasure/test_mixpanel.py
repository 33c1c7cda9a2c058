import json
import logging
import socket

import pytest

from mp_asgi.delivery.transport import MAX_REPLY_BYTES
from mp_asgi.dev import Fault
from mp_asgi.erasure.jobs import Compliance, JobKind, JobState, JobStatus
from mp_asgi.erasure.mixpanel import (
    MAX_IDS,
    PrivacyAPI,
    PrivacyRefused,
    find_application_url,
    open_api,
)
from mp_asgi.erasure.pace import MAX_TRIES, Pace
from mp_asgi.errors import SettingsError, Unavailable
from tests.erasure.conftest import OAUTH
from tests.erasure.support import TOKEN
from tests.support import FakeClock, make_settings

KINDS = pytest.mark.parametrize("kind", JobKind, ids=lambda kind: kind.name.lower())


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        pytest.param({}, "https://mixpanel.com", id="us"),
        pytest.param({"region": "eu"}, "https://eu.mixpanel.com", id="eu"),
        pytest.param({"region": "in"}, "https://in.mixpanel.com", id="in"),
        pytest.param(
            {"api_host": "API-EU.mixpanel.com/"}, "https://eu.mixpanel.com", id="host-tells-region"
        ),
        pytest.param(
            {"api_host": "events.shop.test", "region": "in"},
            "https://in.mixpanel.com",
            id="own-proxy",
        ),
        pytest.param(
            {"api_host": "https://localhost:9"}, "https://mixpanel.com", id="proxy-on-this-machine"
        ),
        pytest.param(
            {"api_host": "http://127.0.0.1:8001", "region": "eu"},
            "http://127.0.0.1:8001",
            id="stand-in",
        ),
    ],
)
def test_the_application_api_is_where_the_data_is(settings, url):
    assert find_application_url(make_settings(**settings)) == url


@KINDS
@pytest.mark.parametrize("shape", ["object", "list"])
def test_a_job_is_created_and_followed_to_its_end(api, standin, kind, shape):
    standin.privacy.shape = shape

    task_id = api.create(kind, ["U1", "ü"], Compliance.CCPA)
    first = api.status(kind, task_id)
    standin.privacy.finish()
    last = api.status(kind, task_id)

    (job,) = standin.privacy.jobs
    assert (job.distinct_ids, job.compliance) == (("U1", "ü"), "CCPA")
    assert first == JobStatus(JobState.PENDING)
    assert last.state is JobState.SUCCESS
    assert bool(last.link) is (kind is JobKind.RETRIEVAL)


def test_a_request_says_what_the_docs_ask_for(api, standin):
    api.create(JobKind.DELETION, ["U1"])

    (request,) = standin.requests
    assert (request.method, request.path) == ("POST", "/api/app/data-deletions/v3.0")
    assert request.query == f"token={TOKEN}"
    assert json.loads(request.body) == {"distinct_ids": ["U1"], "compliance_type": "GDPR"}
    assert ("authorization", f"Bearer {OAUTH}") in request.headers


def test_as_many_ids_as_one_request_takes_are_taken(api, standin):
    api.create(JobKind.DELETION, [str(number) for number in range(MAX_IDS)])

    assert [request.status for request in standin.requests] == [201]


def test_two_requests_keep_the_pace(api, standin):
    api.create(JobKind.DELETION, ["U1"])
    api.create(JobKind.DELETION, ["U2"])

    assert [request.status for request in standin.requests] == [201, 201]


@pytest.mark.parametrize(
    "fault",
    [Fault.UNAVAILABLE, Fault.RATE_LIMITED, Fault.REFUSE],
    ids=["503", "429", "connection-lost"],
)
def test_what_may_pass_is_tried_again(api, standin, clock, fault):
    standin.misbehave(fault, MAX_TRIES - 1)
    began_at = clock.now

    task_id = api.create(JobKind.DELETION, ["U1"])

    assert [job.id for job in standin.privacy.jobs] == [task_id]
    assert clock.now - began_at >= 1 + 2 + 4 + 8 + 16


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault.UNAVAILABLE, "answers with status 503, 6 times in a row"),
        (Fault.REFUSE, "gave no reply"),
    ],
    ids=["503", "connection-lost"],
)
def test_what_never_passes_ends(api, standin, fault, text):
    standin.misbehave(fault, None)

    with pytest.raises(Unavailable, match=text):
        api.create(JobKind.DELETION, ["U1"])

    assert len(standin.requests) == MAX_TRIES


def test_a_host_that_is_not_there_ends_likewise(make_api):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(Unavailable, match="gave no reply"):
        make_api(api_host=f"http://127.0.0.1:{port}").create(JobKind.DELETION, ["U1"])


def test_https_asks_for_a_certificate():
    clock = FakeClock()
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = make_settings(oauth_token=OAUTH)
        api = PrivacyAPI(settings, Pace(clock, clock.advance))
        api._url = f"https://127.0.0.1:{server.getsockname()[1]}"

        connection = api._new_connection()

    assert connection.cert_reqs == "CERT_REQUIRED"


@pytest.mark.parametrize("oauth_token", ["", "old"], ids=["401", "403"])
def test_a_token_that_does_not_pass_is_named_and_not_shown(make_api, standin, oauth_token):
    api = make_api(oauth_token=oauth_token)

    with pytest.raises(PrivacyRefused, match=r"MIXPANEL_OAUTH_TOKEN.*expires after a year") as no:
        api.create(JobKind.DELETION, ["U1"])

    assert no.value.is_access
    assert len(standin.requests) == 1
    assert TOKEN not in str(no.value)


def test_without_a_token_there_is_nobody_to_ask():
    assert open_api(make_settings()) is None


@pytest.mark.parametrize("oauth_token", ["two words", "two\nlines", "é"], ids=ascii)
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(make_api, oauth_token):
    with pytest.raises(SettingsError, match="MIXPANEL_OAUTH_TOKEN") as refused:
        make_api(oauth_token=oauth_token)

    assert oauth_token not in str(refused.value)


def test_a_refused_request_is_not_repeated_and_says_why(api, standin):
    with pytest.raises(PrivacyRefused, match=r"status 400 \(distinct_ids, missing") as refused:
        api.create(JobKind.DELETION, ["U1", ""])

    assert (refused.value.status, refused.value.is_access) == (400, False)
    assert len(standin.requests) == 1


def test_an_answer_that_repeats_secrets_is_masked(api, standin):
    reply = standin.privacy.answer

    def repeat(request):
        from mp_asgi.dev.replies import json_reply

        return json_reply(400, {"error": f"bad {OAUTH} and {TOKEN}", "status": "error"})

    standin.privacy.answer = repeat
    try:
        with pytest.raises(PrivacyRefused) as refused:
            api.create(JobKind.DELETION, ["U1"])
    finally:
        standin.privacy.answer = reply

    assert "bad *** and ***" in str(refused.value)


def test_an_answer_that_is_not_mixpanels_makes_no_job(api, standin):
    standin.misbehave(Fault.GARBAGE)

    with pytest.raises(PrivacyRefused, match="names no task"):
        api.create(JobKind.DELETION, ["U1"])


def test_a_deletion_is_cancelled_before_it_starts(api, standin):
    task_id = api.create(JobKind.DELETION, ["U1"])

    api.cancel(task_id)

    assert api.status(JobKind.DELETION, task_id).state is JobState.REVOKED


def test_a_deletion_that_started_cannot_be_cancelled(api, standin):
    task_id = api.create(JobKind.DELETION, ["U1"])
    standin.privacy.finish()

    with pytest.raises(PrivacyRefused, match="task-1 has started; Mixpanel cannot cancel"):
        api.cancel(task_id)


def test_what_is_not_there_cannot_be_cancelled(api):
    with pytest.raises(PrivacyRefused, match="status 404"):
        api.cancel("nothing")


def test_a_task_id_stays_in_its_place(api):
    task_id = api.create(JobKind.DELETION, ["U1"])

    assert api.status(JobKind.DELETION, f"{task_id}?x=1").state is JobState.NOT_FOUND


def test_a_boundless_answer_is_cut(api, standin):
    reply = standin.privacy.answer

    def flood(request):
        from mp_asgi.dev.replies import text_reply

        return text_reply(200, "x" * (2 * MAX_REPLY_BYTES))

    standin.privacy.answer = flood
    try:
        read = api._exchange("GET", "/api/app/data-deletions/v3.0/t?token=x", b"")
    finally:
        standin.privacy.answer = reply

    assert len(read.body) < 1.1 * MAX_REPLY_BYTES


def test_a_pause_is_the_paces(api, clock):
    began_at = clock.now

    api.pause(60.0)

    assert clock.now == began_at + 60.0


def test_nothing_secret_is_logged(api, standin, caplog):
    caplog.set_level(logging.DEBUG)
    standin.misbehave(Fault.UNAVAILABLE)

    api.create(JobKind.DELETION, ["U1-secret"])

    ours = [record.getMessage() for record in caplog.records if "uvicorn" not in record.name]
    assert not any(word in text for text in ours for word in (OAUTH, TOKEN, "U1-secret"))
