"""Place jobs at Mixpanel and follow them: users and devices apart, as many as one request takes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from mp_asgi.errors import MixpanelASGIError, Unavailable
from mp_asgi.events import Subject

from .jobs import Compliance, Job, JobKind
from .mixpanel import MAX_IDS, PrivacyAPI, PrivacyRefused
from .people import Person

POLL_SECONDS: Final = 60.0  # between two rounds of questions; jobs take minutes to weeks
WAIT_SECONDS: Final = 30 * 86_400.0  # Mixpanel takes at most 30 days (reference/gdpr-api)

Report = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""

Keep = Callable[[Sequence[Job]], None]
"""Called with all jobs as they are now."""


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
            except (PrivacyRefused, Unavailable) as error:
                is_last = isinstance(error, Unavailable) or error.is_access
                others = _name_others(batches[number + 1 :]) if is_last else ""
                problems.append(f"{_count(batch)} not taken{others}: {error}")
                if is_last:
                    return problems
        self._report("Requests to Mixpanel", len(batches), len(batches))
        return problems

    def look(self, jobs: Sequence[Job], keep: Keep) -> list[str]:
        """Ask once about every job that is not over. Return the problems.

        Args:
            jobs: As far as they are known.
            keep: Given all jobs as they are now.
        """
        try:
            self._ask_all(jobs, keep)
        except MixpanelASGIError as error:
            return [f"Mixpanel did not say how far the jobs are: {error}"]
        return []

    def wait(self, jobs: Sequence[Job], keep: Keep) -> list[str]:
        """Ask again and again until every job is over, for 30 days at most. Return the problems.

        A job that was lost before is none: others were asked for in its place.

        Args:
            jobs: As far as they are known.
            keep: Given all jobs after each round.
        """
        end_at = self._api.now() + WAIT_SECONDS
        replaced = {job.task_id for job in jobs if job.status.state.is_lost}
        try:
            while True:
                jobs = self._ask_all(jobs, keep)
                is_over = all(job.status.state.is_over for job in jobs)
                if is_over or self._api.now() >= end_at:
                    return _name_unfinished(job for job in jobs if job.task_id not in replaced)
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

    def _ask_all(self, jobs: Sequence[Job], keep: Keep) -> list[Job]:
        asked = [self.ask(job) for job in jobs]
        keep(asked)
        done = sum(1 for job in asked if job.status.state.is_over)
        self._report("Jobs finished by Mixpanel", done, len(asked))
        return asked

    def _place(self, batch: Sequence[Person], compliance: Compliance) -> Job:
        ids = [distinct_id for person in batch for distinct_id in person.distinct_ids]
        task_id = self._api.create(self._kind, ids, compliance)
        return Job(task_id, batch[0].subject, tuple(person.key for person in batch))


def _divide(people: Sequence[Person]) -> list[list[Person]]:
    """Answer batches of one kind; all that Mixpanel knows a person by is in one of them."""
    batches: list[list[Person]] = []
    for group in _group(people):
        room = 0
        for person in group:
            if len(person.distinct_ids) > room:
                batches.append([])
                room = MAX_IDS
            batches[-1].append(person)
            room -= len(person.distinct_ids)
    return batches


def _group(people: Sequence[Person]) -> list[list[Person]]:
    return [[person for person in people if person.subject is subject] for subject in Subject]


def _count(batch: Sequence[Person], more: str = "") -> str:
    number, name = len(batch), batch[0].subject.value
    return f"{number} {more}{name}{'' if number == 1 else 's'}"


def _name_others(batches: Sequence[Sequence[Person]]) -> str:
    people = [person for batch in batches for person in batch]
    counts = ", ".join(_count(group, "more ") for group in _group(people) if group)
    return f", and {counts} not asked for" if counts else ""


def _name_unfinished(jobs: Iterable[Job]) -> list[str]:
    problems = []
    for job in jobs:
        task, state = f"Task {job.task_id}", job.status.state
        if state.is_lost:
            problems.append(f"{task} ended as {state.value}. Run this again.")
        elif not state.is_over:
            problems.append(f"{task} is not over after 30 days, but {state.value}. Ask Mixpanel.")
    return problems
