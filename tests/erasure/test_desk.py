import dataclasses
from enum import Enum

import pytest

from mp_asgi.dev import Fault
from mp_asgi.dev.privacy import State
from mp_asgi.erasure.desk import POLL_SECONDS, WAIT_SECONDS, Desk
from mp_asgi.erasure.jobs import Compliance, JobKind, JobState, JobStatus
from mp_asgi.erasure.mixpanel import MAX_IDS, PrivacyAPI
from mp_asgi.erasure.pace import MAX_TRIES, Pace
from mp_asgi.events import Subject
from mp_asgi.identity import IdentityMode
from tests.erasure.support import DEVICE, make_reader

READER = make_reader()


class Unheard(Enum):
    """A state of a job that no page of the docs names."""

    DONE = "DONE"


def place(api, people, kind=JobKind.DELETION):
    jobs = []
    problems = Desk(api, kind).place(people, Compliance.GDPR, jobs.append)
    return jobs, problems


def test_users_and_devices_never_share_a_job(api, standin):
    people = [READER.device(DEVICE), READER.user("U1"), READER.user("U2")]

    jobs, problems = place(api, people)

    assert problems == []
    assert [job.distinct_ids for job in standin.privacy.jobs] == [
        ("U1", "U2"),
        (f"$device:{DEVICE}",),
    ]
    assert [(job.subject, len(job.keys)) for job in jobs] == [
        (Subject.USER, 2),
        (Subject.DEVICE, 1),
    ]


def test_more_people_than_fit_take_more_jobs(api, standin):
    people = [READER.user(f"U{number}") for number in range(MAX_IDS + 1)]

    jobs, problems = place(api, people)

    assert problems == []
    assert [len(job.distinct_ids) for job in standin.privacy.jobs] == [MAX_IDS, 1]
    assert [key for job in jobs for key in job.keys] == [person.key for person in people]


