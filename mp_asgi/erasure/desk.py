"""Place jobs at Mixpanel and follow them: users and devices apart, as many as one request takes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from mp_asgi.errors import MixpanelASGIError, Unavailable
from mp_asgi.events import Subject

from .jobs import Compliance, Job, JobKind
from .mixpanel import MAX_IDS, PrivacyAPI, PrivacyRefused
from .people import Person

POLL_SECONDS: Final = 60.0  # between two rounds of questions; jobs take minutes to weeks

Report = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""


def report_nothing(title: str, done: int, total: int) -> None:
    """Keep progress to oneself."""


class Desk:
    """Where one kind of job is placed.

    Args:
        api: Mixpanel's.
        kind: Deletion or retrieval.
        report: Told of progress.
    """

    def __init__(self, api: PrivacyAPI, kind: JobKind, report: Report = report_nothing) -> None:
        self._api = api
        self._kind = kind
        self._report = report

    def place(
        self, people: Sequence[Person], compliance: Compliance, keep: Callable[[Job], None]
    ) -> list[str]:
        """Ask for jobs about these people. Return the problems of those that were not taken.

        Args:
            people: Users and devices, each once.
            compliance: The law to cite.
            keep: Given each job as soon as it is taken, so that none is lost with the process.
        """
        problems: list[str] = []
        batches = _divide(people)
        for number, batch in enumerate(batches):
            self._report("Requests to Mixpanel", number, len(batches))
            try:
                keep(self._place(batch, compliance))
            except PrivacyRefused as error:
                problems.append(f"{_count(batch)} not taken: {error}")
                if error.is_access:
                    break
            except Unavailable as error:
                problems.append(f"{_count(batch)} not taken: {error}")
                break
        self._report("Requests to Mixpanel", len(batches), len(batches))
        return problems

    def wait(self, jobs: Sequence[Job], keep: Callable[[Sequence[Job]], None]) -> list[str]:
        """Ask again and again until every job is over. Return the problems.

        Args:
            jobs: As far as they are known.
            keep: Given all jobs after each round.
        """
        try:
            while True:
                jobs = [self.ask(job) for job in jobs]
                keep(jobs)
                done = sum(1 for job in jobs if job.status.state.is_over)
                self._report("Jobs finished by Mixpanel", done, len(jobs))
                if done == len(jobs):
                    return _name_lost(jobs)
                self._api.pause(POLL_SECONDS)
        except MixpanelASGIError as error:
            return [f"Waiting ended early: {error}"]

    def ask(self, job: Job) -> Job:
        """Answer the job as it is now.

        Raises:
            PrivacyRefused: Mixpanel says no.
            Unavailable: It gave no useful answer, several times.
        """
        if job.status.state.is_over:
            return job
        return replace(job, status=self._api.status(self._kind, job.task_id))

    def _place(self, batch: Sequence[Person], compliance: Compliance) -> Job:
        ids = [person.distinct_id for person in batch]
        task_id = self._api.create(self._kind, ids, compliance)
        return Job(task_id, batch[0].subject, tuple(person.key for person in batch))


def _divide(people: Sequence[Person]) -> list[list[Person]]:
    groups = [[person for person in people if person.subject is subject] for subject in Subject]
    return [
        group[start : start + MAX_IDS]
        for group in groups
        for start in range(0, len(group), MAX_IDS)
    ]


def _count(batch: Sequence[Person]) -> str:
    number, name = len(batch), batch[0].subject.value
    return f"{number} {name}{'' if number == 1 else 's'}"


def _name_lost(jobs: Sequence[Job]) -> list[str]:
    return [
        f"Task {job.task_id} ended as {job.status.state.value}. Run this again."
        for job in jobs
        if job.status.state.is_lost
    ]
