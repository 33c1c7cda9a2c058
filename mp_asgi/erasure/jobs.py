"""Say what a deletion or retrieval job at Mixpanel is, and read the answers about it. Pure.

Two shapes of each answer are documented (reference/mixpanel.md section 5.1); both are read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mp_asgi.events import Subject


class JobKind(Enum):
    """What a job does. The value is its part of the path."""

    DELETION = "data-deletions"
    RETRIEVAL = "data-retrievals"


class Compliance(Enum):
    """The law that a request cites."""

    GDPR = "GDPR"
    CCPA = "CCPA"


class JobState(Enum):
    """How far a job is, in Mixpanel's words."""

    PENDING = "PENDING"
    STAGING = "STAGING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"
    NOT_FOUND = "NOT_FOUND"
    UNKNOWN = "UNKNOWN"

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self is JobState.SUCCESS or self.is_lost

    @property
    def is_lost(self) -> bool:
        """Whether it ended without doing what it was for."""
        return self in {JobState.FAILURE, JobState.REVOKED, JobState.NOT_FOUND}


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What Mixpanel says about a job.

    Attributes:
        state: How far it is.
        link: Where a finished retrieval can be fetched; empty before, and for a deletion.
    """

    state: JobState
    link: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job that Mixpanel has taken.

    Attributes:
        task_id: Mixpanel's name for it.
        subject: Whom it is about: users and devices never share a job.
        keys: Keyed hashes of their IDs.
        status: As far as it was asked.
    """

    task_id: str
    subject: Subject
    keys: tuple[bytes, ...]
    status: JobStatus = JobStatus(JobState.PENDING)


def is_task_id(text: str) -> bool:
    """Whether this can be Mixpanel's name for a job, so that a URL and a terminal can hold it."""
    return re.fullmatch(r"[!-~]{1,255}", text) is not None


def read_task_id(body: bytes) -> str:
    """Answer the task of a creation's answer, `{task_id}` or `[{tracking_id}]`; empty without."""
    results = _read_results(body)
    if isinstance(results, list):
        results = results[0] if results else None
    if not isinstance(results, dict):
        return ""
    task_id = results.get("task_id") or results.get("tracking_id")
    return task_id if isinstance(task_id, str) and is_task_id(task_id) else ""


def read_status(body: bytes) -> JobStatus:
    """Answer what a status answer says; `UNKNOWN` for a word that is not documented."""
    results = _read_results(body)
    if not isinstance(results, dict):
        return JobStatus(JobState.UNKNOWN)
    link = results.get("results") or results.get("result")
    return JobStatus(_read_state(results), link if isinstance(link, str) else "")


def _read_state(results: Mapping[str, Any]) -> JobState:
    try:
        return JobState(results.get("status"))
    except ValueError:
        return JobState.UNKNOWN


def _read_results(body: bytes) -> Any:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer.get("results") if isinstance(answer, dict) else None
