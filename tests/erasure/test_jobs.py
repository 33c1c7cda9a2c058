import json

import pytest

from mp_asgi.erasure.jobs import JobState, JobStatus, is_task_id, read_status, read_task_id

GARBAGE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"<html>", id="a-page"),
    pytest.param(b"[]", id="a-list"),
    pytest.param(b"7", id="a-number"),
    pytest.param(b"{}", id="no-results"),
    pytest.param(b'{"results":7}', id="results-no-object"),
    pytest.param(b'{"results":[]}', id="results-empty"),
    pytest.param(b'{"results":["x"]}', id="results-of-text"),
    pytest.param(b"[" * 100_000, id="too-deep"),
]


@pytest.mark.parametrize(
    "results",
    [
        pytest.param({"task_id": "t1"}, id="openapi-file"),
        pytest.param([{"status": "PENDING", "tracking_id": "t1"}], id="sample-of-the-docs"),
    ],
)
def test_both_documented_shapes_name_the_task(results):
    assert read_task_id(json.dumps({"status": "ok", "results": results}).encode()) == "t1"


@pytest.mark.parametrize(
    "body",
    [
        *GARBAGE,
        pytest.param(b'{"results":{"task_id":7}}', id="number"),
        pytest.param(b'{"results":{"task_id":"\\ud800"}}', id="lone-surrogate"),
    ],
)
def test_an_answer_without_a_task_names_none(body):
    assert read_task_id(body) == ""


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        pytest.param("1583958896131033662", True, id="digits"),
        pytest.param("0b8d-4_f.x", True, id="printable"),
        pytest.param("", False, id="empty"),
        pytest.param("two words", False, id="blank"),
        pytest.param("é", False, id="not-ascii"),
        pytest.param("\udcff", False, id="wrong-byte"),
        pytest.param("x" * 256, False, id="too-long"),
        pytest.param("x\n", False, id="newline"),
    ],
)
def test_a_task_id_is_what_a_url_and_a_terminal_can_hold(text, is_one):
    assert is_task_id(text) is is_one


@pytest.mark.parametrize("name", ["results", "result"], ids=["openapi-file", "sample-of-the-docs"])
def test_both_documented_shapes_hold_the_link(name):
    body = json.dumps({"status": "ok", "results": {"status": "SUCCESS", name: "https://x/y"}})

    assert read_status(body.encode()) == JobStatus(JobState.SUCCESS, "https://x/y")


@pytest.mark.parametrize("state", JobState, ids=lambda state: state.value)
def test_every_documented_state_is_read(state):
    body = json.dumps({"results": {"status": state.value, "distinct_ids": []}}).encode()

    assert read_status(body) == JobStatus(state)


@pytest.mark.parametrize(
    "body",
    [
        *GARBAGE,
        pytest.param(b'{"results":{"status":"DONE"}}', id="new-word"),
        pytest.param(b'{"results":{"status":[]}}', id="no-word"),
        pytest.param(b'{"results":{"results":7}}', id="no-link"),
    ],
)
def test_an_answer_without_a_state_is_unknown(body):
    assert read_status(body) == JobStatus(JobState.UNKNOWN)


def test_a_job_is_over_when_it_succeeded_or_is_lost():
    over = {state for state in JobState if state.is_over}
    lost = {state for state in JobState if state.is_lost}

    assert lost == {JobState.FAILURE, JobState.REVOKED, JobState.NOT_FOUND}
    assert over == lost | {JobState.SUCCESS}
