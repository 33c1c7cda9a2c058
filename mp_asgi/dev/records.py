"""Keep what the stand-in received, kept and refused; let other threads read and wait."""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Received:
    """One request, with the answer it got.

    Attributes:
        headers: Names in lower case, in the order of the wire, repetitions included.
        body: The bytes of the wire, still packed.
        messages: What they decode to; empty if they do not.
        fault: The misbehaviour that answered it; empty if none did.
    """

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    messages: tuple[Any, ...]
    status: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One message that counts."""

    number: int
    received_at: float
    path: str
    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """One message that does not count, and why.

    Attributes:
        is_silent: Whether the answer said that it counts, as Mixpanel does for old events.
    """

    number: int
    received_at: float
    path: str
    message: Any
    field: str
    reason: str
    is_silent: bool = False


class Records:
    """Everything since the last reset, in order of arrival. Safe to read from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: list[Received] = []
        self._accepted: list[Accepted] = []
        self._rejected: list[Rejected] = []
        self._number = 0
        self._run = 0

    @property
    def requests(self) -> list[Received]:
        """A copy of the requests."""
        with self._changed:
            return list(self._requests)

    @property
    def rejected(self) -> list[Rejected]:
        """A copy of the messages that do not count."""
        with self._changed:
            return list(self._rejected)

    def accepted(self, *paths: str) -> list[dict[str, Any]]:
        """Answer the messages that count, as they were sent to any of these paths."""
        with self._changed:
            return [dict(item.message) for item in self._accepted if item.path in paths]

    def since(self, number: int, run: int) -> tuple[int, list[Accepted | Rejected]]:
        """Answer the run, and what came after `number` in it; everything if it is another run."""
        with self._changed:
            after = number if run == self._run else 0
            items: list[Accepted | Rejected] = [*self._accepted, *self._rejected]
            news = (item for item in items if item.number > after)
            return self._run, sorted(news, key=lambda item: item.number)

    def add(
        self,
        request: Received,
        accepted: list[Mapping[str, Any]],
        rejected: list[tuple[Any, str, str, bool]],
        *,
        now: float,
    ) -> None:
        """Take in one request with all it brought, and wake who waits."""
        with self._changed:
            self._requests.append(request)
            for message in accepted:
                self._number += 1
                self._accepted.append(Accepted(self._number, now, request.path, message))
            for refused in rejected:
                self._number += 1
                self._rejected.append(Rejected(self._number, now, request.path, *refused))
            self._changed.notify_all()

    def remove(self, distinct_ids: Collection[str]) -> None:
        """Forget the events and profiles of these people, and start another run."""
        gone = frozenset(distinct_ids)
        with self._changed:
            self._accepted = [
                item for item in self._accepted if find_distinct_id(item.message) not in gone
            ]
            self._run += 1
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget everything, and start another run."""
        with self._changed:
            self._requests.clear()
            self._accepted.clear()
            self._rejected.clear()
            self._number = 0
            self._run += 1
            self._changed.notify_all()

    def wait_until(self, is_reached: Callable[[], bool], timeout: float) -> bool:
        """Sleep until the condition holds. Return whether it came in time."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not is_reached():
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return is_reached()
            return True


def find_distinct_id(message: Mapping[str, Any]) -> str:
    """Answer whom an event or a profile update is about; empty for a group."""
    values = message.get("properties") or message
    names = ("distinct_id", "$user_id", "$device_id", "$distinct_id")  # as Simplified derives it
    return str(next((values[name] for name in names if values.get(name)), ""))
