"""Say what an erasure did, when and to whom, as JSON that names nobody and can be gone on with.

People appear as the keyed hashes that outbox and ledger file them by; raw IDs only if asked.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from mp_asgi.errors import MixpanelASGIError
from mp_asgi.events import Subject

from .jobs import Compliance, Job, JobState, JobStatus

VERSION: Final = 1

NOT_STOPPED: Final = (
    "There is no tombstone, so nothing stops these people from being tracked again. That takes a "
    "ledger, which also knows their devices: set MP_ASGI_LEDGER."
)
NOT_CLEARED: Final = (
    "The ledger still holds their records and links, so that Mixpanel can be told again if it "
    "fails. Run this again with the same receipt (--receipt PATH) once it is done; that clears "
    "them."
)
_GROUPS: Final = {Subject.USER: "users", Subject.DEVICE: "devices"}

Named = tuple[Subject, bytes]
"""A subject and the keyed hash of its ID."""

Revealed = tuple[Subject, str]
"""A subject and its raw ID."""


class UnusableReceipt(MixpanelASGIError, ValueError):
    """A receipt cannot be gone on with; the message names the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """How far an erasure is. Times are seconds since the epoch, None for what was not done.

    Attributes:
        started_at: Also the time of the tombstones.
        compliance: The law that Mixpanel is told.
        named: The users and devices, the devices found by links included.
        ids: Their raw IDs, if that was asked for.
        entombed_at: When the ledger had the tombstones.
        fenced_at: When no send that began before them was under way any more.
        purged_at: When the outbox had forgotten them.
        purged: Messages that the outbox forgot.
        jobs: What Mixpanel has taken.
        cleared_at: When the ledger had forgotten their records and links.
        cleared: Records that this emptied.
        problems: Why something is missing, each with its remedy.
    """

    started_at: float
    compliance: Compliance = Compliance.GDPR
    named: tuple[Named, ...] = ()
    ids: tuple[Revealed, ...] = ()
    entombed_at: float | None = None
    fenced_at: float | None = None
    purged_at: float | None = None
    purged: int = 0
    jobs: tuple[Job, ...] = ()
    cleared_at: float | None = None
    cleared: int = 0
    problems: tuple[str, ...] = ()

    @property
    def has_begun(self) -> bool:
        """Whether anything was done that stays done."""
        return self.entombed_at is not None or bool(self.jobs)

    @property
    def taken(self) -> frozenset[bytes]:
        """Whom Mixpanel has taken a job for that is not lost."""
        return frozenset(
            key for job in self.jobs if not job.status.state.is_lost for key in job.keys
        )

    @property
    def is_taken(self) -> bool:
        """Whether Mixpanel has taken a job for everybody."""
        return self.taken >= {key for _, key in self.named}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What this erasure cannot do, or has not done yet."""
        if self.entombed_at is None:
            return (NOT_STOPPED,)
        return (NOT_CLEARED,) if self.cleared_at is None else ()

    @property
    def is_finished(self) -> bool:
        """Whether Mixpanel has said of everybody that it is done."""
        done = [job for job in self.jobs if job.status.state is JobState.SUCCESS]
        return {key for job in done for key in job.keys} >= {key for _, key in self.named}

    def count(self, subject: Subject) -> int:
        """Answer how many users, or devices, it is about."""
        return sum(1 for kind, _ in self.named if kind is subject)

    def to_json(self) -> dict[str, Any]:
        """Answer it as JSON values."""
        content: dict[str, Any] = {
            "version": VERSION,
            "kind": "erasure",
            "started_at": _render_time(self.started_at),
            "compliance": self.compliance.value,
            "subjects": _group((subject, key.hex()) for subject, key in self.named),
            "tombstones": {"at": _render_time(self.entombed_at)},
            "fence": {"at": _render_time(self.fenced_at)},
            "outbox": {"at": _render_time(self.purged_at), "messages": self.purged},
            "mixpanel": {
                "is_taken": self.is_taken,
                "is_finished": self.is_finished,
                "jobs": [_render_job(job) for job in self.jobs],
            },
            "ledger": {"at": _render_time(self.cleared_at), "records": self.cleared},
            "warnings": list(self.warnings),
            "problems": list(self.problems),
        }
        if self.ids:
            content["ids"] = _group(self.ids)
        return content

    @classmethod
    def parse(cls, text: str) -> "Receipt":
        """Read what `to_json` wrote.

        Raises:
            UnusableReceipt: Something else wrote it.
        """
        try:
            return cls._read(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UnusableReceipt(
                "The receipt cannot be read. Name the file of an earlier erasure, or a new one."
            ) from error

    @classmethod
    def _read(cls, content: Mapping[str, Any]) -> "Receipt":
        started_at = _read_time(content["started_at"])
        if (content["version"], content["kind"]) != (VERSION, "erasure") or started_at is None:
            raise ValueError(started_at)
        return cls(
            started_at=started_at,
            compliance=Compliance(content["compliance"]),
            named=tuple(
                (subject, bytes.fromhex(key)) for subject, key in _ungroup(content["subjects"])
            ),
            ids=tuple(_ungroup(content.get("ids", {}))),
            entombed_at=_read_time(content["tombstones"]["at"]),
            fenced_at=_read_time(content["fence"]["at"]),
            purged_at=_read_time(content["outbox"]["at"]),
            purged=int(content["outbox"]["messages"]),
            jobs=tuple(_read_job(job) for job in content["mixpanel"]["jobs"]),
            cleared_at=_read_time(content["ledger"]["at"]),
            cleared=int(content["ledger"]["records"]),
        )


def _group(named: Iterable[tuple[Subject, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {name: [] for name in _GROUPS.values()}
    for subject, text in named:
        groups[_GROUPS[subject]].append(text)
    return groups


def _ungroup(content: Mapping[str, Sequence[str]]) -> Iterator[tuple[Subject, str]]:
    for subject, name in _GROUPS.items():
        for text in content.get(name, ()):
            yield subject, text


def _render_job(job: Job) -> dict[str, Any]:
    return {
        "task_id": job.task_id,
        "status": job.status.state.value,
        "subjects": _GROUPS[job.subject],
        "count": len(job.keys),
        "keys": [key.hex() for key in job.keys],
    }


def _read_job(content: Mapping[str, Any]) -> Job:
    subjects = {name: subject for subject, name in _GROUPS.items()}
    return Job(
        str(content["task_id"]),
        subjects[content["subjects"]],
        tuple(bytes.fromhex(key) for key in content["keys"]),
        JobStatus(JobState(content["status"])),
    )


def _render_time(at: float | None) -> str | None:
    return (
        None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")
    )


def _read_time(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()
