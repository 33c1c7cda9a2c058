"""Keep the outbox in one SQLite file, which all processes of a host share."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from mp_asgi.delivery.log import logger
from mp_asgi.events import Endpoint, Entry
from mp_asgi.settings import Settings

from .base import (
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
from .database import Database
from .location import owner_name
from .rows import Rows
from .stopping import find_oldest

CLEAR_SECONDS: Final = 1.0  # of waiting for readers; the app's own take milliseconds

T = TypeVar("T")


class SQLiteOutbox:
    """The `Outbox` of all processes of a host that know the file.

    What was put survives the end of any process, `kill -9` included; a loss of power may take the
    last moments. Only the owner can read the file, and what is deleted is overwritten in it.

    Args:
        path: Of the file, on a disk of this host. It is made when it is first used.
        settings: Bounds what waits and says how long stop marks and dead letters stay.
        clock: Answers seconds since the epoch, for new files and for damaged ones.
    """

    is_shared = True
    is_durable = True

    def __init__(
        self, path: Path, settings: Settings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock
        # The token alone: who mends the host can name the file and go on with what waits.
        self._database = Database(path, self._renew, clock, project=owner_name(settings))

    def put(self, entries: Sequence[Entry], now: float, ticket: Ticket | None = None) -> PutResult:
        """Accept entries, each as a whole, in order, in one transaction."""
        if not entries and ticket is None:
            return PutResult(0, 0, 0)
        return self._change(lambda rows: self._put(rows, entries, now, ticket))

    def backlog(self, endpoint: Endpoint, now: float) -> Backlog:
        """Answer what could be leased now, at a cost that does not grow with the depth."""
        return self._look(lambda rows: rows.backlog(endpoint, now))

    def lease(
        self, endpoint: Endpoint, now: float, *, max_messages: int, max_bytes: int, seconds: float
    ) -> list[Leased]:
        """Take whole entries, oldest first, for `seconds`; after that they return."""

        def take(rows: Rows) -> list[Leased]:
            queue = rows.queue(endpoint, now)
            with contextlib.closing(queue):
                taken = fill(queue, max_messages, max_bytes)
            rows.hold([leased.id for leased in taken], now + seconds, seconds)
            return taken

        return self._change(take)

    def ack(self, ids: Sequence[int]) -> int:
        """Remove delivered entries. Return how many messages that settled."""
        return self._change(lambda rows: rows.count("delivered", rows.remove(ids)))

    def drop(self, ids: Sequence[int], reason: str) -> int:
        """Remove entries that may not leave. Return how many messages."""
        return self._change(lambda rows: rows.count("dropped", rows.remove(ids), reason))

    def release(self, ids: Sequence[int], not_before: float) -> None:
        """Give entries back where they stood and count an attempt."""
        self._change(lambda rows: rows.give_back(ids, not_before))

    def split(self, id: int) -> None:  # noqa: A002  # the word of the contract
        """Put two entries, each with half of the messages and ready, in one entry's place."""

        def halve(rows: Rows) -> None:
            entry = rows.find(id)
            if entry is not None and len(entry.messages) > 1:
                rows.split(id, entry)

        self._change(halve)

    def bury(self, id: int, refusals: Sequence[Refusal], now: float) -> bool:  # noqa: A002
        """Turn the named messages into dead letters and remove the entry, atomically."""

        def end(rows: Rows) -> bool:
            entry = rows.find(id)
            if entry is None:
                return False
            rows.letters.add(entry, refusals, now)
            lost = rows.letters.bound(MAX_DEAD_LETTERS, self._settings.outbox_max_bytes)
            rows.count("letters_lost", lost)
            for refusal in refusals:
                rows.count("buried", 1, refusal.reason)
            rows.count("delivered", rows.remove([id]) - len(refusals))
            return True

        return self._change(end)

    def forget(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Remove what a stop at `at` ends under any key, and leave stop marks."""

        def forget(rows: Rows) -> int:
            # What was buried later would be kept for longer than the mark.
            rows.letters.forget(keys, at, now, buried_after=at)
            return rows.count("dropped", _forget(rows, keys, at, now), "stopped")

        return self._change(forget)

    def erase(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Forget as `forget` does, and remove such dead letters under the keys, too."""

        def erase(rows: Rows) -> int:
            rows.letters.forget(keys, at, now)
            return rows.count("dropped", _forget(rows, keys, at, now), "erased")

        removed = self._change(erase)
        self._tell_what_is_left()
        return removed

    def dead(self, after: int = 0, limit: int = MAX_DEAD_LETTERS) -> Sequence[DeadLetter]:
        """Answer dead letters with a greater id than `after`, oldest first, at most `limit`."""
        return self._look(lambda rows: rows.letters.after(after, limit))

    def replay(self, ids: Collection[int], now: float) -> int:
        """Put dead letters back at the end, to be sent again."""

        def replay(rows: Rows) -> int:
            entries = {letter.id: letter.to_entry() for letter in rows.letters.find(ids)}
            stops = rows.marks.of(entries.values(), now)
            free = {number: entry for number, entry in entries.items() if not stops.stop(entry)}
            for entry in free.values():
                rows.add(entry, now)
            rows.letters.remove(free)
            return rows.count("replayed", len(free))

        return self._change(replay)

    def purge(self, ids: Collection[int]) -> int:
        """Delete dead letters. Return how many."""
        return self._change(lambda rows: rows.letters.remove(ids))

    def expire(self, now: float) -> int:
        """Give up what is older than `outbox_max_age`; dead letters of that age are deleted."""
        oldest_kept = now - self._settings.outbox_max_age

        def expire(rows: Rows) -> int:
            rows.letters.remove_before(oldest_kept)
            rows.marks.correct_clock(now)
            # Behind the letters: no mark goes before a letter that it holds back.
            rows.marks.prune(oldest_kept)
            rows.prune_tickets(oldest_kept)
            removed = rows.remove(rows.put_before(oldest_kept, now))
            return rows.count("dropped", removed, "too_old")

        removed = self._change(expire)
        self._database.quarantine.expire(oldest_kept)
        # Give room back: pages that are free stay in the file otherwise.
        self._database.tidy("PRAGMA incremental_vacuum")
        # What was deleted since, by whomever and for whatever reason, is in the log until now.
        self._database.clear_log()
        return removed

    def tally(self, counts: Counts) -> None:
        """Add what a process counted besides to the totals."""

        def tally(rows: Rows) -> None:
            for (name, reason), number in counts.items():
                rows.count(name, number, reason)

        if counts:
            self._change(tally)

    def horizon(self) -> Horizon:
        """Answer this moment, for `is_past`."""
        return self._look(lambda rows: (rows.next_id,))

    def is_past(self, horizon: Horizon) -> bool:
        """Answer whether nothing waits that was put before that moment."""
        return self._look(lambda rows: rows.first_id() >= horizon[0])

    def stats(self) -> OutboxStats:
        """Answer how full the outbox is."""
        return replace(self._look(_describe), log_bytes=self._database.log_bytes())

    def close(self) -> None:
        """Let go of the file; a later call opens it again."""
        self._database.close()

    def _change(self, work: Callable[[Rows], T]) -> T:
        def run(connection: sqlite3.Connection) -> T:
            rows = Rows(connection)
            result = work(rows)
            rows.settle()
            return result

        return self._database.write(run)

    def _look(self, work: Callable[[Rows], T]) -> T:
        return self._database.read(lambda connection: work(Rows(connection)))

    def _put(
        self, rows: Rows, entries: Sequence[Entry], now: float, ticket: Ticket | None
    ) -> PutResult:
        if ticket is not None and not rows.take_ticket(ticket, now):
            return PutResult(0, 0, 0)
        stored = stopped = overflowed = too_old = 0
        oldest = find_oldest(self._settings.outbox_max_age, now, ticket)
        rows.marks.correct_clock(now)
        stops = rows.marks.of(entries, now)
        for entry in entries:
            count = len(entry.messages)
            if stops.stop(entry):
                stopped += count
            elif entry.tracked_at < oldest:
                too_old += count
            elif not entry.is_identity and self._is_full_for(rows, entry):
                overflowed += count
            else:
                rows.add(entry, now)
                stored += count
        result = PutResult(stored, stopped, overflowed, too_old)
        rows.count("accepted", result.accepted)
        rows.count("dropped", stopped, "stopped")
        rows.count("dropped", too_old, "too_old")
        rows.count("dropped", overflowed, "overflow")
        return result

    def _is_full_for(self, rows: Rows, entry: Entry) -> bool:
        settings = self._settings
        return (
            rows.messages + len(entry.messages) > settings.outbox_max_messages
            or rows.size_bytes + entry.size_bytes > settings.outbox_max_bytes
        )

    def _tell_what_is_left(self) -> None:
        """Say where on the disk what was erased may be still."""
        if not self._database.clear_log(CLEAR_SECONDS):
            logger.warning(
                "What was erased from %s stays in its log for now: another program reads the file. "
                "End it; the log is emptied within a minute then, while the app runs.",
                self._path,
            )
        with contextlib.suppress(OSError):
            for aside in self._database.quarantine.asides():
                logger.warning(
                    "What was erased may still be in %s, which was damaged and set aside. Delete "
                    "it, or wait: it is deleted when it is older than MP_ASGI_OUTBOX_MAX_AGE.",
                    aside,
                )

    def _renew(self, damaged: Path, connection: sqlite3.Connection) -> None:
        """Begin a new file: a damaged one may have known whom to stop."""
        rows = Rows(connection)
        try:
            rows.marks.copy(damaged)
        except sqlite3.Error:
            rows.marks.forget_until(self._clock())
        rows.count("quarantined", 1)
        rows.settle()


def _forget(rows: Rows, keys: Collection[bytes], at: float, now: float) -> int:
    removed = 0
    # An empty key is everybody without a user ID.
    for key in filter(None, keys):
        removed += rows.remove(rows.of_key(key, at, now))
        rows.marks.add(key, at)
    rows.marks.bound(MAX_STOP_MARKS)
    return removed


def _describe(rows: Rows) -> OutboxStats:
    dead, dead_bytes = rows.letters.sums()
    return OutboxStats(
        depth=rows.messages,
        size_bytes=rows.size_bytes,
        oldest_put_at=rows.oldest_put_at(),
        dead=dead,
        dead_bytes=dead_bytes,
        behind_aliases=rows.behind_aliases(),
        leased=rows.leased(),
        totals=rows.totals(),
    )
