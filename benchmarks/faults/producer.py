"""Be an app without a server: track what a line of JSON on stdin says, answer with one on stdout.

    {"do": "track", "first": 0, "count": 100}     track events with the numbers 0 to 99
    {"do": "add", "first": 0, "count": 10}        increment ten people, one each
    {"do": "stream", "first": 0, "pause": 0.001}  track without an end, and tell each on its own
    {"do": "finish", "seconds": 60}               flush until nothing waits
    {"do": "exit"}                                sys.exit(), and nothing before it

`track` and `add` take `threads`, and `track` takes `properties`.
"""

import contextlib
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from mp_asgi import Analytics
from mp_asgi.delivery.transport import HTTPTransport
from mp_asgi.errors import OutboxUnavailable

EVENT = "Counted"
RESOLVER = "FAULTS_BROKEN_RESOLVER"
"""Names a file: while it is there, no name resolves in this process."""
READ_SECONDS = "FAULTS_READ_SECONDS"
"""How long to wait for Mixpanel's answer, instead of the 30 s of the product."""
FILE_BYTES = "FAULTS_FILE_BYTES"
"""No file of this process grows beyond it."""
FLUSH_SECONDS = 5.0


class Producer:
    """An app that does what it is told."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics
        self._verbs: Mapping[str, Callable[..., object]] = {
            "track": self.track,
            "add": self.add,
            "stream": self.stream,
            "finish": self.finish,
            "exit": self.exit,
        }

    def obey(self, order: dict[str, Any]) -> None:
        say(self._verbs[order.pop("do")](**order))

    def track(
        self,
        first: int,
        count: int,
        *,
        threads: int = 1,
        properties: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Answer the numbers that `track()` took."""

        def track_one(number: int) -> bool:
            return self._track(number, **(properties or {}))

        return _each(track_one, range(first, first + count), threads)

    def add(self, first: int, count: int, *, threads: int = 1) -> list[int]:
        def add_one(number: int) -> bool:
            person = self._analytics.visitor(user_id=f"user-{number}", consent=True)
            person.people.increment({"count": 1})
            return True

        return _each(add_one, range(first, first + count), threads)

    def stream(self, first: int, *, pause: float) -> NoReturn:
        """Say number and time (ns, monotonic) of each event right after `track()` returned."""
        number = first
        while True:
            self._track(number)
            # Not print: what is written here has left the process when it is killed.
            os.write(1, f"{number} {time.monotonic_ns()}\n".encode())
            number += 1
            time.sleep(pause)

    def finish(self, seconds: float) -> dict[str, Any]:
        """Flush until nothing waits; answer what was counted and what is dead."""
        deadline = time.monotonic() + seconds
        self._analytics.start()  # adopts what ended processes have left
        while self._is_waiting() and time.monotonic() < deadline:
            self._analytics.flush(FLUSH_SECONDS)
        return self._report()

    def _is_waiting(self) -> bool:
        try:
            return bool(self._analytics.stats().waiting)
        except OutboxUnavailable:  # Redis has not answered this process yet
            time.sleep(0.1)
            return True

    def exit(self) -> NoReturn:
        sys.exit()

    def _track(self, number: int, **properties: object) -> bool:
        visitor = self._analytics.visitor(device_id=f"device-{number}", consent=True)
        return visitor.track(EVENT, {"number": number, **properties}) is not None

    def _report(self) -> dict[str, Any]:
        stats = self._analytics.stats()
        letters = self._analytics.dead()
        return {
            "waiting": stats.waiting,
            "dropped": dict(stats.dropped),
            "other": dict(stats.other),
            "dead": [[json.loads(letter.message.body), letter.reason] for letter in letters],
        }


def say(answer: object) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def _each(act: Callable[[int], bool], numbers: range, threads: int) -> list[int]:
    if threads == 1:
        return [number for number in numbers if act(number)]
    with ThreadPoolExecutor(threads) as pool:
        taken = pool.map(act, numbers)
        return [number for number, is_taken in zip(numbers, taken, strict=True) if is_taken]


def break_resolver(path: Path) -> None:
    """Let no name resolve in this process while a file is there.

    To take a real resolver away needs root and a network of its own; what the product sees of it is
    this exception.
    """
    resolve = socket.getaddrinfo

    def getaddrinfo(*arguments: Any, **named: Any) -> Any:
        if path.exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(*arguments, **named)

    socket.getaddrinfo = getaddrinfo


def make_analytics() -> Analytics:
    if READ_SECONDS not in os.environ:
        return Analytics()
    seconds = float(os.environ[READ_SECONDS])
    analytics: Analytics
    analytics = Analytics(transport=lambda: HTTPTransport(analytics.settings, read_seconds=seconds))
    return analytics


def _orders() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


if __name__ == "__main__":
    if RESOLVER in os.environ:
        break_resolver(Path(os.environ[RESOLVER]))
    if FILE_BYTES in os.environ:
        most = int(os.environ[FILE_BYTES])
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    producer = Producer(make_analytics())
    say("ready")
    with contextlib.suppress(KeyboardInterrupt):
        for order in _orders():
            producer.obey(order)
