"""Be Mixpanel on this machine: answer `/import`, `/track`, `/engage` and `/groups` as it would.

Which message is refused is decided in `judge.py`; the shapes of the replies are in `replies.py`,
the GDPR API is in `privacy.py`.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from . import replies
from .clusters import Cluster, Failure, Register
from .faults import Fault, Misbehaviour, Orders
from .judge import JUDGES, Mode, Problem, judge_import
from .privacy import ROOT, Privacy
from .records import Received, Records, Rejected, find_distinct_id
from .replies import Reply
from .routes import build_app
from .wire import Call, TooLargeError, UnreadableError, WireRequest, parse_call

MAX_REQUEST_BYTES = 2_097_152  # what a live 413 says; gzip does not raise it
MAX_RECORDS = 2_000  # reference/import-events

Judged = list[tuple[Any, Problem | None]]


class StandIn:
    """A local Mixpanel: an ASGI app, and the object that a test asks what arrived.

    Args:
        token: The only project token that `/import` believes; any if empty.
        mode: How the project merges IDs, which decides what an event must carry and who is who.
        clock: Seconds since the epoch; decides about old and future events, and is told in `Date`.
        max_bytes: Largest request, as sent and uncompressed.
        oauth_token: The only bearer token that the GDPR API believes; any if empty.

    Attributes:
        privacy: The GDPR API with its jobs; `advance` and `finish` take them further.
    """

    def __init__(
        self,
        token: str = "",
        *,
        mode: Mode = "simplified",
        clock: Callable[[], float] = time.time,
        max_bytes: int = MAX_REQUEST_BYTES,
        oauth_token: str = "",
    ) -> None:
        self.token = token
        self.mode: Mode = mode
        self.clock = clock
        self.max_bytes = max_bytes
        self.records = Records()
        self.privacy = Privacy(token, oauth_token, clock=clock, delete=self.records.remove)
        self._orders = Orders()
        self._lock = threading.Lock()
        self._app = build_app(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        await self._app(scope, receive, send)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events that count, as sent, whether to `/import` or `/track`."""
        return self.records.accepted("/import", "/track")

    @property
    def people(self) -> list[dict[str, Any]]:
        """Updates of people that count, as sent."""
        return self.records.accepted("/engage")

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Updates of groups that count, as sent."""
        return self.records.accepted("/groups")

    @property
    def requests(self) -> list[Received]:
        """Every request to Mixpanel's endpoints, with wire bytes and the status it got."""
        return self.records.requests

    @property
    def rejected(self) -> list[Rejected]:
        """Messages that do not count, and why."""
        return self.records.rejected

    def clusters(self) -> list[Cluster]:
        """Answer the people that Mixpanel makes of the events so far, first seen first."""
        return self._register().clusters()

    def who_is(self, who: str | Mapping[str, Any]) -> str:
        """Answer the canonical ID of a `distinct_id`, or of the person of an event.

        Two events are one person's if the answers are equal.

        Raises:
            LookupError: It did not arrive, or it is nobody's.
        """
        return self._register().who_is(who)

    def failures(self) -> list[Failure]:
        """Answer the events whose IDs Mixpanel does not join, each with its failure property."""
        return self._register().failures()

    def duplicates(self) -> dict[tuple[str, ...], int]:
        """Answer what arrived more than once, by Mixpanel's key, with its count.

        The key is (event, time, distinct_id, `$insert_id`), docs reference/event-deduplication;
        events without an `$insert_id` have none and never count as duplicates.
        """
        counts = Counter(_dedupe_key(event) for event in self.events if _dedupe_key(event))
        return {key: count for key, count in counts.items() if count > 1}

    def reset(self) -> None:
        """Forget everything that came, and behave."""
        self.behave()
        self.privacy.clear()
        self.records.clear()

    def misbehave(
        self,
        fault: Fault,
        times: int | None = 1,
        *,
        endpoint: str = "",
        seconds: float = 1.0,
        retry_after: int | None = None,
    ) -> None:
        """Answer the next requests with a fault; orders are obeyed one after the other.

        Args:
            fault: What to do.
            times: For how many requests; None without an end.
            endpoint: Only on this path, as in `/import`; on all if empty.
            seconds: How late a slow answer comes, or how long one takes that drips.
            retry_after: Seconds that a 429 tells to wait.
        """
        path = "/" + endpoint.strip("/") if endpoint else ""
        with self._lock:
            self._orders.add(Misbehaviour(fault, times, path, seconds, retry_after))

    def behave(self) -> None:
        """Withdraw every order to misbehave."""
        with self._lock:
            self._orders.clear()

    def wait_for(
        self, target: int | Callable[["StandIn"], bool], timeout: float = 5.0
    ) -> list[dict[str, Any]]:
        """Block until so many events came, or until the condition on this object holds.

        Returns:
            The events.

        Raises:
            TimeoutError: It did not happen within `timeout` seconds; says what came instead.
        """

        def is_reached() -> bool:
            return target(self) if callable(target) else len(self.events) >= target

        if not self.records.wait_until(is_reached, timeout):
            names = [event["event"] for event in self.events]
            statuses = [(request.path, request.status) for request in self.requests]
            message = f"{timeout} s passed. Events {names}, requests {statuses}."
            raise TimeoutError(f"{message} Rejected: {[r.reason for r in self.rejected]}.")
        return self.events

    def take_order(self, path: str) -> Misbehaviour | None:
        """Answer how to treat the next request for a path, and count that order down."""
        with self._lock:
            return self._orders.take(path)

    def answer(
        self,
        request: WireRequest,
        headers: tuple[tuple[str, str], ...],
        order: Misbehaviour | None = None,
    ) -> Reply:
        """Judge one request, keep it as the order says, and answer the reply."""
        failing = order if order is not None and not order.fault.keeps_messages else None
        reply, messages, judged = self._reply_to(request, failing)
        received = Received(
            request.method,
            request.path,
            request.query,
            headers,
            request.body,
            messages,
            reply.status,
            order.fault.value if order else "",
        )
        accepted = [message for message, problem in judged if problem is None]
        rejected = [
            (message, problem.field, problem.text, problem.is_silent)
            for message, problem in judged
            if problem is not None
        ]
        self.records.add(received, accepted, rejected, now=self.clock())
        return reply

    def _register(self) -> Register:
        return Register(self.events, self.mode)

    def _reply_to(
        self, request: WireRequest, failing: Misbehaviour | None
    ) -> tuple[Reply, tuple[Any, ...], Judged]:
        """Answer the reply, the messages that came, and those that are judged."""
        if request.path.startswith(ROOT):
            if failing is not None:
                return self._fail(failing, request.path), (), []
            return self.privacy.answer(request), (), []
        reply, judged = self._judge(request)
        messages = tuple(message for message, _ in judged)
        if failing is not None:
            return self._fail(failing, request.path), messages, []
        return reply, messages, judged

    def _judge(self, request: WireRequest) -> tuple[Reply, Judged]:
        try:
            call = parse_call(request, limit_bytes=self.max_bytes)
        except TooLargeError:
            return replies.too_large(self.max_bytes), []
        except UnreadableError:
            return _unreadable(request), []
        now = self.clock()
        if request.path == "/import":
            return self._judge_import(request, call, now)
        judged = [(message, JUDGES[request.path](message, now=now)) for message in call.messages]
        errors = [problem.text for _, problem in judged if problem and not problem.is_silent]
        # "1 - One or more objects provided are valid", so one good object hides the errors.
        is_refused = len(errors) == len(judged)
        error = (errors or [replies.NO_DATA])[0] if is_refused else ""
        is_counted = request.path != "/track" and call.flags.get("strict") == "1"
        good = len(judged) - len(errors) if is_counted else None
        return replies.received(call.flags, error=error, good=good), judged

    def _judge_import(self, request: WireRequest, call: Call, now: float) -> tuple[Reply, Judged]:
        if denial := self._check_credentials(request, call):
            refused: Judged = [(message, Problem("", denial)) for message in call.messages]
            return replies.unauthorized(request.path, denial), refused
        is_strict = call.flags.get("strict") == "1"
        if not call.messages:
            return _no_data(call, is_strict=is_strict), []
        if len(call.messages) > MAX_RECORDS:
            return replies.bad_request(f"request exceeds max limit of {MAX_RECORDS} records"), []
        judged = [
            (message, judge_import(message, now=now, mode=self.mode)) for message in call.messages
        ]
        failed = [
            _failed_record(index, message, problem)
            for index, (message, problem) in enumerate(judged)
            if problem and not problem.is_silent
        ]
        count = len(judged) - len(failed)
        if call.is_form and not is_strict:
            error = failed[0]["message"] if failed else ""
            return replies.received(call.flags, error=error), judged
        if failed:
            return replies.import_failed(count, failed, is_strict=is_strict), judged
        return replies.imported(count, is_strict=is_strict), judged

    def _check_credentials(self, request: WireRequest, call: Call) -> str:
        """Answer what Mixpanel says about the credentials; empty if it takes them."""
        username, password = request.basic_credentials
        if not username:
            return "Invalid credentials"
        if password:  # a service account; its secret is not checked here
            return "" if call.flags.get("project_id") else "Not a valid service account username"
        return "" if self.token in ("", username) else "Invalid credentials"

    def _fail(self, order: Misbehaviour, path: str) -> Reply:
        match order.fault:
            case Fault.UNAVAILABLE:
                return replies.text_reply(503, replies.UPSTREAM)
            case Fault.RATE_LIMITED:
                return replies.rate_limited(path, order.retry_after)
            case Fault.TOO_LARGE:
                return replies.too_large(self.max_bytes)
            case Fault.UNAUTHORIZED:
                return replies.unauthorized(path)
            case Fault.BAD_REQUEST:
                return replies.bad_request(replies.NO_DATA)
            case _:
                page = "<!doctype html><title>Sign in</title><p>Sign in to this network."
                return replies.text_reply(200, page, "text/html")


def _unreadable(request: WireRequest) -> Reply:
    if request.path == "/import":
        return replies.bad_request(replies.NO_DATA)
    return replies.received({}, error=replies.NO_DATA)


def _no_data(call: Call, *, is_strict: bool) -> Reply:
    if is_strict:
        return replies.bad_request(replies.NO_DATA)
    return replies.json_reply(200, {"error": replies.NO_DATA, "status": 0})


def _failed_record(index: int, message: Any, problem: Problem) -> Mapping[str, Any]:
    properties = message.get("properties") if isinstance(message, dict) else None
    insert_id = properties.get("$insert_id", "") if isinstance(properties, dict) else ""
    return {
        "index": index,
        "insert_id": insert_id,
        "field": problem.field,
        "message": problem.text,
    }


def _dedupe_key(event: Mapping[str, Any]) -> tuple[str, ...]:
    properties = event.get("properties") or {}
    if not properties.get("$insert_id"):
        return ()
    values = (
        event["event"],
        properties.get("time"),
        find_distinct_id(event),
        properties["$insert_id"],
    )
    return tuple(map(str, values))
