"""Put into an outbox that all hosts share; while it fails, into a spool of this host.

What a web process uses: it hands in and sends nothing. Once something is in the spool, everything
goes there until all of it was handed over, so that order stays.
"""

import math
import random as random_module
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from mp_asgi.delivery.lanes import remaining
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import MAX_BATCH_BYTES, Endpoint, Entry

from .base import (
    MAX_DEAD_LETTERS,
    Backlog,
    Counts,
    DeadLetter,
    Horizon,
    Leased,
    Outbox,
    OutboxStats,
    PutResult,
    Refusal,
    Ticket,
)
from .labels import Kind, Label, OwedStop, owe_counts, owe_stop, read_counts, read_stop
from .reach import Reach, render_failure
from .redis import HandIn, RedisOutbox
from .standby import Standby

POLL_SECONDS: Final = 5.0  # between two looks for what another process has left in the spool
HAND_OVER_MESSAGES: Final = 500  # in one call, which no other client of the server waits for long
HAND_OVER_SECONDS: Final = 60.0  # of a lease that ends within seconds
OWED_SECONDS: Final = 1.0  # between two tries while a stop is owed: meanwhile a drainer sends
PUT_ENTRIES: Final = 500  # in one call; a few milliseconds of the server

_HANDED_OVER: Final = "handed_over"
_CLEARED: Final = "cleared"  # handed over, too, but what was in doubt, or is no message
_DOUBTFUL: Final = ("doubtful", "")  # messages in the spool that are perhaps counted elsewhere, too


