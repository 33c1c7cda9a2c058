"""Keep the outbox in memory: what waits is gone when the process is."""

import math
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice, takewhile

from mp_asgi.events import Endpoint, Entry
from mp_asgi.settings import Settings

from .base import (
    AWAITS_ALIASES,
    KEEPS_ORDER,
    MAX_DEAD_LETTERS,
    MAX_STOP_MARKS,
    Backlog,
    Counts,
    DeadLetter,
    Horizon,
    Leased,
    OutboxStats,
    PutResult,
    Refusal,
    Ticket,
    fill,
)
from .line import Line, Waiting
from .stopping import CLOCK_SECONDS, find_oldest, is_ended


class MemoryOutbox:
    """The `Outbox` of one process, behind one lock.

    Args:
        settings: Bounds the messages and bytes that wait and says how long stop marks hold.
    """

    is_shared = False
    is_durable = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._lines = {endpoint: Line() for endpoint in Endpoint}
        self._aside = Line()  # what waits for aliases, of all endpoints
        self._all_lines = (*self._lines.values(), self._aside)
        self._by_key: dict[bytes, dict[int, Waiting]] = {}
        self._aliases: dict[bytes, set[int]] = {}  # ids by user key
        self._marks: OrderedDict[bytes, float] = OrderedDict()
        self._newest_mark = -math.inf
        self._forgotten_until = -math.inf  # of the newest mark that had to go
        self._dead: deque[DeadLetter] = deque()
        self._dead_bytes = 0
        self._letters = 0  # dead letters that there ever were
        self._next_id = 0
        self._tickets: dict[str, int] = {}
        self._totals: Counter[tuple[str, str]] = Counter()

    def put(self, entries: Sequence[Entry], now: float, ticket: Ticket | None = None) -> PutResult:
        """Accept entries, each as a whole, in order."""
        stored = stopped = overflowed = too_old = 0
        oldest = find_oldest(self._settings.outbox_max_age, now, ticket)
        with self._lock:
            if ticket is not None and self._has_seen(ticket):
                return PutResult(0, 0, 0)
            self._correct_clock(now)
            for entry in entries:
                count = len(entry.messages)
                if self._is_stopped(entry, now):
                    stopped += count
                elif entry.tracked_at < oldest:
                    too_old += count
                elif not entry.is_identity and self._is_full_for(entry):
                    overflowed += count
                else:
                    self._add(Waiting(self._next_id, entry, now))
                    self._next_id += count
                    stored += count
            result = PutResult(stored, stopped, overflowed, too_old)
            self._totals["accepted", ""] += result.accepted
            self._totals["dropped", "stopped"] += stopped
            self._totals["dropped", "too_old"] += too_old
            self._totals["dropped", "overflow"] += overflowed
        return result

    def backlog(self, endpoint: Endpoint, now: float) -> Backlog:
        """Answer what could be leased now; what is held behind the first entry is included."""
        with self._lock:
            return self._lines[endpoint].backlog(now, keeps_order=endpoint in KEEPS_ORDER)

    def lease(
        self, endpoint: Endpoint, now: float, *, max_messages: int, max_bytes: int, seconds: float
    ) -> list[Leased]:
        """Take whole entries, oldest first, for `seconds`; after that they return."""
        with self._lock:
            line = self._lines[endpoint]
            ready = line.queue(now, keeps_order=endpoint in KEEPS_ORDER)
            taken = fill((waiting.to_leased() for waiting in ready), max_messages, max_bytes)
            for leased in taken:
                line.hold(line.entries[leased.id], now + seconds, seconds)
        return taken

    def ack(self, ids: Sequence[int]) -> int:
        """Remove delivered entries. Return how many messages that settled."""
        with self._lock:
            return self._count(self._find_all(ids), "delivered")

    def drop(self, ids: Sequence[int], reason: str) -> int:
        """Remove entries that may not leave. Return how many messages."""
        with self._lock:
            return self._count(self._find_all(ids), "dropped", reason)

    def release(self, ids: Sequence[int], not_before: float) -> None:
        """Give entries back where they stood and count an attempt."""
        with self._lock:
            for waiting in self._find_all(ids):
                waiting.attempts += 1
                self._line_of(waiting).hold(waiting, not_before)

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
                    lease_seconds=0.0,
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
            for refusal in refusals:
                self._letters += 1
                letter = DeadLetter.of(waiting.entry, refusal, now, self._letters)
                self._dead.append(letter)
                self._dead_bytes += letter.size_bytes
                self._totals["buried", refusal.reason] += 1
            self._bound_letters()
            self._totals["delivered", ""] += len(waiting.entry.messages) - len(refusals)
            self._remove(waiting)
        return True

    def forget(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Remove what a stop at `at` ends under any key, and leave stop marks."""
        with self._lock:
            # What was buried later would be kept for longer than the mark.
            self._forget_letters(keys, at, now, buried_after=at)
            return self._forget(keys, at, now, "stopped")

    def erase(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Forget as `forget` does, and remove such dead letters under the keys, too."""
        with self._lock:
            self._forget_letters(keys, at, now)
            return self._forget(keys, at, now, "erased")

    def dead(self, after: int = 0, limit: int = MAX_DEAD_LETTERS) -> Sequence[DeadLetter]:
        """Answer dead letters with a greater id than `after`, oldest first, at most `limit`."""
        with self._lock:
            return tuple(islice((item for item in self._dead if item.id > after), limit))

    def replay(self, ids: Collection[int], now: float) -> int:
        """Put dead letters back at the end, to be sent again."""
        wanted = frozenset(ids)
        with self._lock:
            entries = {
                item.id: entry
                for item in self._dead
                if item.id in wanted and not self._is_stopped(entry := item.to_entry(), now)
            }
            self._remove_letters(entries)
            for entry in entries.values():
                self._add(Waiting(self._next_id, entry, now))
                self._next_id += 1
            self._totals["replayed", ""] += len(entries)
        return len(entries)

    def purge(self, ids: Collection[int]) -> int:
        """Delete dead letters. Return how many."""
        with self._lock:
            return self._remove_letters(frozenset(ids))

    def expire(self, now: float) -> int:
        """Give up what is older than `outbox_max_age`; dead letters of that age are deleted."""
        oldest_kept = now - self._settings.outbox_max_age
        with self._lock:
            old = [
                waiting
                for line in self._all_lines
                # What a clock that was ahead put keeps nothing behind it from expiring.
                for waiting in takewhile(
                    lambda waiting: not oldest_kept <= waiting.put_at <= now, line.entries.values()
                )
                if waiting.put_at <= now
            ]
            self._remove_letters({item.id for item in self._dead if item.buried_at < oldest_kept})
            self._correct_clock(now)
            # Behind the letters: no mark goes before a letter that it holds back.
            self._prune_marks(oldest_kept)
            return self._count(old, "dropped", "too_old")

    def tally(self, counts: Counts) -> None:
        """Add what a process counted besides to the totals."""
        with self._lock:
            self._totals.update(counts)

    def horizon(self) -> Horizon:
        """Answer this moment, for `is_past`."""
        with self._lock:
            return (self._next_id,)

    def is_past(self, horizon: Horizon) -> bool:
        """Answer whether nothing waits that was put before that moment."""
        with self._lock:
            firsts = [first.id for line in self._all_lines if (first := line.first())]
        return all(number >= horizon[0] for number in firsts)

    def stats(self) -> OutboxStats:
        """Answer how full the outbox is."""
        with self._lock:
            firsts = [first for line in self._all_lines if (first := line.first())]
            oldest = min(firsts, key=lambda waiting: waiting.put_at, default=None)
            return OutboxStats(
                depth=sum(line.messages for line in self._all_lines),
                size_bytes=sum(line.size_bytes for line in self._all_lines),
                oldest_put_at=oldest.put_at if oldest else None,
                dead=len(self._dead),
                dead_bytes=self._dead_bytes,
                behind_aliases=self._aside.messages,
                leased=sum(
                    len(waiting.entry.messages)
                    for line in self._all_lines
                    for waiting in line.held.values()
                    if waiting.lease_seconds
                ),
                totals={key: number for key, number in self._totals.items() if number},
            )

    def close(self) -> None:
        """Do nothing: what waits stays."""

    def _has_seen(self, ticket: Ticket) -> bool:
        if ticket.number <= self._tickets.get(ticket.source, -1):
            return True
        self._tickets[ticket.source] = ticket.number
        return False

    def _count(self, removed: Sequence[Waiting], name: str, reason: str = "") -> int:
        messages = sum(map(self._remove, removed))
        self._totals[name, reason] += messages
        return messages

    def _remove_letters(self, ids: Collection[int]) -> int:
        kept = [item for item in self._dead if item.id not in ids]
        removed = len(self._dead) - len(kept)
        self._dead = deque(kept)
        self._dead_bytes = sum(item.size_bytes for item in kept)
        return removed

    def _bound_letters(self) -> None:
        most_bytes = self._settings.outbox_max_bytes
        while len(self._dead) > MAX_DEAD_LETTERS or self._dead_bytes > most_bytes:
            self._dead_bytes -= self._dead.popleft().size_bytes
            self._totals["letters_lost", ""] += 1

    def _forget(self, keys: Collection[bytes], at: float, now: float, reason: str) -> int:
        removed = 0
        self._newest_mark = max(self._newest_mark, at)
        # An empty key is everybody without a user ID.
        for key in filter(None, keys):
            found = list(self._by_key.get(key, {}).values())
            stopped = [item for item in found if is_ended(item.entry.tracked_at, at, now)]
            removed += self._count(stopped, "dropped", reason)
            self._marks[key] = max(at, self._marks.get(key, at))
            self._marks.move_to_end(key)
            if len(self._marks) > MAX_STOP_MARKS:
                _, oldest = self._marks.popitem(last=False)
                self._forgotten_until = max(self._forgotten_until, oldest)
        return removed

    def _forget_letters(
        self, keys: Collection[bytes], at: float, now: float, buried_after: float = -math.inf
    ) -> None:
        forgotten = set(filter(None, keys))
        self._remove_letters(
            {
                item.id
                for item in self._dead
                if item.buried_at > buried_after
                and not forgotten.isdisjoint((item.device_key, item.user_key))
                and is_ended(item.tracked_at, at, now)
            }
        )

    def _correct_clock(self, now: float) -> None:
        """Stop nothing of what is tracked from now on: a clock that was ahead may have said so."""
        latest = now + CLOCK_SECONDS
        if self._newest_mark > latest:
            self._marks.update((key, now) for key, at in self._marks.items() if at > latest)
            self._forgotten_until = min(self._forgotten_until, now)
            self._newest_mark = latest

    def _is_stopped(self, entry: Entry, now: float) -> bool:
        marks = self._marks
        if entry.tracked_at <= self._forgotten_until:
            return True  # nobody knows any more whom that mark stopped
        return any(
            is_ended(entry.tracked_at, marks[key], now)
            for key in (entry.device_key, entry.user_key)
            if key in marks
        )

    def _is_full_for(self, entry: Entry) -> bool:
        lines = self._all_lines
        messages = sum(line.messages for line in lines) + len(entry.messages)
        size_bytes = sum(line.size_bytes for line in lines) + entry.size_bytes
        settings = self._settings
        return messages > settings.outbox_max_messages or size_bytes > settings.outbox_max_bytes

    def _line_of(self, waiting: Waiting) -> Line:
        is_aside = waiting.id in self._aside.entries
        return self._aside if is_aside else self._lines[waiting.entry.endpoint]

    def _find(self, number: int) -> Waiting | None:
        for line in self._all_lines:
            if found := line.entries.get(number):
                return found
        return None

    def _find_all(self, ids: Sequence[int]) -> list[Waiting]:
        return [found for number in ids if (found := self._find(number))]

    def _add(self, waiting: Waiting) -> None:
        entry = waiting.entry
        # Whatever alias waits already came before it.
        is_aside = entry.endpoint in AWAITS_ALIASES and entry.user_key in self._aliases
        (self._aside if is_aside else self._lines[entry.endpoint]).add(waiting)
        self._index(waiting)

    def _remove(self, waiting: Waiting) -> int:
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

    def _index(self, waiting: Waiting) -> None:
        for key in waiting.keys:
            self._by_key.setdefault(key, {})[waiting.id] = waiting
        if waiting.is_alias:
            self._aliases.setdefault(waiting.entry.user_key, set()).add(waiting.id)

    def _unindex(self, waiting: Waiting) -> None:
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

    def _prune_marks(self, oldest_kept: float) -> None:
        marks = self._marks
        while marks and marks[next(iter(marks))] < oldest_kept:
            marks.popitem(last=False)
