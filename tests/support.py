"""Real things that obey our protocols: a clock that stands still, a transport that remembers."""

import dataclasses
import json
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mp_asgi.analytics import Analytics
from mp_asgi.core import Core, Handover
from mp_asgi.delivery.transport import Reply
from mp_asgi.events import Endpoint, Entry, Message
from mp_asgi.settings import Settings

NOW = 1_800_000_000.0
TIMEOUT = 10.0  # seconds after which a thread that never answers fails the test


class FakeClock:
    """A clock that moves only when told."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class RecordingTransport:
    """A Mixpanel of one process: records what arrives, replies as scripted, else success.

    Args:
        replies: What each send answers in turn; an exception is raised, None is a success.
        gate: When given, every send waits for it.
    """

    def __init__(
        self,
        replies: Iterable[Reply | Exception | None] = (),
        *,
        gate: threading.Event | None = None,
    ) -> None:
        self.replies = deque(replies)
        self.sent: list[tuple[Endpoint, list[Any]]] = []
        self.closed = threading.Event()
        self.is_sending = threading.Event()
        self._gate = gate

    def send(self, endpoint: Endpoint, body: bytes) -> Reply:
        messages = json.loads(body)
        self.sent.append((endpoint, messages))
        self.is_sending.set()
        if self._gate is not None and not self._gate.wait(TIMEOUT):
            raise AssertionError("the gate was never opened")
        reply = self.replies.popleft() if self.replies else None
        if isinstance(reply, Exception):
            raise reply
        return reply or success(endpoint, len(messages))

    def close(self) -> None:
        self.closed.set()

    @property
    def messages(self) -> list[Any]:
        """Everything that was sent, in order, whatever the reply."""
        return [message for _, messages in self.sent for message in messages]


def success(endpoint: Endpoint, count: int = 1) -> Reply:
    """Answer what Mixpanel says when all went well."""
    if endpoint is Endpoint.EVENTS:
        return json_reply(200, {"code": 200, "num_records_imported": count, "status": "OK"})
    return json_reply(200, {"error": None, "status": 1})


def json_reply(status: int, value: Any, **headers: str) -> Reply:
    """Answer a reply with a JSON body; header names are written with underscores."""
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, json.dumps(value).encode(), names)


def make_settings(**overrides: Any) -> Settings:
    """Answer settings that can be used."""
    values: dict[str, Any] = {"token": "t0ken", "secret_keys": ("k" * 32,), **overrides}
    return Settings(**values)


def make_message(name: str, size_bytes: int = 0) -> Message:
    """Answer a message; its body is filled up to `size_bytes`."""
    bare = json.dumps({"event": name, "fill": ""}, separators=(",", ":"))
    body = bare[:-2] + "x" * (size_bytes - len(bare)) + '"}'
    return Message(name, body.encode(), f"id-{name}")


def make_entry(
    *names: str,
    endpoint: Endpoint = Endpoint.EVENTS,
    device: bytes = b"device",
    user: bytes = b"",
    at: float = NOW,
    size_bytes: int = 0,
    is_repeatable: bool = True,
    is_identity: bool = False,
) -> Entry:
    """Answer an entry with one message for each name."""
    messages = tuple(make_message(name, size_bytes) for name in names)
    return Entry(
        endpoint,
        messages,
        device,
        user,
        at,
        is_repeatable=is_repeatable,
        is_identity=is_identity,
    )


class RecordingSink:
    """Where the consequences of requests end: remembers them, delivers nothing."""

    def __init__(self) -> None:
        self.accepted: list[Handover] = []
        self.stops: list[tuple[Sequence[bytes], float]] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.warnings: list[tuple[str, str]] = []

    def accept(self, handover: Handover) -> None:
        self.accepted.append(handover)

    def stop(self, keys: Sequence[bytes], at: float) -> None:
        self.stops.append((keys, at))

    def count(self, name: str, number: int = 1, reason: str = "") -> None:
        self.counts[name, reason] += number

    def warn(self, topic: str, message: str) -> None:
        self.warnings.append((topic, message))


def make_core(
    clock: Callable[[], float] | None = None,
    sink: RecordingSink | None = None,
    random_bytes: Callable[[int], bytes] = os.urandom,
    **overrides: Any,
) -> Core:
    """Answer the rules of a process whose consequences are only recorded."""
    core = Analytics(
        make_settings(**overrides), clock=clock or FakeClock(), random_bytes=random_bytes
    ).core
    return dataclasses.replace(core, sink=sink or RecordingSink())