def test_all_that_a_device_is_known_by_goes_into_one_job(api, standin):
    reader = make_reader(IdentityMode.ORIGINAL)
    people = [reader.device(f"D{number}") for number in range(MAX_IDS // 2 + 1)]

    jobs, problems = place(api, people)

    assert problems == []
    assert [len(job.distinct_ids) for job in standin.privacy.jobs] == [MAX_IDS - 1, 2]
    assert standin.privacy.jobs[1].distinct_ids == ("D999", "$device:D999")
    assert [len(job.keys) for job in jobs] == [MAX_IDS // 2, 1]


def test_a_refused_request_leaves_the_others_alone(api, standin):
    spoilt = dataclasses.replace(READER.user("U1"), distinct_ids=("",))

    jobs, problems = place(api, [spoilt, READER.device(DEVICE)])

    assert [job.subject for job in jobs] == [Subject.DEVICE]
    assert len(problems) == 1
    assert problems[0].startswith("1 user not taken: ")


@pytest.mark.parametrize(
    ("options", "fault", "requests"),
    [({"oauth_token": "old"}, None, 1), ({}, Fault.UNAVAILABLE, MAX_TRIES)],
    ids=["no-access", "unavailable"],
)
def test_what_stops_one_request_stops_them_all(make_api, standin, options, fault, requests):
    if fault:
        standin.misbehave(fault, None)

    jobs, problems = place(make_api(**options), [READER.user("U1"), READER.device(DEVICE)])

    assert (jobs, len(problems)) == ([], 1)
    assert len(standin.requests) == requests


def test_who_is_not_asked_for_any_more_is_counted(make_api, standin):
    standin.misbehave(Fault.UNAVAILABLE, None)
    people = [READER.user(f"U{number}") for number in range(2 * MAX_IDS)]
    reported = []
    desk = Desk(make_api(), JobKind.DELETION, lambda *values: reported.append(values))

    (problem,) = desk.place([*people, READER.device(DEVICE)], Compliance.GDPR, [].append)

    assert problem.startswith(
        "1999 users not taken, and 1999 more users, 1 more device not asked for: "
    )
    assert reported == [("Requests to Mixpanel", 0, 3)]


def test_a_look_asks_once_about_what_is_not_over(api, standin):
    jobs, _ = place(api, [READER.user("U1"), READER.device(DEVICE)])
    jobs[0] = dataclasses.replace(jobs[0], status=JobStatus(JobState.SUCCESS))
    standin.privacy.advance()
    rounds = []

    problems = Desk(api, JobKind.DELETION).look(jobs, rounds.append)

    ((users, devices),) = rounds
    assert problems == []
    assert (users.status.state, devices.status.state) == (JobState.SUCCESS, JobState.STAGING)
    assert [request.method for request in standin.requests] == ["POST", "POST", "GET"]


def test_a_look_without_an_answer_is_a_problem(api, standin):
    jobs, _ = place(api, [READER.user("U1")])
    standin.misbehave(Fault.UNAVAILABLE, None)

    (problem,) = Desk(api, JobKind.DELETION).look(jobs, lambda _: None)

    assert problem.startswith("Mixpanel did not say how far the jobs are: ")


def test_waiting_asks_until_every_job_is_over(api, standin, clock):
    reported, rounds = [], []
    desk = Desk(api, JobKind.RETRIEVAL, lambda *values: reported.append(values))
    jobs = []
    desk.place([READER.user("U1"), READER.device(DEVICE)], Compliance.GDPR, jobs.append)
    began_at = clock.now

    def keep(jobs):
        rounds.append([job.status.state for job in jobs])
        standin.privacy.advance()

    problems = desk.wait(jobs, keep)

    assert problems == []
    assert [states[0] for states in rounds] == [
        *(JobState.PENDING, JobState.STAGING, JobState.STARTED, JobState.SUCCESS)
    ]
    assert clock.now - began_at >= 3 * POLL_SECONDS
    assert reported[0] == ("Requests to Mixpanel", 0, 2)
    assert reported[-1] == ("Jobs finished by Mixpanel", 2, 2)


def test_what_is_over_is_not_asked_for_again(api, standin):
    jobs, _ = place(api, [READER.user("U1")])
    done = dataclasses.replace(jobs[0], status=JobStatus(JobState.SUCCESS))

    Desk(api, JobKind.DELETION).wait([done], lambda _: None)

    assert [request.method for request in standin.requests] == ["POST"]


def test_a_lost_job_is_a_problem(api, standin):
    jobs, _ = place(api, [READER.user("U1")])
    standin.privacy.fail()

    problems = Desk(api, JobKind.DELETION).wait(jobs, lambda _: None)

    assert problems == ["Task task-1 ended as FAILURE. Run this again."]


def test_a_job_that_was_lost_before_is_no_problem_of_the_wait(api, standin):
    jobs, _ = place(api, [READER.user("U1"), READER.device(DEVICE)])
    jobs[0] = dataclasses.replace(jobs[0], status=JobStatus(JobState.REVOKED))
    standin.privacy.finish()

    assert Desk(api, JobKind.DELETION).wait(jobs, lambda _: None) == []


def test_waiting_ends_when_mixpanel_does_not_answer(api, standin):
    jobs, _ = place(api, [READER.user("U1")])
    standin.misbehave(Fault.UNAVAILABLE, None)

    (problem,) = Desk(api, JobKind.DELETION).wait(jobs, lambda _: None)

    assert problem.startswith("Waiting ended early: ")


@pytest.mark.parametrize("is_known", [True, False], ids=["pending", "a-word-nobody-knows"])
def test_waiting_ends_after_thirty_days(make_api, standin, clock, is_known):
    api = make_api()
    jobs, _ = place(api, [READER.user("U1"), READER.device(DEVICE)])
    if not is_known:
        standin.privacy.jobs[0].state = Unheard.DONE
    standin.privacy.jobs[1].state = State.FAILURE
    began_at = clock.now
    days = PrivacyAPI(api._settings, Pace(clock, lambda _: clock.advance(86_400.0)))

    problems = Desk(days, JobKind.DELETION).wait(jobs, lambda _: None)

    state = "PENDING" if is_known else "UNKNOWN"
    assert problems == [
        f"Task task-1 is not over after 30 days, but {state}. Ask Mixpanel.",
        "Task task-2 ended as FAILURE. Run this again.",
    ]
    assert WAIT_SECONDS <= clock.now - began_at < 1.2 * WAIT_SECONDS
