"""Retrieve what is known of people: here, in the ledger, and at Mixpanel, as a job with a link."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .desk import Desk, Report, report_nothing
from .eraser import NOT_ASKED
from .jobs import Compliance, Job, JobKind
from .links import Links, find_everybody
from .mixpanel import PrivacyAPI
from .people import PeopleReader, Person


class Record(Protocol):
    """One line of the ledger."""

    def to_json(self) -> str:
        """Answer it as one JSON object, without a raw ID."""
        ...


class History(Links, Protocol):
    """What a retrieval needs of the ledger."""

    def history(self, key: bytes) -> Sequence[Record]:
        """Answer what the subject with this keyed hash chose, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known here of one person.

    Attributes:
        person: Who it is.
        records: Of the ledger, each a JSON object.
    """

    person: Person
    records: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found here, and what Mixpanel was asked for.

    Attributes:
        findings: One for each person, users' known devices included.
        jobs: What Mixpanel has taken.
        problems: Why something is missing, each with its remedy.
    """

    findings: tuple[Finding, ...]
    jobs: tuple[Job, ...] = ()
    problems: tuple[str, ...] = ()


class Retriever:
    """Retrieve people of one project.

    Args:
        reader: Makes people of device IDs.
        ledger: Knows choices and links; may be missing.
        api: Mixpanel's; None without an OAuth token.
        report: Told of progress.
    """

    def __init__(
        self,
        reader: PeopleReader,
        ledger: History | None,
        api: PrivacyAPI | None,
        *,
        report: Report = report_nothing,
    ) -> None:
        self._reader = reader
        self._ledger = ledger
        self._desk = None if api is None else Desk(api, JobKind.RETRIEVAL, report)

    def retrieve(
        self, people: Sequence[Person], *, compliance: Compliance = Compliance.GDPR
    ) -> Retrieval:
        """Answer what is known here, and ask Mixpanel for what is known there.

        Raises:
            LedgerUnavailable: The ledger gave no answer.
        """
        everybody = find_everybody(people, self._ledger, self._reader, float("inf"))
        retrieval = Retrieval(tuple(self._find(person) for person in everybody))
        if self._desk is None:
            return replace(retrieval, problems=(NOT_ASKED,))
        jobs: list[Job] = []
        problems = self._desk.place(everybody, compliance, jobs.append)
        return replace(retrieval, jobs=tuple(jobs), problems=tuple(problems))

    def wait(self, retrieval: Retrieval) -> Retrieval:
        """Ask Mixpanel until every job is over. Return the retrieval with their links."""
        if self._desk is None:
            return retrieval
        rounds: list[Sequence[Job]] = [retrieval.jobs]
        problems = self._desk.wait(retrieval.jobs, rounds.append)
        return replace(retrieval, jobs=tuple(rounds[-1]), problems=(*retrieval.problems, *problems))

    def _find(self, person: Person) -> Finding:
        records = [] if self._ledger is None else self._ledger.history(person.key)
        return Finding(person, tuple(record.to_json() for record in records))