class Spooled:
    """The `Outbox` of a web process: a shared one, and a spool while that does not answer.

    A put whose answer was lost goes to the spool together with its ticket: it is handed over only
    if it was not done. Stops that the shared outbox could not take, and counts of which nobody
    knows whether it has them, are owed to it, in the spool, too; whoever empties the spool, this
    process or a later one, hands them over. What has a ticket of its own is refused instead: it has
    a place that outlives this process.

    Messages are counted where they are; what was handed over no longer counts as the spool's. What
    is in doubt counts once it is handed over, so that what is `accepted` never falls.

    Args:
        primary: Where everything should be.
        spool: Where it is while the primary fails.
        clock: Answers seconds since the epoch.
        random: Answers a number in [0, 1) for jitter.

    Attributes:
        is_durable: Whether what is put now survives the process.
    """

    is_shared = True

    def __init__(
        self,
        primary: RedisOutbox,
        spool: Outbox,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.is_durable = spool.is_durable
        self._primary = primary
        self._reach = Reach(primary, clock=clock, random=random, on_failure=self._count_failure)
        self._spool = spool
        self._clock = clock
        self._lock = threading.Lock()
        self._source = secrets.token_hex(8)
        self._number = 0
        self._tried_at = -math.inf  # when something was last handed over, or not
        # Of the primary, when it last said, and how much the spool had handed over by then.
        self._seen: tuple[OutboxStats, int] | None = None

    def put(self, entries: Sequence[Entry], now: float, ticket: Ticket | None = None) -> PutResult:
        """Accept entries, each as a whole, in order."""
        with self._lock:
            if ticket is None:
                parts = range(0, len(entries), PUT_ENTRIES)
                results = (self._put(entries[at : at + PUT_ENTRIES], now) for at in parts)
                return sum(results, PutResult(0, 0, 0))
            if self._spool.stats().depth:
                raise OutboxUnavailable("What was put before waits in the spool still.")
            return self._reach.ask(lambda primary: primary.put(entries, now, ticket))

    def forward(self, now: float) -> float:
        """Hand over a part of what the spool has. Return how many seconds to wait before the next.

        Raises:
            OutboxUnavailable: The spool failed.
        """
        stats = self._spool.stats()
        if not stats.depth:
            if stale := stats.totals.get(_DOUBTFUL, 0):  # of what a stop has removed, for example
                self._spool.tally({_DOUBTFUL: -stale})
            return POLL_SECONDS
        if pause := self._pause(now):
            return pause
        self._tried_at = self._clock()
        try:
            # Before the lease, so that it ends after it: whoever is frozen meanwhile is too late.
            ends_at = self._reach.insist(lambda primary: primary.server_time()) + HAND_OVER_SECONDS
        except OutboxUnavailable:
            return 0.0
        taken = self._take(now)
        if not taken:
            return POLL_SECONDS
        ids = [item.id for item in taken]
        try:
            labels = self._hand_over(taken, now, ends_at)
            if labels is not None:  # otherwise what was taken is another's by now
                self._let_go(taken, labels, now)
        except OutboxUnavailable:
            self._spool.release(ids, now)
        return 0.0

    @property
    def trouble(self) -> str:
        """What the shared outbox suffers from, in a sentence; empty while it answers."""
        return render_failure(self._reach.trouble) if self._reach.trouble else ""

    def spooled(self) -> int:
        """Answer how many messages wait on this host to be handed over, owed stops included."""
        return self._spool.stats().depth

    def held(self) -> OutboxStats:
        """Answer how full is what ends with this process."""
        spool = self._spool
        return spool.held() if isinstance(spool, Standby) else spool.stats()

    def forget(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Remove what a stop at `at` ends under any key, and leave stop marks."""
        return self._stop(OwedStop(Kind.STOP, tuple(keys), at), now)

    def erase(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Forget as `forget` does, and remove such dead letters under the keys, too.

        Raises:
            OutboxUnavailable: The shared outbox still has them, or the spool. What the shared one
                did not hear it is owed.
        """
        return self._stop(OwedStop(Kind.ERASURE, tuple(keys), at), now)

    def horizon(self) -> Horizon:
        """Answer this moment of the spool: what the shared outbox has is handed in."""
        return self._spool.horizon()

    def is_past(self, horizon: Horizon) -> bool:
        """Answer whether everything that was put before that moment is handed in."""
        return self._spool.is_past(horizon)

    def stats(self) -> OutboxStats:
        """Answer how full both are; of a primary that fails, what it said last.

        Raises:
            OutboxUnavailable: It has never said: totals that begin at 0 again would be wrong.
        """
        try:
            fresh = self._reach.ask(lambda primary: primary.stats())
        except OutboxUnavailable:
            if self._seen is None:
                raise
            seen, spooled = self._seen, self._spool.stats()
        else:
            spooled = self._spool.stats()
            self._seen = seen = fresh, _count_handed_over(spooled)
        primary, counted = seen
        # A spool that is new, because another was damaged, counts from 0.
        return _join(primary, spooled, max(_count_handed_over(spooled) - counted, 0))

    def tally(self, counts: Counts) -> None:
        """Add what a process counted besides to the totals, of the spool if need be."""
        with self._lock:
            if self._reach.pause():
                self._spool.tally(counts)
                return
            self._number += 1
            ticket = Ticket(self._source, self._number)
            try:
                self._reach.ask(lambda primary: primary.tally(counts, ticket))
            except OutboxUnavailable:
                self._keep(Kind.TALLY, [owe_counts(counts, self._source)], self._clock())

    def expire(self, now: float) -> int:
        """Give up what is older than `outbox_max_age`, in the shared outbox if it answers."""
        removed = self._spool.expire(now)
        with suppress(OutboxUnavailable):
            removed += self._reach.ask(lambda primary: primary.expire(now))
        return removed

    def close(self) -> None:
        """Let go of files and connections; a later call opens them again."""
        self._primary.close()
        self._spool.close()

    def backlog(self, endpoint: Endpoint, now: float) -> Backlog:
        """Answer what could be leased from the shared outbox now."""
        return self._reach.ask(lambda primary: primary.backlog(endpoint, now))

    def lease(
        self, endpoint: Endpoint, now: float, *, max_messages: int, max_bytes: int, seconds: float
    ) -> list[Leased]:
        """Take whole entries of the shared outbox for `seconds`."""
        return self._reach.ask(
            lambda primary: primary.lease(
                endpoint, now, max_messages=max_messages, max_bytes=max_bytes, seconds=seconds
            )
        )

    def ack(self, ids: Sequence[int]) -> int:
        """Remove delivered entries. Return how many messages that settled."""
        return self._reach.ask(lambda primary: primary.ack(ids))

    def drop(self, ids: Sequence[int], reason: str) -> int:
        """Remove entries that may not leave. Return how many messages."""
        return self._reach.ask(lambda primary: primary.drop(ids, reason))

    def release(self, ids: Sequence[int], not_before: float) -> None:
        """Give entries back where they stood and count an attempt."""
        self._reach.ask(lambda primary: primary.release(ids, not_before))

    def split(self, id: int) -> None:  # noqa: A002  # the word of the contract
        """Put two entries, each with half of the messages and ready, in one entry's place."""
        self._reach.ask(lambda primary: primary.split(id))

    def bury(self, id: int, refusals: Sequence[Refusal], now: float) -> bool:  # noqa: A002
        """Turn the named messages into dead letters and remove the entry, atomically."""
        return self._reach.ask(lambda primary: primary.bury(id, refusals, now))

    def dead(self, after: int = 0, limit: int = MAX_DEAD_LETTERS) -> Sequence[DeadLetter]:
        """Answer the shared dead letters with a greater id than `after`, oldest first."""
        return self._reach.ask(lambda primary: primary.dead(after, limit))

    def replay(self, ids: Collection[int], now: float) -> int:
        """Put dead letters back at the end, to be sent again."""
        return self._reach.ask(lambda primary: primary.replay(ids, now))

    def purge(self, ids: Collection[int]) -> int:
        """Delete dead letters. Return how many."""
        return self._reach.ask(lambda primary: primary.purge(ids))

    def _put(self, entries: Sequence[Entry], now: float) -> PutResult:
        self._number += 1
        if self._spool.stats().depth:
            return self._keep(Kind.SURE, entries, now)
        ticket = Ticket(self._source, self._number)
        try:
            return self._reach.ask(lambda primary: primary.put(entries, now, ticket))
        except OutboxUnavailable:
            return self._keep(Kind.DOUBTFUL, entries, now)

    def _keep(self, kind: Kind, entries: Sequence[Entry], now: float) -> PutResult:
        labelled = [
            Label(kind, self._source, self._number, index).put_on(entry)
            for index, entry in enumerate(entries)
        ]
        result = self._spool.put(labelled, now)
        self.is_durable = self._spool.is_durable
        if kind is not Kind.SURE:
            self._spool.tally({_DOUBTFUL: result.stored})
            # Numbers of a source tell what was done only if none comes after the doubtful one.
            self._source = secrets.token_hex(8)
        return result

    def _stop(self, stop: OwedStop, now: float) -> int:
        removed, is_owed, is_kept = 0, False, True
        with self._lock:
            try:
                # While it is left alone it is not asked here, either: whoever stores would wait for
                # each denial. What is owed is tried every second.
                removed = self._reach.ask(partial(stop.apply, now=now))
            except OutboxUnavailable:
                is_owed = True
                self._number += 1
                owed = owe_stop(stop, self._source)
                is_kept = self._keep(stop.kind, [owed], self._clock()).stored > 0
            # Behind the primary, which must hear of it though the spool fails, too.
            removed += stop.apply(self._spool, now)
            if not is_kept or (is_owed and stop.kind is Kind.ERASURE):
                raise OutboxUnavailable(self._reach.trouble)
        return removed

    def _count_failure(self) -> None:
        self._spool.tally({("outbox_failed", ""): 1})

    def _pause(self, now: float) -> float:
        """Answer for how long nothing is handed over."""
        pause = self._reach.pause()
        # Stops are among the aliases, and an alias may be tried as often.
        if pause and self._spool.backlog(Endpoint.ALIASES, now).messages:
            return min(pause, remaining(OWED_SECONDS, self._tried_at, self._clock()))
        return pause

    def _take(self, now: float) -> list[Leased]:
        # Aliases are the first of them: whom they hold back comes free when they are handed over.
        for endpoint in Endpoint:
            taken = self._spool.lease(
                endpoint,
                now,
                max_messages=HAND_OVER_MESSAGES,
                max_bytes=MAX_BATCH_BYTES,
                seconds=HAND_OVER_SECONDS,
            )
            if taken:
                return taken
        return []

    def _hand_over(
        self, taken: Sequence[Leased], now: float, ends_at: float
    ) -> Sequence[str] | None:
        """Hand over what was taken, stops first. Return its labels; None if it came too late."""
        hand_ins: list[HandIn] = []
        for item in taken:
            label, entry = Label.take_off(item.entry)
            if label.kind in {Kind.STOP, Kind.ERASURE}:
                self._reach.ask(partial(read_stop(label.kind, entry).apply, now=now))
            elif label.kind is Kind.TALLY:
                self._reach.ask(partial(_tally, read_counts(entry), label.ticket))
            else:
                doubt = label.ticket if label.kind is Kind.DOUBTFUL else None
                hand_ins.append(HandIn(label.name, entry, doubt))
        result = self._reach.ask(lambda primary: primary.take_over(hand_ins, now, ends_at))
        return None if result is None else [item.label for item in hand_ins]

    def _let_go(self, taken: Sequence[Leased], labels: Sequence[str], now: float) -> None:
        """Remove from the spool what was handed over, and then what tells so."""
        doubtful = [item for item in taken if Label.take_off(item.entry)[0].kind is not Kind.SURE]
        sure = {item.id for item in taken} - {item.id for item in doubtful}
        removed = self._spool.drop(sorted(sure), _HANDED_OVER)
        if doubtful:
            removed += self._spool.drop([item.id for item in doubtful], _CLEARED)
            self._spool.tally({_DOUBTFUL: -_count(doubtful)})
        # What the spool's disk did not remove is handed over again, perhaps by another process.
        if removed == _count(taken):
            self._reach.ask(lambda primary: primary.let_expire(labels, now))


def _join(primary: OutboxStats, spooled: OutboxStats, since: int) -> OutboxStats:
    """Answer how full both are, if so many messages came from the spool since the primary said."""
    both = primary + spooled
    totals = Counter(both.totals)
    totals.pop(_DOUBTFUL, None)
    doubtful = min(max(spooled.totals.get(_DOUBTFUL, 0), 0), spooled.depth)
    # What was handed over counts in the primary; what that has not said yet waits there.
    gone = totals.pop(("dropped", _HANDED_OVER), 0) + totals.pop(("dropped", _CLEARED), 0)
    totals["accepted", ""] -= gone - since + doubtful
    counted = {key: number for key, number in totals.items() if number}
    return replace(both, depth=both.depth - doubtful + since, totals=counted)


def _count_handed_over(spooled: OutboxStats) -> int:
    return spooled.totals.get(("dropped", _HANDED_OVER), 0)


def _count(leased: Iterable[Leased]) -> int:
    return sum(len(item.entry.messages) for item in leased)


def _tally(counts: Counts, ticket: Ticket, primary: RedisOutbox) -> None:
    primary.tally(counts, ticket)
