"""Read and change what waits in an outbox's file, and what was counted, within one transaction.

What is put, taken and counted when is the outbox's matter.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Generator, Iterable
from contextlib import closing
from itertools import takewhile
from typing import Any, Final

from mp_asgi.events import Endpoint, Entry

from .base import AWAITS_ALIASES, KEEPS_ORDER, Backlog, Leased, Ticket
from .columns import ENTRY_COLUMNS, NUMBERS, describe, read_entry
from .frames import pack
from .letters import Letters
from .marks import Marks
from .quarantine import Damaged
from .stopping import is_ended

_ASIDE: Final = len(NUMBERS)  # the line of what waits for aliases, of all endpoints
_ALIASES: Final = NUMBERS[Endpoint.ALIASES]

# Statements are put together from constants only.
_IDS: Final = "id IN (SELECT value FROM json_each(?))"
_USER: Final = "user_key = :key AND user_key <> x''"  # both, or the partial index is not used
# A lease that lasts longer than it may was made before the clock was set back.
_HELD: Final = (
    "(held_until > :now AND (lease_seconds = 0 OR held_until <= :now + 2 * lease_seconds))"
)
_ENTRY: Final = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE id = ?"  # noqa: S608
_INSERT: Final = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FIND: Final = f"SELECT id, line, count, size_bytes, user_key FROM entries WHERE {_IDS}"  # noqa: S608
_IN_LINE: Final = f"""
    FROM entries LEFT JOIN holds USING (id)
    WHERE line = :line AND NOT (:skips AND coalesce({_HELD}, 0)) ORDER BY id
"""
_QUEUE: Final = f"""
    SELECT {ENTRY_COLUMNS}, id, put_at, coalesce(attempts, 0), coalesce(lease_seconds, 0) > 0,
        coalesce({_HELD}, 0) {_IN_LINE}
"""
_FIRST: Final = f"SELECT put_at, coalesce({_HELD}, 0) {_IN_LINE} LIMIT 1"
_SUM_HELD: Final = f"""
    SELECT coalesce(sum(count), 0), coalesce(sum(size_bytes), 0)
    FROM holds CROSS JOIN entries USING (id)
    WHERE held_until > :now AND {_HELD} AND line = :line
"""  # noqa: S608
_LEASED: Final = """
    SELECT coalesce(sum(count), 0) FROM holds CROSS JOIN entries USING (id) WHERE lease_seconds > 0
"""
_OF_KEY: Final = f"""
    SELECT id, tracked_at FROM entries WHERE device_key = :key
    UNION SELECT id, tracked_at FROM entries WHERE {_USER}
"""  # noqa: S608
_HAS_ALIAS: Final = f"SELECT 1 FROM entries WHERE {_USER} AND line = {_ALIASES} LIMIT 1"  # noqa: S608
_FREED: Final = f"""
    SELECT id, endpoint, count, size_bytes FROM entries
    WHERE {_USER} AND line = {_ASIDE} AND id < coalesce(
        (SELECT min(id) FROM entries WHERE {_USER} AND line = {_ALIASES}), 9e999)
"""  # noqa: S608
_GIVE_BACK: Final = f"""
    INSERT INTO holds SELECT id, ?, 0, 1 FROM entries WHERE {_IDS}
    ON CONFLICT (id) DO UPDATE SET
        held_until = excluded.held_until, lease_seconds = 0, attempts = attempts + 1
"""  # noqa: S608
_REMEMBER: Final = """
    INSERT INTO tickets VALUES (?, ?, ?) ON CONFLICT (source) DO UPDATE SET
        number = max(number, excluded.number), seen_at = max(seen_at, excluded.seen_at)
