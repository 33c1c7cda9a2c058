"""Keep the dead letters of an outbox's file. What they are counted as is not decided here."""

import json
import math
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any, Final

from mp_asgi.events import Entry

from .base import DeadLetter, Refusal
from .columns import NUMBERS, describe, read_entry
from .frames import decode, encode, pack
from .stopping import is_ended

_LETTER: Final = """
    SELECT endpoint, message, device_key, user_key, tracked_at, is_repeatable, is_identity,
        id, reason, reply, buried_at
    FROM letters
"""
_IDS: Final = "id IN (SELECT value FROM json_each(?))"
_OF_KEY: Final = """
    SELECT id, tracked_at FROM letters
    WHERE buried_at > :buried_after AND (device_key = :key OR user_key = :key)
"""


class Letters:
    """The table of dead letters.

    Args:
        connection: In a transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute

    def sums(self) -> tuple[int, int]:
        """Answer how many there are, and the bytes that they take."""
        number, size_bytes = self._execute("SELECT letters, letter_bytes FROM state").fetchone()
        return number, size_bytes

    def add(self, entry: Entry, refusals: Sequence[Refusal], now: float) -> None:
        """Bury messages."""
        self._connection.executemany(
            "INSERT INTO letters VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    NUMBERS[entry.endpoint],
                    refusal.reason,
                    encode(refusal.reply),
                    now,
                    *describe(entry),
                    pack([message := entry.messages[refusal.index]]),
                    len(message.body) + 1,
                )
                for refusal in refusals
            ],
        )

    def bound(self, most: int, most_bytes: int) -> int:
        """Give up the oldest beyond so many, and so many bytes. Answer how many."""
        number, size_bytes = self.sums()
        gone: list[int] = []
        if number <= most and size_bytes <= most_bytes:
            return 0
        with closing(self._execute("SELECT id, size_bytes FROM letters ORDER BY id")) as found:
            for letter, letter_bytes in found:
                if number <= most and size_bytes <= most_bytes:
                    break
                gone.append(letter)
                number -= 1
                size_bytes -= letter_bytes
        return self.remove(gone)

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

    def forget(
        self, keys: Iterable[bytes], at: float, now: float, buried_after: float = -math.inf
    ) -> None:
        """Delete those under any key that a stop ends, and that were buried after that time."""
        for key in filter(None, keys):  # an empty one is everybody without a user ID
            found = self._execute(_OF_KEY, {"key": key, "buried_after": buried_after})
            self.remove(number for number, tracked_at in found if is_ended(tracked_at, at, now))

    def remove_before(self, oldest_kept: float) -> None:
        """Delete those that were buried before that time."""
        self._execute("DELETE FROM letters WHERE buried_at < ?", (oldest_kept,))


def _read_letter(row: Sequence[Any]) -> DeadLetter:
    *fields, number, reason, reply, buried_at = row
    refusal = Refusal(0, reason, decode(reply))
    return DeadLetter.of(read_entry(fields), refusal, buried_at, number)
