"""Keep entries in order in memory, with their sums and with what holds each of them."""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from mp_asgi.events import Endpoint, Entry

from .base import Backlog, Leased


@dataclass(slots=True)
class Waiting:
    """An entry in its place, with the lease or the delay that holds it.

    Attributes:
        id: Of its first message.
        entry: What waits.
        put_at: When it was put, in seconds since the epoch.
        attempts: How often it was released.
        held_until: Until when nobody else takes it.
        lease_seconds: Of the lease that holds it; 0 under none.
    """

    id: int
    entry: Entry
    put_at: float
    attempts: int = 0
    held_until: float = -math.inf
    lease_seconds: float = 0.0

    def is_held(self, now: float) -> bool:
        """Answer whether a lease or a delay holds it still."""
        if self.held_until <= now:
            return False
        # A lease that lasts longer than it may was made before the clock was set back.
        return not self.lease_seconds or self.held_until <= now + 2 * self.lease_seconds

    def to_leased(self) -> Leased:
        """Answer what whoever leases it gets."""
        return Leased(self.id, self.entry, self.attempts, self.put_at, self.lease_seconds > 0)

    @property
    def keys(self) -> set[bytes]:
        """The visitor's keys under which it is forgotten."""
        return {self.entry.device_key, self.entry.user_key} - {b""}

    @property
    def is_alias(self) -> bool:
        """Whether anybody may wait for it."""
        # An empty key is everybody without a user ID; they wait for nobody.
        return self.entry.endpoint is Endpoint.ALIASES and bool(self.entry.user_key)


class Line:
    """The entries of one endpoint in order.

    Attributes:
        entries: By id.
        held: Those that were leased or held back, perhaps no longer.
        messages: How many the entries have.
        size_bytes: Bytes that they take.
    """

    def __init__(self) -> None:
        self.entries: OrderedDict[int, Waiting] = OrderedDict()
        self.held: dict[int, Waiting] = {}
        self.messages = 0
        self.size_bytes = 0

    def queue(self, now: float, *, keeps_order: bool) -> Iterator[Waiting]:
        """Answer what a lease could take, oldest first."""
        for waiting in self.entries.values():
            if not waiting.is_held(now):
                yield waiting
            elif keeps_order:
                return

    def backlog(self, now: float, *, keeps_order: bool) -> Backlog:
        """Answer how much of it there is."""
        first = next(self.queue(now, keeps_order=keeps_order), None)
        if first is None:
            return Backlog(0, 0, now)
        held = [waiting for waiting in self.held.values() if waiting.is_held(now)]
        return Backlog(
            self.messages - sum(len(waiting.entry.messages) for waiting in held),
            self.size_bytes - sum(waiting.entry.size_bytes for waiting in held),
            first.put_at,
        )

    def hold(self, waiting: Waiting, until: float, lease_seconds: float = 0.0) -> None:
        """Let nobody take an entry until then: under a lease, or without one as a delay."""
        waiting.held_until, waiting.lease_seconds = until, lease_seconds
        self.held[waiting.id] = waiting

    def add(self, waiting: Waiting) -> None:
        """Put an entry at the end."""
        self.entries[waiting.id] = waiting
        self.messages += len(waiting.entry.messages)
        self.size_bytes += waiting.entry.size_bytes

    def remove(self, waiting: Waiting) -> None:
        """Take an entry out."""
        del self.entries[waiting.id]
        self.held.pop(waiting.id, None)
        self.messages -= len(waiting.entry.messages)
        self.size_bytes -= waiting.entry.size_bytes

    def first(self) -> Waiting | None:
        """Answer the oldest entry, held or not."""
        return next(iter(self.entries.values()), None)

    def replace(self, waiting: Waiting, halves: Sequence[Waiting]) -> None:
        """Put `halves` in the place of `waiting`. What is split stands near the front."""
        before = list(takewhile(lambda key: key != waiting.id, self.entries))
        self.remove(waiting)
        for half in halves:
            self.add(half)
        for key in reversed([*before, *(half.id for half in halves)]):
            self.entries.move_to_end(key, last=False)

    def merge(self, entries: Sequence[Waiting]) -> None:
        """Put entries in their places. What waited for an alias stands near the end."""
        first_id = min((waiting.id for waiting in entries), default=math.inf)
        behind = list(takewhile(lambda key: key > first_id, reversed(self.entries)))
        for waiting in entries:
            self.add(waiting)
        for key in sorted([*behind, *(waiting.id for waiting in entries)]):
            self.entries.move_to_end(key)
