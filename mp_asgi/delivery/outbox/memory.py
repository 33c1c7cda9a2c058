"""Keep the outbox in memory: what waits is gone when the process is."""

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

from mp_asgi.events import Endpoint, Entry
from mp_asgi.settings import Settings

from .base import AWAITS_ALIASES, Backlog, DeadLetter, Leased, OutboxStats, PutResult, Refusal

MAX_DEAD_LETTERS: Final = 10_000  # memory must stay bounded; the oldest are given up
MAX_STOP_MARKS: Final = 100_000  # a stop has already removed what waits; its mark guards latecomers


@dataclass(slots=True)
class _Waiting:
    """An entry in its place, with the lease or the delay that holds it."""

    id: int
    entry: Entry
    put_at: float
    attempts: int = 0
    held_until: float = -math.inf

    @property
    def keys(self) -> set[bytes]:
        return {self.entry.device_key, self.entry.user_key} - {b""}

    @property
    def is_alias(self) -> bool:
        # An empty key is everybody without a user ID; they wait for nobody.
        return self.entry.endpoint is Endpoint.ALIASES and bool(self.entry.user_key)


class _Line:
    """The entries of one endpoint in order, with their totals."""

    def __init__(self) -> None:
        self.entries: OrderedDict[int, _Waiting] = OrderedDict()
        self.messages = 0
        self.size_bytes = 0

    def add(self, waiting: _Waiting) -> None:
        self.entries[waiting.id] = waiting
        self.messages += len(waiting.entry.messages)
        self.size_bytes += waiting.entry.size_bytes

    def remove(self, waiting: _Waiting) -> None:
        del self.entries[waiting.id]
        self.messages -= len(waiting.entry.messages)
        self.size_bytes -= waiting.entry.size_bytes

    def first(self) -> _Waiting | None:
        return next(iter(self.entries.values()), None)

    def replace(self, waiting: _Waiting, halves: Sequence[_Waiting]) -> None:
        """Put `halves` in the place of `waiting`. What is split stands near the front."""
        before = list(takewhile(lambda key: key != waiting.id, self.entries))
        self.remove(waiting)
        for half in halves:
            self.add(half)
        for key in reversed([*before, *(half.id for half in halves)]):
            self.entries.move_to_end(key, last=False)

    def merge(self, entries: Sequence[_Waiting]) -> None:
        """Put entries in their places. What waited for an alias stands near the end."""
        first_id = min((waiting.id for waiting in entries), default=math.inf)
        behind = list(takewhile(lambda key: key > first_id, reversed(self.entries)))
        for waiting in entries:
            self.add(waiting)
        for key in sorted([*behind, *(waiting.id for waiting in entries)]):
            self.entries.move_to_end(key)


