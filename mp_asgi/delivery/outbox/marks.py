"""Keep the stop marks of an outbox's file: whom its visitors' denials and erasures stop."""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mp_asgi.events import Entry

from .stopping import CLOCK_SECONDS, is_ended

_MARK: Final = """
    INSERT OR REPLACE INTO marks (key, at)
    VALUES (:key, max(:at, coalesce((SELECT at FROM marks WHERE key = :key), :at)))
"""


@dataclass(frozen=True, slots=True)
class Stops:
    """The stop marks that may concern some entries.

    Attributes:
        forgotten_until: Of the newest mark that had to go: nobody knows any more whom it stopped.
        times: Of the others, by key.
        now: Seconds since the epoch.
    """

    forgotten_until: float
    times: Mapping[bytes, float]
    now: float

    def stop(self, entry: Entry) -> bool:
        """Answer whether the entry may not wait."""
        tracked_at, times = entry.tracked_at, self.times
        return tracked_at <= self.forgotten_until or any(
            is_ended(tracked_at, times[key], self.now)
            for key in (entry.device_key, entry.user_key)
            if key in times
        )


class Marks:
    """The table of stop marks.

    Args:
        connection: In a transaction.
        forgotten_until: As the file says it.
    """

    def __init__(self, connection: sqlite3.Connection, forgotten_until: float) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._forgotten_until = forgotten_until

    def of(self, entries: Iterable[Entry], now: float) -> Stops:
        """Answer the stop marks that may concern the entries."""
        times: dict[bytes, float] = {}
        if self._execute("SELECT 1 FROM marks LIMIT 1").fetchone():
            for key in {key for entry in entries for key in (entry.device_key, entry.user_key)}:
                times.update(self._execute("SELECT key, at FROM marks WHERE key = ?", (key,)))
        return Stops(self._forgotten_until, times, now)

    def add(self, key: bytes, at: float) -> None:
        """Leave a stop mark; the newest time of a key holds."""
        self._execute(_MARK, {"key": key, "at": at})

    def bound(self, most: int) -> None:
        """Give up the oldest marks beyond `most`, and stop all that they might have stopped."""
        first, last = self._execute("SELECT min(number), max(number) FROM marks").fetchone()
        if first is None or last - first < most:  # the count takes time, and is not above this
            return
        (count,) = self._execute("SELECT count(*) FROM marks").fetchone()
        oldest = self._execute(
            "SELECT number, at FROM marks ORDER BY number LIMIT ?", (max(0, count - most),)
        ).fetchall()
        if oldest:
            self._execute("DELETE FROM marks WHERE number <= ?", (oldest[-1][0],))
            self.forget_until(max(at for _, at in oldest))

    def copy(self, path: Path) -> None:
        """Take over the stop marks of another file.

        Raises:
            sqlite3.Error: They cannot be read.
        """
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as other:
            forgotten_until, marks = (
                other.execute("SELECT forgotten_until FROM state").fetchall(),
                other.execute("SELECT key, at FROM marks ORDER BY number").fetchall(),
            )
        self._connection.executemany("INSERT INTO marks (key, at) VALUES (?, ?)", marks)
        for (at,) in forgotten_until:
            self.forget_until(at)

    def prune(self, oldest_kept: float) -> None:
        """Delete stop marks of before that time."""
        self._execute("DELETE FROM marks WHERE at < ?", (oldest_kept,))

    def forget_until(self, at: float) -> None:
        """Stop whatever was tracked at or before that time."""
        self._execute("UPDATE state SET forgotten_until = max(forgotten_until, ?)", (at,))

    def correct_clock(self, now: float) -> None:
        """Stop nothing of what is tracked from now on: a clock that was ahead may have said so."""
        latest = now + CLOCK_SECONDS
        self._execute("UPDATE marks SET at = ? WHERE at > ?", (now, latest))
        if self._forgotten_until > latest:
            self._forgotten_until = now
            self._execute("UPDATE state SET forgotten_until = ?", (now,))
