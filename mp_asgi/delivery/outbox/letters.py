"""Keep the dead letters of an outbox's file. What they are counted as is not decided here."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from mp_asgi.events import Entry

from .base import DeadLetter, Refusal
from .columns import NUMBERS, describe, read_entry
from .frames import decode, encode, pack

_LETTER: Final = """
    SELECT endpoint, message, device_key, user_key, tracked_at, is_repeatable, is_identity,
        id, reason, reply, buried_at
    FROM letters
"""
_IDS: Final = "id IN (SELECT value FROM json_each(?))"


class Letters:
    """The table of dead letters.

    Args:
        connection: In a transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute

    def __len__(self) -> int:
        """Answer how many there are."""
        return int(self._execute("SELECT count(*) FROM letters").fetchone()[0])

    def add(self, entry: Entry, refusals: Sequence[Refusal], now: float, most: int) -> int:
        """Bury messages, and give up the oldest letters beyond `most`. Answer how many."""
        self._connection.executemany(
            "INSERT INTO letters VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    NUMBERS[entry.endpoint],
                    refusal.reason,
                    encode(refusal.reply),
                    now,
                    *describe(entry),
                    pack([entry.messages[refusal.index]]),
                )
                for refusal in refusals
            ],
        )
        if (excess := len(self) - most) <= 0:
            return 0
        self._execute(
            "DELETE FROM letters WHERE id IN (SELECT id FROM letters ORDER BY id LIMIT ?)",
            (excess,),
        )
        return excess

    def after(self, number: int, limit: int) -> tuple[DeadLetter, ...]:
        """Answer those with a greater id, oldest first."""
        found = self._execute(f"{_LETTER} WHERE id > ? ORDER BY id LIMIT ?", (number, limit))
        return tuple(map(_read_letter, found))

    def find(self, ids: Iterable[int]) -> list[DeadLetter]:
        """Answer those that are there, oldest first."""
        found = self._execute(f"{_LETTER} WHERE {_IDS} ORDER BY id", (json.dumps(list(ids)),))
        return list(map(_read_letter, found))

    def remove(self, ids: Iterable[int]) -> int:
        """Delete some. Answer how many there were."""
        wanted = json.dumps(list(ids))
        return self._execute(f"DELETE FROM letters WHERE {_IDS}", (wanted,)).rowcount  # noqa: S608

    def remove_of(self, key: bytes) -> None:
        """Delete those under a key."""
        self._execute(
            "DELETE FROM letters WHERE device_key = :key OR user_key = :key", {"key": key}
        )

    def remove_before(self, oldest_kept: float) -> None:
        """Delete those that were buried before that time."""
        self._execute("DELETE FROM letters WHERE buried_at < ?", (oldest_kept,))


def _read_letter(row: Sequence[Any]) -> DeadLetter:
    *fields, number, reason, reply, buried_at = row
    refusal = Refusal(0, reason, decode(reply))
    return DeadLetter.of(read_entry(fields), refusal, buried_at, number)