class MemoryOutbox:
    """The `Outbox` of one process, behind one lock.

    Args:
        settings: Bounds the messages and bytes that wait and says how long stop marks hold.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._lines = {endpoint: _Line() for endpoint in Endpoint}
        self._aside = _Line()  # what waits for aliases, of all endpoints
        self._all_lines = (*self._lines.values(), self._aside)
        self._by_key: dict[bytes, dict[int, _Waiting]] = {}
        self._aliases: dict[bytes, set[int]] = {}  # ids by user key
        self._marks: OrderedDict[bytes, float] = OrderedDict()
        self._forgotten_until = -math.inf  # of the newest mark that had to go
        self._dead: deque[DeadLetter] = deque(maxlen=MAX_DEAD_LETTERS)
        self._next_id = 0

    def put(self, entries: Sequence[Entry], now: float) -> PutResult:
        """Accept entries, each as a whole, in order."""
        stored = stopped = overflowed = 0
        with self._lock:
            for entry in entries:
                count = len(entry.messages)
                if self._is_stopped(entry):
                    stopped += count
                elif not entry.is_identity and self._is_full_for(entry):
                    overflowed += count
                else:
                    self._add(_Waiting(self._next_id, entry, now))
                    self._next_id += count
                    stored += count
            # After the entries: a mark that came with them holds for them, however old it is.
            self._prune_marks(now)
        return PutResult(stored, stopped, overflowed)

    def backlog(self, endpoint: Endpoint, now: float) -> Backlog:
        """Answer what could be leased now; what is held behind the first entry is included."""
        with self._lock:
            line = self._lines[endpoint]
            first = line.first()
            if first is None or first.held_until > now:
                return Backlog(0, 0, now)
            return Backlog(line.messages, line.size_bytes, first.put_at)

    def lease(
        self, endpoint: Endpoint, now: float, *, max_messages: int, max_bytes: int, seconds: float
    ) -> list[Leased]:
        """Take whole entries, oldest first, for `seconds`; after that they return."""
        leased: list[Leased] = []
        with self._lock:
            for waiting in self._lines[endpoint].entries.values():
                entry = waiting.entry
                max_messages -= len(entry.messages)
                max_bytes -= entry.size_bytes
                is_too_much = max_messages < 0 or max_bytes < 0 or not entry.is_repeatable
                if waiting.held_until > now or (leased and is_too_much):
                    break
                waiting.held_until = now + seconds
                leased.append(Leased(waiting.id, entry, waiting.attempts, waiting.put_at))
                if not entry.is_repeatable:
                    break
        return leased

    def ack(self, ids: Sequence[int]) -> int:
        """Remove delivered entries. Return how many messages that settled."""
        with self._lock:
            return sum(self._remove(waiting) for waiting in self._find_all(ids))

    def release(self, ids: Sequence[int], not_before: float) -> None:
        """Give entries back where they stood and count an attempt."""
        with self._lock:
            for waiting in self._find_all(ids):
                waiting.attempts += 1
                waiting.held_until = not_before

    def split(self, id: int) -> None:  # noqa: A002  # the word of the contract
        """Put two entries, each with half of the messages and ready, in one entry's place."""
        with self._lock:
            waiting = self._find(id)
            if waiting is None or len(waiting.entry.messages) < 2:  # noqa: PLR2004
                return
            messages = waiting.entry.messages
            middle = len(messages) // 2
            halves = [
                replace(
                    waiting,
                    id=waiting.id + start,
                    entry=replace(waiting.entry, messages=part),
                    held_until=-math.inf,
                )
                for start, part in ((0, messages[:middle]), (middle, messages[middle:]))
            ]
            self._line_of(waiting).replace(waiting, halves)
            for half in halves:  # the first takes over the id, and the place in the index
                self._index(half)

    def bury(self, id: int, refusals: Sequence[Refusal], now: float) -> bool:  # noqa: A002
        """Turn the named messages into dead letters and remove the entry, atomically."""
        with self._lock:
            waiting = self._find(id)
            if waiting is None:
                return False
            entry = waiting.entry
            self._dead.extend(
                DeadLetter(
                    entry.endpoint,
                    entry.messages[refusal.index],
                    refusal.reason,
                    refusal.reply,
                    now,
                    entry.device_key,
                    entry.user_key,
                )
                for refusal in refusals
            )
            self._remove(waiting)
        return True

    def forget(self, keys: Collection[bytes], at: float) -> int:
        """Remove what was tracked at or before `at` under any key, and leave stop marks."""
        with self._lock:
            return self._forget(keys, at)

    def erase(self, keys: Collection[bytes], at: float) -> int:
        """Forget as `forget` does, and remove the dead letters under the keys, too."""
        erased = set(filter(None, keys))
        with self._lock:
            removed = self._forget(erased, at)
            kept = [
                item for item in self._dead if erased.isdisjoint((item.device_key, item.user_key))
            ]
            self._dead = deque(kept, maxlen=MAX_DEAD_LETTERS)
        return removed

    def dead(self) -> Sequence[DeadLetter]:
        """Answer the dead letters, oldest first."""
        with self._lock:
            return tuple(self._dead)

    def stats(self) -> OutboxStats:
        """Answer how full the outbox is."""
        with self._lock:
            firsts = [first for line in self._all_lines if (first := line.first())]
            oldest = min(firsts, key=lambda waiting: waiting.put_at, default=None)
            return OutboxStats(
                depth=sum(line.messages for line in self._all_lines),
                size_bytes=sum(line.size_bytes for line in self._all_lines),
                oldest_tracked_at=oldest.entry.tracked_at if oldest else None,
                dead=len(self._dead),
                first_id=min((waiting.id for waiting in firsts), default=self._next_id),
                next_id=self._next_id,
                behind_aliases=self._aside.messages,
            )

    def _forget(self, keys: Collection[bytes], at: float) -> int:
        removed = 0
        # An empty key is everybody without a user ID.
        for key in filter(None, keys):
            for waiting in list(self._by_key.get(key, {}).values()):
                if waiting.entry.tracked_at <= at:
                    removed += self._remove(waiting)
            self._marks[key] = max(at, self._marks.get(key, at))
            self._marks.move_to_end(key)
            if len(self._marks) > MAX_STOP_MARKS:
                _, oldest = self._marks.popitem(last=False)
                self._forgotten_until = max(self._forgotten_until, oldest)
        return removed

    def _is_stopped(self, entry: Entry) -> bool:
        marks = self._marks
        if entry.tracked_at <= self._forgotten_until:
            return True  # nobody knows any more whom that mark stopped
        return any(
            entry.tracked_at <= marks[key]
            for key in (entry.device_key, entry.user_key)
            if key in marks
        )

    def _is_full_for(self, entry: Entry) -> bool:
        lines = self._all_lines
        messages = sum(line.messages for line in lines) + len(entry.messages)
        size_bytes = sum(line.size_bytes for line in lines) + entry.size_bytes
        settings = self._settings
        return messages > settings.outbox_max_messages or size_bytes > settings.outbox_max_bytes

    def _line_of(self, waiting: _Waiting) -> _Line:
        is_aside = waiting.id in self._aside.entries
        return self._aside if is_aside else self._lines[waiting.entry.endpoint]

    def _find(self, number: int) -> _Waiting | None:
        for line in self._all_lines:
            if found := line.entries.get(number):
                return found
        return None

    def _find_all(self, ids: Sequence[int]) -> list[_Waiting]:
        return [found for number in ids if (found := self._find(number))]

    def _add(self, waiting: _Waiting) -> None:
        entry = waiting.entry
        # Whatever alias waits already came before it.
        is_aside = entry.endpoint in AWAITS_ALIASES and entry.user_key in self._aliases
        (self._aside if is_aside else self._lines[entry.endpoint]).add(waiting)
        self._index(waiting)

    def _remove(self, waiting: _Waiting) -> int:
        self._line_of(waiting).remove(waiting)
        self._unindex(waiting)
        return len(waiting.entry.messages)

    def _readmit(self, user_key: bytes) -> None:
        """Let go on what waited for the aliases of a user that are gone."""
        open_from = min(self._aliases.get(user_key, ()), default=math.inf)
        freed = [
            item
            for item in self._by_key.get(user_key, {}).values()
            if item.entry.user_key == user_key  # not a device of the same key
            and item.id < open_from
            and item.id in self._aside.entries
        ]
        for item in freed:
            self._aside.remove(item)
        for endpoint in AWAITS_ALIASES:
            self._lines[endpoint].merge([item for item in freed if item.entry.endpoint is endpoint])

    def _index(self, waiting: _Waiting) -> None:
        for key in waiting.keys:
            self._by_key.setdefault(key, {})[waiting.id] = waiting
        if waiting.is_alias:
            self._aliases.setdefault(waiting.entry.user_key, set()).add(waiting.id)

    def _unindex(self, waiting: _Waiting) -> None:
        for key in waiting.keys:
            found = self._by_key[key]
            del found[waiting.id]
            if not found:
                del self._by_key[key]
        if waiting.is_alias:
            aliases = self._aliases[waiting.entry.user_key]
            aliases.remove(waiting.id)
            if not aliases:
                del self._aliases[waiting.entry.user_key]
            self._readmit(waiting.entry.user_key)

    def _prune_marks(self, now: float) -> None:
        marks = self._marks
        oldest_kept = now - self._settings.retry_budget
        while marks and marks[next(iter(marks))] < oldest_kept:
            marks.popitem(last=False)