"""


class Rows:
    """What is in the outbox, with sums and totals that follow each change.

    Args:
        connection: In a transaction; `settle` is its last step if it changed anything.

    Attributes:
        messages: How many wait.
        size_bytes: Bytes that they take.
        next_id: Of the next entry.
        marks: Whom stop marks stop.
        letters: The dead letters.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute
        # Messages and bytes of each line.
        self._sums: dict[int, list[int]] = {
            line: [messages, size_bytes]
            for line, messages, size_bytes in self._execute("SELECT * FROM lines")
        }
        self.messages = sum(messages for messages, _ in self._sums.values())
        self.size_bytes = sum(size_bytes for _, size_bytes in self._sums.values())
        self._changed: set[int] = set()
        self._added: list[tuple[Any, ...]] = []
        self._has_alias: dict[bytes, bool] = {}
        self._totals: Counter[tuple[str, str]] = Counter()
        self.next_id, forgotten_until = self._one("SELECT next_id, forgotten_until FROM state")
        self.marks = Marks(connection, forgotten_until)
        self.letters = Letters(connection)

    def settle(self) -> None:
        """Write what was added, and how the sums and totals changed."""
        if self._added:
            self._connection.executemany(_INSERT, self._added)
            self._execute("UPDATE state SET next_id = ?", (self.next_id,))
        for line in self._changed:
            self._execute(
                "UPDATE lines SET messages = ?, size_bytes = ? WHERE line = ?",
                (*self._sums[line], line),
            )
        for (name, reason), number in self._totals.items():
            self._execute(
                "INSERT INTO totals VALUES (?, ?, ?) "
                "ON CONFLICT (name, reason) DO UPDATE SET number = number + excluded.number",
                (name, reason, number),
            )

    def count(self, name: str, number: int, reason: str = "") -> int:
        """Add to a total. Answer the number."""
        if number:
            self._totals[name, reason] += number
        return number

    def behind_aliases(self) -> int:
        """Answer the messages that stand aside."""
        return self._sums[_ASIDE][0]

    def leased(self) -> int:
        """Answer the messages under a lease."""
        return int(self._one(_LEASED)[0])

    def totals(self) -> dict[tuple[str, str], int]:
        """Answer what was counted."""
        rows = self._execute("SELECT name, reason, number FROM totals")
        return {(name, reason): number for name, reason, number in rows}

    def add(self, entry: Entry, now: float) -> None:
        """Put an entry in its place; whatever alias waits already came before it."""
        endpoint, user_key = entry.endpoint, entry.user_key
        line = number = NUMBERS[endpoint]
        if endpoint in AWAITS_ALIASES and user_key and self._waits_alias(user_key):
            line = _ASIDE
        elif number == _ALIASES:
            self._has_alias[user_key] = True
        count, size_bytes = len(entry.messages), entry.size_bytes
        self._added.append(
            (
                self.next_id,
                line,
                number,
                count,
                size_bytes,
                now,
                *describe(entry),
                pack(entry.messages),
            )
        )
        self.next_id += count
        self._shift(line, count, size_bytes)

    def remove(self, ids: Iterable[int]) -> int:
        """Delete entries. Answer how many messages they had."""
        wanted = json.dumps(list(ids))
        found = self._execute(_FIND, (wanted,)).fetchall()
        if not found:
            return 0
        self._execute(f"DELETE FROM entries WHERE {_IDS}", (wanted,))  # noqa: S608
        self._execute(f"DELETE FROM holds WHERE {_IDS}", (wanted,))  # noqa: S608
        for _, line, count, size_bytes, _ in found:
            self._shift(line, -count, -size_bytes)
        # An empty key is everybody without a user ID; they wait for nobody.
        for user_key in {key for _, line, _, _, key in found if line == _ALIASES and key}:
            self._readmit(user_key)
        return sum(count for _, _, count, _, _ in found)

    def find(self, number: int) -> Entry | None:
        """Answer an entry."""
        row = self._execute(_ENTRY, (number,)).fetchone()
        return None if row is None else read_entry(row)

    def split(self, number: int, entry: Entry) -> None:
        """Put two entries in the place of one, both ready. The sums stay as they are."""
        middle = len(entry.messages) // 2
        later = entry.messages[middle:]
        count, size_bytes = len(later), sum(len(message.body) + 1 for message in later)
        self._execute(
            "INSERT INTO entries SELECT id + ?, line, endpoint, ?, ?, put_at, tracked_at, "
            "is_repeatable, is_identity, device_key, user_key, ? FROM entries WHERE id = ?",
            (middle, count, size_bytes, pack(later), number),
        )
        self._execute(
            "UPDATE entries SET count = count - ?, size_bytes = size_bytes - ?, messages = ? "
            "WHERE id = ?",
            (count, size_bytes, pack(entry.messages[:middle]), number),
        )
        self._execute("UPDATE holds SET held_until = 0, lease_seconds = 0 WHERE id = ?", (number,))
        self._execute(
            "INSERT INTO holds SELECT id + ?, 0, 0, attempts FROM holds WHERE id = ?",
            (middle, number),
        )

    def backlog(self, endpoint: Endpoint, now: float) -> Backlog:
        """Answer what a lease could take."""
        line = NUMBERS[endpoint]
        bounds = {"line": line, "now": now, "skips": endpoint not in KEEPS_ORDER}
        row = self._execute(_FIRST, bounds).fetchone()
        if row is None or row[1]:
            return Backlog(0, 0, now)
        messages, size_bytes = self._sums[line]
        held_messages, held_bytes = self._one(_SUM_HELD, bounds)
        return Backlog(messages - held_messages, size_bytes - held_bytes, row[0])

    def queue(self, endpoint: Endpoint, now: float) -> Generator[Leased]:
        """Answer what a lease could take, oldest first."""
        bounds = {"line": NUMBERS[endpoint], "now": now, "skips": endpoint not in KEEPS_ORDER}
        with closing(self._execute(_QUEUE, bounds)) as found:
            for *entry, number, put_at, attempts, is_overdue, is_held in found:
                if is_held:
                    return
                yield Leased(number, read_entry(entry), attempts, put_at, bool(is_overdue))

    def hold(self, ids: Collection[int], until: float, seconds: float) -> None:
        """Lease entries."""
        self._connection.executemany(
            "INSERT INTO holds VALUES (?, ?, ?, 0) ON CONFLICT (id) DO UPDATE SET "
            "held_until = excluded.held_until, lease_seconds = excluded.lease_seconds",
            [(number, until, seconds) for number in ids],
        )

    def give_back(self, ids: Iterable[int], not_before: float) -> None:
        """End leases, and count an attempt of each."""
        self._execute(_GIVE_BACK, (not_before, json.dumps(list(ids))))

    def put_before(self, oldest_kept: float, now: float) -> list[int]:
        """Answer the entries, from the oldest, that were put before that time."""
        with closing(self._execute("SELECT id, put_at FROM entries ORDER BY id")) as found:
            # What a clock that was ahead put keeps nothing behind it from expiring.
            old = takewhile(lambda row: not oldest_kept <= row[1] <= now, found)
            return [number for number, put_at in old if put_at <= now]

    def oldest_put_at(self) -> float | None:
        """Answer when the entry that waits longest was put."""
        row = self._execute("SELECT put_at FROM entries ORDER BY id LIMIT 1").fetchone()
        return None if row is None else row[0]

    def first_id(self) -> float:
        """Answer the smallest id; more than any if nothing waits."""
        return float(self._one("SELECT coalesce(min(id), 9e999) FROM entries")[0])

    def of_key(self, key: bytes, at: float, now: float) -> list[int]:
        """Answer the entries under a key that a stop ends."""
        found = self._execute(_OF_KEY, {"key": key})
        return [number for number, tracked_at in found if is_ended(tracked_at, at, now)]

    def take_ticket(self, ticket: Ticket, now: float) -> bool:
        """Answer whether a ticket is new, and remember it as long as its source is met."""
        source, number = ticket.source, ticket.number
        row = self._execute("SELECT number FROM tickets WHERE source = ?", (source,)).fetchone()
        self._execute(_REMEMBER, (source, number, now))
        return row is None or number > row[0]

    def prune_tickets(self, oldest_kept: float) -> None:
        """Delete the tickets of sources that nothing came from since that time."""
        self._execute("DELETE FROM tickets WHERE seen_at < ?", (oldest_kept,))

    def _one(self, statement: str, values: Any = ()) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self._execute(statement, values).fetchone()
        if row is None:
            raise Damaged("a row is missing")
        return row

    def _shift(self, line: int, count: int, size_bytes: int) -> None:
        sums = self._sums[line]
        sums[0] += count
        sums[1] += size_bytes
        self.messages += count
        self.size_bytes += size_bytes
        self._changed.add(line)

    def _waits_alias(self, user_key: bytes) -> bool:
        if user_key not in self._has_alias:
            # Nearly always none waits at all.
            self._has_alias[user_key] = bool(self._sums[_ALIASES][0]) and bool(
                self._execute(_HAS_ALIAS, {"key": user_key}).fetchone()
            )
        return self._has_alias[user_key]

    def _readmit(self, user_key: bytes) -> None:
        """Let go on what waited for the aliases of a user that are gone."""
        freed = self._execute(_FREED, {"key": user_key}).fetchall()
        wanted = json.dumps([number for number, *_ in freed])
        self._execute(f"UPDATE entries SET line = endpoint WHERE {_IDS}", (wanted,))  # noqa: S608
        for _, line, count, size_bytes in freed:
            self._shift(_ASIDE, -count, -size_bytes)
            self._shift(line, count, size_bytes)
