import dataclasses
import json

import pytest

from mp_asgi.erasure.jobs import Compliance, Job, JobState, JobStatus
from mp_asgi.erasure.receipt import NOT_CLEARED, NOT_STOPPED, Receipt, UnusableReceipt
from mp_asgi.events import Subject
from tests.support import NOW

USER, DEVICE = (Subject.USER, b"u1"), (Subject.DEVICE, b"d1")


def make_job(key=b"u1", state=JobState.PENDING, subject=Subject.USER):
    return Job(f"task-{key.decode()}", subject, (key,), JobStatus(state))


FULL = Receipt(
    started_at=NOW + 0.25,
    compliance=Compliance.CCPA,
    named=(USER, DEVICE),
    ids=((Subject.USER, "U1"), (Subject.DEVICE, "D1")),
    entombed_at=NOW + 1,
    fenced_at=NOW + 2,
    purged_at=NOW + 3,
    purged=4,
    jobs=(make_job(), make_job(b"d1", JobState.SUCCESS, Subject.DEVICE)),
    cleared_at=NOW + 5,
    cleared=6,
)


@pytest.mark.parametrize("receipt", [FULL, Receipt(started_at=NOW)], ids=["full", "begun"])
def test_a_written_receipt_is_read_as_it_was(receipt):
    assert Receipt.parse(json.dumps(receipt.to_json())) == receipt


def test_a_receipt_says_what_was_done_when():
    content = FULL.to_json()

    assert content["kind"] == "erasure"
    assert content["compliance"] == "CCPA"
    assert content["subjects"] == {"users": [b"u1".hex()], "devices": [b"d1".hex()]}
    assert content["tombstones"]["at"] == "2027-01-15T08:00:01.000000+00:00"
    assert content["outbox"]["messages"] == 4
    assert content["ledger"]["records"] == 6
    assert [job["status"] for job in content["mixpanel"]["jobs"]] == ["PENDING", "SUCCESS"]


def test_a_receipt_names_nobody_unless_asked():
    hidden = dataclasses.replace(FULL, ids=())

    assert "ids" not in hidden.to_json()
    assert FULL.to_json()["ids"] == {"users": ["U1"], "devices": ["D1"]}


def test_problems_are_told_and_do_not_outlive_the_run():
    receipt = dataclasses.replace(FULL, problems=("no answer",))

    assert receipt.to_json()["problems"] == ["no answer"]
    assert Receipt.parse(json.dumps(receipt.to_json())).problems == ()


def test_an_erasure_without_tombstones_warns():
    assert FULL.to_json()["warnings"] == []
    assert Receipt(started_at=NOW).to_json()["warnings"] == [NOT_STOPPED]


def test_an_erasure_whose_links_are_still_held_warns():
    held = dataclasses.replace(FULL, cleared_at=None)

    assert held.to_json()["warnings"] == [NOT_CLEARED]


@pytest.mark.parametrize(
    ("receipt", "has_begun"),
    [
        pytest.param(Receipt(started_at=NOW, named=(USER,)), False, id="only-named"),
        pytest.param(Receipt(started_at=NOW, entombed_at=NOW), True, id="tombstones"),
        pytest.param(Receipt(started_at=NOW, jobs=(make_job(),)), True, id="jobs"),
    ],
)
def test_an_erasure_has_begun_once_something_stays_done(receipt, has_begun):
    assert receipt.has_begun is has_begun


@pytest.mark.parametrize(
    ("jobs", "is_taken", "is_finished"),
    [
        pytest.param((), False, False, id="nobody"),
        pytest.param((make_job(),), False, False, id="only-the-user"),
        pytest.param((make_job(), make_job(b"d1")), True, False, id="both"),
        pytest.param(
            (make_job(), make_job(b"d1", JobState.FAILURE)), False, False, id="one-is-lost"
        ),
        pytest.param(
            (make_job(b"u1", JobState.SUCCESS), make_job(b"d1", JobState.REVOKED)),
            False,
            False,
            id="one-done-one-cancelled",
        ),
        pytest.param(
            (
                make_job(b"u1", JobState.SUCCESS),
                make_job(b"d1", JobState.FAILURE),
                make_job(b"d1", JobState.SUCCESS),
            ),
            True,
            True,
            id="done-at-the-second-try",
        ),
        pytest.param(
            (make_job(b"u1", JobState.SUCCESS), make_job(b"d1", JobState.SUCCESS)),
            True,
            True,
            id="both-done",
        ),
    ],
)
def test_everybody_must_be_in_a_job_that_is_not_lost(jobs, is_taken, is_finished):
    receipt = Receipt(started_at=NOW, named=(USER, DEVICE), jobs=jobs)

    assert (receipt.is_taken, receipt.is_finished) == (is_taken, is_finished)


def test_users_and_devices_are_counted():
    assert (FULL.count(Subject.USER), FULL.count(Subject.DEVICE)) == (1, 1)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="nothing-in-it"),
        pytest.param("[" * 100_000, id="too-deep"),
        pytest.param(json.dumps({**FULL.to_json(), "version": 2}), id="version"),
        pytest.param(json.dumps({**FULL.to_json(), "kind": "retrieval"}), id="kind"),
        pytest.param(json.dumps({**FULL.to_json(), "started_at": None}), id="no-start"),
        pytest.param(json.dumps({**FULL.to_json(), "subjects": {"users": ["xyz"]}}), id="no-hash"),
        pytest.param(json.dumps({**FULL.to_json(), "subjects": []}), id="no-groups"),
    ],
)
def test_another_file_is_no_receipt(text):
    with pytest.raises(UnusableReceipt, match="cannot be read"):
        Receipt.parse(text)
