"""Be Mixpanel's GDPR API v3: jobs that delete and retrieve people, and what they answer.

Shapes and states: Mixpanel's OpenAPI file of that API; where its pages differ, both can be had.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal

from .replies import Reply, json_reply
from .wire import WireRequest, parse_flags

ROOT = "/api/app"
DELETIONS = f"{ROOT}/data-deletions/v3.0"
RETRIEVALS = f"{ROOT}/data-retrievals/v3.0"
MAX_IDS = 1_999  # reference/gdpr-api; another page of the docs says 2000
MAX_ID_BYTES = 255
SECONDS_BETWEEN_REQUESTS = 1.0

Shape = Literal["object", "list"]


class State(Enum):
    """How far a job is; the last two are not reached by advancing."""

    PENDING = "PENDING"
    STAGING = "STAGING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"


_NEXT = {
    State.PENDING: State.STAGING,
    State.STAGING: State.STARTED,
    State.STARTED: State.SUCCESS,
}


@dataclass(slots=True)
class Job:
    """One job, as far as it got.

    Attributes:
        path: `DELETIONS` or `RETRIEVALS`.
        requested_at: Seconds since the epoch.
    """

    id: str
    path: str
    distinct_ids: tuple[str, ...]
    compliance: str
    requested_at: float
    state: State = State.PENDING

    def content(self) -> dict[str, Any]:
        """Answer what the page shows."""
        kind = "deletion" if self.path == DELETIONS else "retrieval"
        return {"id": self.id, "kind": kind, "state": self.state.value, "ids": self.distinct_ids}


class _RefusedError(Exception):
    """A request that gets this answer instead of what it asks for."""

    def __init__(self, status: int, error: str) -> None:
        self.reply = json_reply(status, {"error": error, "status": "error"})
        super().__init__(error)


class Privacy:
    """The jobs of one project. Safe to use from any thread.

    Args:
        token: The only project token that is believed; any if empty.
        oauth_token: The only bearer token that is believed; any if empty.
        clock: Seconds since the epoch.
        delete: Called with the `distinct_id`s of a finished deletion.

    Attributes:
        has_limit: Whether a second request within a second gets a 429.
        shape: How creations are answered: `object` as in the OpenAPI file, `list` as in the
            docs' sample; the latter also names a retrieval's link `result`.
    """

    def __init__(
        self,
        token: str,
        oauth_token: str,
        *,
        clock: Callable[[], float],
        delete: Callable[[Sequence[str]], None],
    ) -> None:
        self.has_limit = True
        self.shape: Shape = "object"
        self._token = token
        self._oauth_token = oauth_token
        self._clock = clock
        self._delete = delete
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._last_at = float("-inf")

    @property
    def jobs(self) -> list[Job]:
        """The jobs, oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def answer(self, request: WireRequest) -> Reply:
        """Answer one request below `ROOT`."""
        try:
            with self._lock:
                self._check(request)
                return self._serve(request)
        except _RefusedError as refused:
            return refused.reply

    def advance(self) -> None:
        """Take every job one step further; a deletion that ends forgets its people."""
        with self._lock:
            for job in self._jobs.values():
                job.state, before = _NEXT.get(job.state, job.state), job.state
                if job.state is State.SUCCESS and before is not job.state:
                    self._finish(job)

    def finish(self) -> None:
        """Take every job to its end."""
        for _ in _NEXT:
            self.advance()

    def fail(self) -> None:
        """Let every job fail that has not ended."""
        with self._lock:
            for job in self._jobs.values():
                if job.state in _NEXT:
                    job.state = State.FAILURE

    def clear(self) -> None:
        """Forget every job, and behave as at first."""
        with self._lock:
            self._jobs.clear()
            self._last_at = float("-inf")
            self.has_limit = True
            self.shape = "object"

    def _finish(self, job: Job) -> None:
        if job.path == DELETIONS:
            self._delete(job.distinct_ids)

    def _check(self, request: WireRequest) -> None:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not credentials:
            raise _RefusedError(401, "Authentication credentials were not provided")
        if self._oauth_token not in ("", credentials):
            raise _RefusedError(403, "You do not have permission to perform this action")
        token = parse_flags(request.query).get("token", "")
        if not token or self._token not in ("", token):
            raise _RefusedError(403, "Unknown project token")
        now = self._clock()
        if self.has_limit and now - self._last_at < SECONDS_BETWEEN_REQUESTS:
            raise _RefusedError(429, "Rate limit exceeded: 1 request per second")
        self._last_at = now

    def _serve(self, request: WireRequest) -> Reply:
        path = DELETIONS if request.path.startswith(DELETIONS) else RETRIEVALS
        id = request.path[len(path) + 1 :]  # noqa: A001  # as in the API's answers
        match request.method:
            case "POST":
                return self._create(path, *_read_body(request.body))
            case "GET":
                return json_reply(200, {"status": "ok", "results": self._report(path, id)})
            case _:  # DELETE
                return self._cancel(id)

    def _create(self, path: str, ids: Sequence[str], compliance: str) -> Reply:
        job = Job(f"task-{len(self._jobs) + 1}", path, tuple(ids), compliance, self._clock())
        self._jobs[job.id] = job
        results: Any = {"task_id": job.id}
        if self.shape == "list":
            results = [
                {
                    "status": job.state.value,
                    "tracking_id": job.id,
                    "compliance_type": compliance,
                    "distinct_id_count": len(ids),
                }
            ]
        return json_reply(201, {"status": "ok", "results": results})

    def _report(self, path: str, id: str) -> dict[str, Any]:  # noqa: A002
        job = self._jobs.get(id) or Job(id, path, (), "GDPR", self._clock())
        state = job.state.value if id in self._jobs and job.path == path else "NOT_FOUND"
        if path == RETRIEVALS:
            link = f"https://storage.example/{id}.zip" if job.state is State.SUCCESS else ""
            name = "results" if self.shape == "object" else "result"
            return {"status": state, name: link, "distinct_ids": list(job.distinct_ids)}
        return {
            "tracking_id": id,
            "status": state,
            "requesting_user": "developer@localhost",
            "compliance_type": job.compliance,
            "project_id": 1,
            "date_requested": datetime.fromtimestamp(job.requested_at, UTC).isoformat()[:19],
            "distinct_ids": list(job.distinct_ids),
        }

    def _cancel(self, id: str) -> Reply:  # noqa: A002
        job = self._jobs.get(id)
        if job is None or job.path != DELETIONS:  # a retrieval has no cancel
            raise _RefusedError(404, "Not found")
        if job.state not in {State.PENDING, State.STAGING}:
            raise _RefusedError(405, "The deletion has started")
        job.state = State.REVOKED
        return Reply(204, b"")


def _read_body(body: bytes) -> tuple[list[str], str]:
    """Answer the IDs and the kind of law; one bad ID spoils the request."""
    try:
        content = json.loads(body)
        ids, compliance = content["distinct_ids"], content.get("compliance_type", "GDPR")
        is_valid = isinstance(ids, list) and all(
            0 < len(item.encode()) <= MAX_ID_BYTES for item in ids
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _RefusedError(400, "distinct_ids, missing or invalid") from error
    if not is_valid or not ids:
        raise _RefusedError(400, "distinct_ids, missing or invalid")
    if len(ids) > MAX_IDS:
        raise _RefusedError(400, f"distinct_ids, at most {MAX_IDS}")
    if compliance not in ("GDPR", "CCPA"):  # no set: a stranger's value may be unhashable
        raise _RefusedError(400, "compliance_type, GDPR or CCPA")
    return ids, compliance
