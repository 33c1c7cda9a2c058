"""Go on in memory while the storage fails, and hand everything over when it works again.

One state decides: whether something is owed to the storage. Nothing is put into it, and nothing
leased from it, before it has all that is owed, stops first.
"""

import random as random_module
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.lanes import Circuit
from mp_asgi.delivery.log import logger
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Endpoint, Entry

from .base import (
    MAX_DEAD_LETTERS,
    NO_STATS,
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

FIRST_RESERVE_ID: Final = 1 << 52
"""What is added to the ids of the reserve: no storage gets there, and JSON still carries it."""

MAX_OWED: Final = 100_000  # calls that are kept for the primary: stops, mostly
MAX_MOVES: Final = 100  # puts of one handing-over, so that a call never lasts for minutes

_MOVED: Final = "moved"
_MOVING_SECONDS: Final = 60.0  # of a lease that ends within the call

T = TypeVar("T")
U = TypeVar("U")
H = TypeVar("H", Leased, DeadLetter)


@dataclass(frozen=True, slots=True)
class _Owed:
    """A call that the primary did not take yet."""

    call: Callable[[Outbox], object]
    is_stop: bool


class Standby:
    """The `Outbox` of one process over one that may fail and one that does not.

    While the primary raises `OutboxUnavailable`, the reserve takes what is put, and it is sent from
    there; the primary is tried again after a pause that grows (`Circuit`). What it could not take
    is owed to it: stops and erasures, the fate of what had been leased from it, and then what still
    waits in the reserve, which keeps its order. What has a ticket is refused meanwhile: it has a
    place of its own that outlives this process, and would be there twice.

    Once the primary answers again, all of it leaves from there: it may know of stops of other
    processes. Only what left already, without an answer, and may not go twice is leased from the
    reserve still, to be buried.

    What an outage changes: what waits in the primary leaves after it, also aliases and profile
    updates that were put before; a stop of another process is heard of after it; dead letters of
    the time stay in memory. A release or a split that the primary does not take is left to the end
    of the lease.

    Args:
        primary: Where everything should be.
        reserve: Where it is while the primary fails; must not fail itself.
        counters: Where each failure is counted, as `outbox_failed`.
        clock: Answers seconds since the epoch.
        random: Answers a number in [0, 1) for jitter.

    Attributes:
        is_durable: Whether the primary answers and has everything.
    """

    def __init__(
        self,
        primary: Outbox,
        reserve: Outbox,
        counters: Counters,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.is_shared = primary.is_shared
        self.is_durable = primary.is_durable
        self._primary = primary
        self._reserve = reserve
        self._counters = counters
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        self._circuit = Circuit()
        self._trouble = ""  # what the primary said; empty while it works
        self._owed: deque[_Owed] = deque()
        self._is_behind = False  # whether the primary lacks something that the reserve has
        self._moved = 0  # messages, since this was made
        self._moved_horizon: Horizon = ()  # of the primary, behind all that was moved
        self._seen = NO_STATS  # of the primary, when it last said

    def put(self, entries: Sequence[Entry], now: float, ticket: Ticket | None = None) -> PutResult:
        """Accept entries, each as a whole, in order."""

        def place(primary: Outbox) -> PutResult:
            # What came before these may wait in the reserve still, until it is settled.
            is_next = ticket is not None or not self._is_behind
            return primary.put(entries, now, ticket) if is_next else self._reserve.put(entries, now)

        with self._lock:
            result = self._ask(place, None)
            if result is not None:
                return result
            if ticket is not None:
                raise OutboxUnavailable(self._trouble)
            return self._reserve.put(entries, now)

    def backlog(self, endpoint: Endpoint, now: float) -> Backlog:
        """Answer what could be leased now."""
        with self._lock:
            backlog = self._ask(lambda primary: primary.backlog(endpoint, now), None)
            if backlog is None or not backlog.messages:
                return self._reserve.backlog(endpoint, now)
            return backlog

    def lease(
        self, endpoint: Endpoint, now: float, *, max_messages: int, max_bytes: int, seconds: float
    ) -> list[Leased]:
        """Take whole entries, oldest first, for `seconds`; after that they return."""

        def lease(outbox: Outbox) -> list[Leased]:
            return outbox.lease(
                endpoint, now, max_messages=max_messages, max_bytes=max_bytes, seconds=seconds
            )

        with self._lock:
            taken = self._ask(lambda primary: self._find_lost(lease) or lease(primary), None)
            return _mark_held(lease(self._reserve)) if taken is None else taken

    def ack(self, ids: Sequence[int]) -> int:
        """Remove delivered entries. Return how many messages; 0 for what the primary is owed."""
        return self._settle(ids, lambda outbox, ids: outbox.ack(ids))

    def drop(self, ids: Sequence[int], reason: str) -> int:
        """Remove entries that may not leave. Return as `ack` does."""
        return self._settle(ids, lambda outbox, ids: outbox.drop(ids, reason))

    def release(self, ids: Sequence[int], not_before: float) -> None:
        """Give entries back where they stood and count an attempt."""
        kept, held = _sort(ids)
        with self._lock:
            self._reserve.release(held, not_before)
            if kept:
                self._ask(lambda primary: primary.release(kept, not_before), None)

    def split(self, id: int) -> None:  # noqa: A002  # the word of the contract
        """Put two entries, each with half of the messages and ready, in one entry's place."""
        with self._lock:
            if id >= FIRST_RESERVE_ID:
                self._reserve.split(id - FIRST_RESERVE_ID)
            else:
                self._ask(lambda primary: primary.split(id), None)

    def bury(self, id: int, refusals: Sequence[Refusal], now: float) -> bool:  # noqa: A002
        """Turn the named messages into dead letters and remove the entry, atomically."""
        with self._lock:
            if id >= FIRST_RESERVE_ID:
                return self._reserve.bury(id - FIRST_RESERVE_ID, refusals, now)
            return self._ask_or_owe(lambda primary: primary.bury(id, refusals, now), True)

    def forget(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Remove what a stop at `at` ends under any key, and leave stop marks in both."""
        stopped = tuple(keys)
        return self._stop(lambda outbox: outbox.forget(stopped, at, self._latest(now)))

    def erase(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Forget as `forget` does, and remove such dead letters under the keys, too.

        Raises:
            OutboxUnavailable: The primary still has them. The reserve has not, and the primary is
                owed the erasure as long as this process lives.
        """
        erased = tuple(keys)
        removed = self._stop(lambda outbox: outbox.erase(erased, at, self._latest(now)))
        if self.owed_stops():
            self._counters.echo("dropped", removed, "erased")
            raise OutboxUnavailable(self._trouble)
        return removed

    def dead(self, after: int = 0, limit: int = MAX_DEAD_LETTERS) -> Sequence[DeadLetter]:
        """Answer dead letters, those of the reserve last; without the primary's while it fails."""
        with self._lock:
            kept = tuple(self._ask(lambda primary: primary.dead(after, limit), ()))
            held = self._reserve.dead(max(0, after - FIRST_RESERVE_ID), limit - len(kept))
            return (*kept, *_mark_held(held))

    def replay(self, ids: Collection[int], now: float) -> int:
        """Put dead letters back at the end, to be sent again."""

        def replay_held(ids: Sequence[int]) -> int:
            self._is_behind = True
            return self._reserve.replay(ids, now)

        return self._choose(ids, lambda kept: self._primary.replay(kept, now), replay_held)

    def purge(self, ids: Collection[int]) -> int:
        """Delete dead letters. Return how many."""
        return self._choose(ids, self._primary.purge, self._reserve.purge)

    def expire(self, now: float) -> int:
        """Give up what is older than `outbox_max_age`; dead letters of that age are deleted."""
        with self._lock:
            return self._reserve.expire(now) + self._ask(lambda primary: primary.expire(now), 0)

    def tally(self, counts: Counts) -> None:
        """Add what a process counted besides to the totals."""
        with self._lock:
            self._reserve.tally(counts)
            self._is_behind = True
            self._ask(lambda _: None, None)

    def horizon(self) -> Horizon:
        """Answer this moment. While the primary fails it has no part in it."""
        with self._lock:
            kept = self._ask(lambda primary: primary.horizon(), ())
            held = self._reserve.horizon()
            return (self._moved, len(held), *held, *kept)

    def is_past(self, horizon: Horizon) -> bool:
        """Answer whether nothing waits that was put before that moment.

        What was known to wait in a primary that fails is waited for.
        """
        moved, size, *rest = horizon
        with self._lock:

            def is_past(primary: Outbox) -> bool:
                has_moved = moved != self._moved
                kept = self._moved_horizon if has_moved else tuple(rest[size:])
                return primary.is_past(kept) if kept else not self._seen.depth

            is_unseen = len(rest) == size and not self._seen.depth
            return self._ask(is_past, is_unseen) and self._reserve.is_past(tuple(rest[:size]))

    def stats(self) -> OutboxStats:
        """Answer how full both are; of a primary that fails, what it said last."""
        with self._lock:
            kept = self._seen = self._ask(lambda primary: primary.stats(), self._seen)
            return kept + self._reserve.stats()

    def held(self) -> OutboxStats:
        """Answer how full the reserve is, which ends with this process.

        Its totals are what the primary was not told of.
        """
        return self._reserve.stats()

    def owed_stops(self) -> int:
        """Count the denials and erasures that the primary was not told of, and end with this
        process, too.
        """
        with self._lock:
            return sum(owed.is_stop for owed in self._owed)

    def close(self) -> None:
        """Hand over what is owed if that is possible now, and let go of files."""
        with self._lock, suppress(OutboxUnavailable):
            self._circuit.close()
            # Order ends with the process: what is on its way keeps nothing back any more.
            self._ask(lambda _: self._move(waits=False), None)
            self._primary.close()

    def _settle(self, ids: Sequence[int], settle: Callable[[Outbox, Sequence[int]], int]) -> int:
        kept, held = _sort(ids)
        with self._lock:
            settled = settle(self._reserve, held)
            if kept:
                settled += self._ask_or_owe(lambda primary: settle(primary, kept), 0)
            return settled

    def _stop(self, stop: Callable[[Outbox], int]) -> int:
        with self._lock:
            # The reserve knows every stop: what comes late may come when the primary fails.
            return stop(self._reserve) + self._ask_or_owe(stop, 0, is_stop=True)

    def _latest(self, now: float) -> float:
        """Answer now, for a call that the primary may hear of later."""
        return max(now, self._clock())

    def _choose(
        self,
        ids: Collection[int],
        choose_kept: Callable[[Sequence[int]], int],
        choose_held: Callable[[Sequence[int]], int],
    ) -> int:
        """Do something with dead letters, where they are."""
        kept, held = _sort(ids)
        with self._lock:
            chosen = self._ask(lambda _: choose_kept(kept), None) if kept else 0
            if chosen is None:
                raise OutboxUnavailable(self._trouble)
            return chosen + (choose_held(held) if held else 0)

    def _ask_or_owe(self, call: Callable[[Outbox], T], otherwise: T, *, is_stop: bool = False) -> T:
        """Do as `_ask`; what the primary does not hear now it hears before anything else."""
        if self._trouble and len(self._owed) >= MAX_OWED:
            raise OutboxUnavailable(f"{self._trouble} More than {MAX_OWED} calls wait for it.")
        answer = self._ask(lambda primary: (call(primary),), None)
        if answer is not None:
            return answer[0]
        self._owed.append(_Owed(call, is_stop))
        return otherwise

    def _ask(self, call: Callable[[Outbox], T], otherwise: U) -> T | U:
        """Answer what the primary answers, once it has what is owed; else the other value."""
        if self._trouble and self._circuit.remaining(self._clock()):
            return otherwise
        try:
            if self._is_behind:
                self._catch_up()
            answer = call(self._primary)
        except OutboxUnavailable as error:
            self._fail(str(error))
            return otherwise
        if self._trouble and not self._is_behind:
            self._recover()
        return answer

    def _catch_up(self) -> None:
        while self._owed:
            self._owed[0].call(self._primary)
            self._owed.popleft()
        self._move()
        stats = self._reserve.stats()
        if not stats.depth:
            # Together with what waits, so that each message is accounted for in one of the two.
            self._primary.tally(stats.totals)
            self._reserve.tally({key: -number for key, number in stats.totals.items()})
            self._is_behind = False

    def _find_lost(self, lease: Callable[[Outbox], list[Leased]]) -> list[Leased]:
        """Answer what left from the reserve without a word and may not go twice, to be buried.

        All else that is behind moves first: the primary may know of stops of other processes.
        """
        if not self._is_behind:
            return []
        leased = lease(self._reserve)
        lost = [item for item in leased if item.is_overdue and not item.entry.is_repeatable]
        self._reserve.release([item.id for item in leased if item not in lost], 0.0)
        return _mark_held(lost)

    def _move(self, *, waits: bool = True) -> None:
        """Move what waits in the reserve, once what is on its way from there is settled."""
        now = self._clock()
        is_held = waits and self._reserve.stats().leased > 0
        moves = 0
        while not is_held and moves < MAX_MOVES and (taken := self._take(now)):
            ids = [item.id for item in taken]
            try:
                result = self._primary.put([item.entry for item in taken], now)
            except OutboxUnavailable:
                self._reserve.release(ids, 0.0)
                raise
            count = self._reserve.drop(ids, _MOVED)
            self._reserve.tally({("accepted", ""): -count, ("dropped", _MOVED): -count})
            self._counters.echo("dropped", result.stopped, "stopped")
            self._counters.echo("dropped", result.too_old, "too_old")
            self._counters.echo("dropped", result.overflowed, "overflow")
            self._moved += count
            moves += 1
        self._moved_horizon = self._primary.horizon()

    def _take(self, now: float) -> list[Leased]:
        # Aliases are the first of them: whom they hold back comes free when they are moved.
        for endpoint in Endpoint:
            leased = self._reserve.lease(
                endpoint,
                now,
                max_messages=MAX_BATCH_MESSAGES,
                max_bytes=MAX_BATCH_BYTES,
                seconds=_MOVING_SECONDS,
            )
            # Who holds what is overdue may have sent it; in the primary nobody would know.
            if taken := [item for item in leased if not item.is_overdue]:
                return taken
        return []

    def _fail(self, trouble: str) -> None:
        if not self._trouble:
            logger.error(
                "%s It is tried again. Until then events wait in the memory of this process, and "
                "are sent from there. What still waits there when the process ends is lost, and so "
                "are denials of what waits in the outbox.",
                trouble,
            )
        self._trouble = trouble
        self._circuit.back_off(self._clock(), self._random())
        self._counters.echo("outbox_failed")
        # Told when all is well: so that is never believed before something could be written.
        self._reserve.tally({("outbox_failed", ""): 1})
        self._is_behind = True
        self.is_durable = False

    def _recover(self) -> None:
        logger.warning(
            "The outbox works again and has everything that still waited (failures: %d).",
            self._circuit.failures,
        )
        self._trouble = ""
        self._circuit.close()
        self.is_durable = self._primary.is_durable


def _mark_held(items: Iterable[H]) -> list[H]:
    """Answer what is in the reserve with ids that tell so."""
    return [replace(item, id=item.id + FIRST_RESERVE_ID) for item in items]


def _sort(ids: Iterable[int]) -> tuple[list[int], list[int]]:
    """Answer the ids of the primary and those of the reserve, as each knows them."""
    kept: list[int] = []
    held: list[int] = []
    for number in ids:
        if number < FIRST_RESERVE_ID:
            kept.append(number)
        else:
            held.append(number - FIRST_RESERVE_ID)
    return kept, held
