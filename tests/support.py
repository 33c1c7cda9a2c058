"""Real things that obey our protocols: a clock that stands still, a transport that remembers."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mp_asgi import assembly
from mp_asgi.core import Core, Handover
from mp_asgi.delivery.transport import Reply
from mp_asgi.events import Act, ActState, Endpoint, Entry, Link, Message, Standing, Subject
from mp_asgi.settings import Settings

NOW = 1_800_000_000.0
TIMEOUT = 10.0  # seconds after which a thread that never answers fails the test


def wait_for(holds: Callable[[], object], seconds: float = TIMEOUT) -> None:
    """Wait for what another thread or process makes true, and nobody tells.

    Raises:
        TimeoutError: It did not come true.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{holds} did not come to hold.")
        pause.wait(0.01)


def run_script(script: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code to the end of a process of its own, which sees what the tests see."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file of this process grow past `size` bytes, which is a short write.

    It holds for the steps inside only: the file that takes the tests' own output may be longer.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


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
    values: dict[str, Any] = {"token": "t0ken", "secret_keys": ("k" * 32,), "outbox": "memory"}
    return Settings(**values | overrides)


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
        self.records: list[Act | Link] = []
        self.asked: list[bytes] = []

    def accept(self, handover: Handover) -> None:
        self.accepted.append(handover)

    def stop(self, keys: Sequence[bytes], at: float) -> None:
        self.stops.append((keys, at))

    def count(self, name: str, number: int = 1, reason: str = "") -> None:
        self.counts[name, reason] += number

    def warn(self, topic: str, message: str) -> None:
        self.warnings.append((topic, message))

    def record(self, item: Act | Link) -> None:
        self.records.append(item)

    def ask(self, key: bytes) -> None:
        self.asked.append(key)


def make_core(
    clock: Callable[[], float] | None = None,
    sink: RecordingSink | None = None,
    random_bytes: Callable[[int], bytes] = os.urandom,
    *,
    has_ledger: bool = False,
    **overrides: Any,
) -> Core:
    """Answer the rules of a process whose consequences are only recorded.

    With a ledger, what the process remembers of it is empty until a test lets it learn.
    """
    if has_ledger:
        overrides = {"ledger": "sqlite:///never-opened", "ledger_keys": ("l" * 32,), **overrides}
    return assembly.make_core(
        make_settings(**overrides), sink or RecordingSink(), clock or FakeClock(), random_bytes
    )


def make_act(state: ActState, at: float = NOW, key: bytes = b"user", **more: Any) -> Act:
    """Answer what a user chose."""
    return Act(key=key, subject=more.pop("subject", Subject.USER), state=state, at=at, **more)


class MemoryLedger:
    """A ledger of one process; what is recorded in it comes in the order of its time.

    Attributes:
        items: What is recorded.
        calls: Names of the calls, those that failed included.
        error: What every call raises; None while all is well.
    """

    def __init__(self) -> None:
        self.items: list[Act | Link] = []
        self.calls: list[str] = []
        self.error: Exception | None = None

    def open(self) -> None:
        if self.error is not None:
            raise self.error

    def append(self, items: Sequence[Act | Link]) -> None:
        self._note("append")
        self.items += [item for item in items if item not in self.items]

    def standings(self, keys: Collection[bytes]) -> Mapping[bytes, Standing]:
        self._note("standings")
        found: dict[bytes, Standing] = {}
        for act in self.acts:
            if act.key in keys:
                found[act.key] = _follow(found.get(act.key), act)
        return found

    def close(self) -> None:
        self._note("close")

    @property
    def acts(self) -> list[Act]:
        return [item for item in self.items if isinstance(item, Act)]

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error


def _follow(before: Standing | None, act: Act) -> Standing:
    after = act.standing()
    if before is None or act.is_denial:
        return after
    since = before.since if before.since is not None else act.at
    return after._replace(denied_at=before.denied_at, since=since)
