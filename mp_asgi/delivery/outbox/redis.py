"""Keep the outbox on a Redis server, for any number of hosts: Streams with a consumer group.

What an operation does is written in `redis.lua`, which runs whole or not at all. Here is what it is
called with, and what its answers mean.
"""

import secrets
import struct
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from mp_asgi.delivery.log import logger
from mp_asgi.errors import OutboxUnavailable
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
)
from .frames import decode, encode, pack, unpack
from .redis_server import Argument, Server
from .stopping import find_oldest

ROUND: Final = 1000  # dead letters in one call
LATE_SECONDS: Final = 3600.0  # a packet that was lost is sent again for minutes, not for hours

_HEAD: Final = struct.Struct(">cBIIddH")
_REPEATABLE, _IDENTITY = 1, 2
_ENDPOINTS: Final = {endpoint.value[1].encode(): endpoint for endpoint in Endpoint}


@dataclass(frozen=True, slots=True)
class HandIn:
    """An entry that another outbox hands over, so that it is taken once.

    Attributes:
        label: A name that no other entry ever has.
        entry: What is handed over.
        doubt: The ticket under which it was perhaps put already; None if it was not.
    """

    label: str
    entry: Entry
    doubt: Ticket | None = None


class RedisOutbox:
    """The `Outbox` of all hosts that know the server.

    Everything is dated by the server's clock: a caller's `now` is corrected by how far its host's
    clock is from it, when that is a second or more. Ids begin at the server's time, so that none
    comes again after the server has lost what it kept. A lost answer of a put that has a ticket can
    be repeated, and one of a release or a split, which name the lease that they end; nothing is
    repeated here.

    Args:
        url: `redis://` or `rediss://` (TLS), with user, password, port and number of the database.
            Of a cluster, any of its nodes: all of a project's keys are in one slot.
        settings: Bounds what waits and says how long stop marks and entries are kept.
        project: Names the Mixpanel project; the same on all hosts, and no secret.
        wall: Answers this host's time in seconds since the epoch, to compare with the server's.

    Raises:
        OutboxUnavailable: The package `redis` is not installed, or the URL cannot be used.
    """

    is_shared = True
    is_durable = True

    def __init__(
        self, url: str, settings: Settings, project: str, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._tag = f"{{mp-asgi:{project}}}"
        self._wall = wall
        self._server = Server(url)
        self._sender = secrets.token_hex(8)
        self._lease_number = 0
        self._doubtful_lease = 0  # the number of one whose answer did not come; 0 without one
        self._began = b""  # with which id the outbox began; empty while that is not known
        # Until when, as the server names it and by the caller's clock, by id.
        self._held: dict[int, tuple[bytes, float]] = {}
        self._has_seen_policy = False

    def put(self, entries: Sequence[Entry], now: float, ticket: Ticket | None = None) -> PutResult:
        """Accept entries, each as a whole, in order."""
        bounds = self._bounds(now, ticket)
        ticket = ticket or Ticket("", 0)
        fixed = (now, self._wall(), *bounds, ticket.source, ticket.number)
        rest = [
            part for entry in entries for part in (_pack_head(entry, now), pack(entry.messages))
        ]
        *result, began = self._call("put", *fixed, rest=rest)
        self._compare(began or b"")
        return PutResult(*result)

    def server_time(self) -> float:
        """Answer the server's time, for a later `take_over`, in seconds since the epoch."""
        return float(self._call("time"))

    def take_over(self, hand_ins: Sequence[HandIn], now: float, ends_at: float) -> PutResult | None:
        """Accept what another outbox hands over; what has a label that was seen is not counted.

        What was put under the ticket of its doubt is here. If that put was not done, it never
        will be from now on, however late it arrives. Entries are refused as in `put`.

        Args:
            hand_ins: What is handed over.
            now: Seconds since the epoch.
            ends_at: Until when this may be done, by the server's time: until then no other hands
                the same over.

        Returns:
            What became of the messages; None if it came too late, and nothing was done.
        """
        rest: list[str | bytes | int] = []
        for item in hand_ins:
            doubt = item.doubt or Ticket("", 0)
            rest += (item.label, doubt.source, doubt.number)
            rest += (_pack_head(item.entry, now), pack(item.entry.messages))
        fixed = (now, self._wall(), *self._bounds(now), ends_at)
        result = self._call("take_over", *fixed, rest=rest)
        return None if result is None else PutResult(*result)

    def let_expire(self, labels: Sequence[str], now: float) -> None:
        """Forget labels of what nobody will hand over again, once nothing can arrive late."""
        at = now - self._settings.outbox_max_age + LATE_SECONDS
        self._call("let_expire", at, self._wall(), rest=labels)

    def backlog(self, endpoint: Endpoint, now: float) -> Backlog:
        """Answer what could be leased now."""
        self._take_back()
        messages, size_bytes, since = self._call("backlog", _line(endpoint), now, self._wall())
        return Backlog(messages, size_bytes, float(since) if since else now)

    def lease(
        self, endpoint: Endpoint, now: float, *, max_messages: int, max_bytes: int, seconds: float
    ) -> list[Leased]:
        """Take whole entries, oldest first, for `seconds`; after that they return."""
        self._take_back()
        self._lease_number += 1
        number = self._lease_number
        fixed = (_line(endpoint), now, self._wall(), max_messages, max_bytes, seconds)
        try:
            ends_at, rows = self._call("lease", *fixed, self._sender, number, int(LATE_SECONDS))
        except OutboxUnavailable:
            self._doubtful_lease = number
            raise
        leased = [_read_leased(*row) for row in rows]
        self._hold(leased, ends_at, now, seconds)
        return leased

    def ack(self, ids: Sequence[int]) -> int:
        """Remove delivered entries. Return how many messages that settled."""
        return self._settle("delivered:", ids)

    def drop(self, ids: Sequence[int], reason: str) -> int:
        """Remove entries that may not leave. Return how many messages."""
        return self._settle(f"dropped:{reason}", ids)

    def release(self, ids: Sequence[int], not_before: float) -> None:
        """Give entries back where they stood and count an attempt."""
        rest = [part for item in ids for part in (item, self._end_of(item))]
        self._call("release", not_before, self._wall(), rest=rest)
        self._let_go(ids)

    def split(self, id: int) -> None:  # noqa: A002  # the word of the contract
        """Put two entries, each with half of the messages and ready, in one entry's place."""
        self._call("split", id, self._end_of(id))
        self._let_go((id,))

    def bury(self, id: int, refusals: Sequence[Refusal], now: float) -> bool:  # noqa: A002
        """Turn the named messages into dead letters and remove the entry, atomically."""
        rest = [part for item in refusals for part in (item.index, item.reason, encode(item.reply))]
        bounds = (MAX_DEAD_LETTERS, self._settings.outbox_max_bytes)
        was_there = bool(self._call("bury", id, now, self._wall(), *bounds, rest=rest))
        self._let_go((id,))
        return was_there

    def forget(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Remove what a stop at `at` ends under any key, and leave stop marks.

        What is very much goes in rounds: the marks come with the first, and nothing is leased then.
        """
        return self._forget("dropped:stopped", keys, at, now)

    def erase(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Forget as `forget` does, and remove such dead letters under the keys, too."""
        return self._forget("dropped:erased", keys, at, now)

    def dead(self, after: int = 0, limit: int = MAX_DEAD_LETTERS) -> Sequence[DeadLetter]:
        """Answer dead letters with a greater id than `after`, oldest first, at most `limit`."""
        letters: list[DeadLetter] = []
        while len(letters) < limit:
            count = min(ROUND, limit - len(letters))
            rows = self._call("dead", letters[-1].id if letters else after, count)
            letters += [_read_letter(*row) for row in rows]
            if len(rows) < count:
                break
        return tuple(letters)

    def replay(self, ids: Collection[int], now: float) -> int:
        """Put dead letters back at the end, to be sent again; very many in rounds."""
        return sum(int(self._call("replay", now, self._wall(), rest=part)) for part in _rounds(ids))

    def purge(self, ids: Collection[int]) -> int:
        """Delete dead letters, very many in rounds. Return how many."""
        return sum(int(self._call("purge", rest=part)) for part in _rounds(ids))

    def expire(self, now: float) -> int:
        """Give up what is older than `outbox_max_age`; dead letters of that age are deleted."""
        removed, has_more = 0, True
        while has_more:
            age = self._settings.outbox_max_age
            count, has_more = self._call("expire", now, self._wall(), age)
            removed += count
        return removed

    def tally(self, counts: Counts, ticket: Ticket | None = None) -> None:
        """Add what a process counted besides to the totals; with a ticket once."""
        ticket = ticket or Ticket("", 0)
        items = [(f"{name}:{reason}", number) for (name, reason), number in counts.items()]
        fixed = (ticket.source, ticket.number, self._wall(), self._wall())
        self._call("tally", *fixed, rest=[part for item in items for part in item])

    def horizon(self) -> Horizon:
        """Answer this moment, for `is_past`."""
        return (self._call("horizon"),)

    def is_past(self, horizon: Horizon) -> bool:
        """Answer whether nothing waits that was put before that moment."""
        return bool(self._call("is_past", horizon[0]))

    def stats(self) -> OutboxStats:
        """Answer how full the outbox is."""
        depth, size_bytes, oldest, dead, dead_bytes, aside, leased, totals = self._call("stats")
        pairs = zip(totals[::2], totals[1::2], strict=True)
        return OutboxStats(
            depth=depth,
            size_bytes=size_bytes,
            oldest_put_at=float(oldest) if oldest else None,
            dead=dead,
            dead_bytes=dead_bytes,
            behind_aliases=aside,
            leased=leased,
            totals={_read_counter(name): int(number) for name, number in pairs if int(number)},
        )

    def close(self) -> None:
        """Let go of the connections; a later call opens them again."""
        self._server.close()

    def _take_back(self) -> None:
        """Give back what a lease took whose answer did not come: nothing of it has left, and once
        it has run out nobody knows that.
        """
        if number := self._doubtful_lease:
            self._call("take_back", self._sender, number, int(LATE_SECONDS))
            self._doubtful_lease = 0

    def _hold(self, leased: Sequence[Leased], ends_at: bytes, now: float, seconds: float) -> None:
        """Remember a lease until it is settled, or has run out."""
        self._let_go([item for item, (_, until) in list(self._held.items()) if until <= now])
        self._held.update((item.id, (ends_at, now + seconds)) for item in leased)

    def _end_of(self, id: int) -> bytes:  # noqa: A002
        """Answer the end of the lease under which an entry is out; nothing without one."""
        return self._held.get(id, (b"", 0.0))[0]

    def _let_go(self, ids: Sequence[int]) -> None:
        for item in ids:
            self._held.pop(item, None)

    def _settle(self, reason: str, ids: Sequence[int]) -> int:
        removed = int(self._call("settle", reason, rest=ids))
        self._let_go(ids)
        return removed

    def _forget(self, reason: str, keys: Collection[bytes], at: float, now: float) -> int:
        # An empty key is everybody without a user ID.
        rest: Sequence[str | bytes] = [part for key in filter(None, keys) for part in (key, "0")]
        removed = 0
        while rest:
            # A visitor of very many events goes in rounds; the marks come with the first.
            count, *rest = self._call("forget", reason, at, now, MAX_STOP_MARKS, rest=rest)
            removed += count
        return removed

    def _bounds(self, now: float, ticket: Ticket | None = None) -> tuple[float, int, int]:
        settings = self._settings
        # By the clock of this host, which dated what it puts.
        oldest = find_oldest(settings.outbox_max_age, now, ticket)
        return oldest, settings.outbox_max_messages, settings.outbox_max_bytes

    def _compare(self, began: bytes) -> None:
        """Say so if the server has lost what this process had put."""
        if self._began and began != self._began:
            logger.error(
                "%s has lost the outbox: it is a new one, though this process has put before. What "
                "waited is gone, and the stop marks. docs/scaling.md says what it must keep.",
                self._server.name,
            )
        self._began = began

    def _call(self, name: str, *fixed: Argument, rest: Sequence[Argument] = ()) -> Any:
        answer = self._server.run(self._tag, (name, len(fixed), *fixed, *rest))
        if not self._has_seen_policy:
            self._has_seen_policy = True
            with suppress(OutboxUnavailable):
                self._tell_policy(self._server.run(self._tag, ("policy", 0)).decode())
        return answer

    def _tell_policy(self, policy: str) -> None:
        # The others take only keys that have a time to live; of ours only what nobody waits for.
        if policy.startswith("allkeys-"):
            logger.warning(
                "%s gives up any key when its memory is full (maxmemory-policy %s): events would "
                "be lost, and stops. Set it to noeviction, or use a server of its own.",
                self._server.name,
                policy,
            )


def _rounds(ids: Collection[int]) -> Iterator[list[int]]:
    """Answer ids in parts, oldest first, so that the server serves others between them."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), ROUND):
        yield ordered[start : start + ROUND]


def _line(endpoint: Endpoint) -> str:
    return endpoint.value[1]


def _pack_head(entry: Entry, put_at: float) -> bytes:
    flags = _REPEATABLE * entry.is_repeatable + _IDENTITY * entry.is_identity
    return (
        _HEAD.pack(
            _line(entry.endpoint).encode(),
            flags,
            len(entry.messages),
            entry.size_bytes,
            entry.tracked_at,
            put_at,
            len(entry.device_key),
        )
        + entry.device_key
        + entry.user_key
    )


def _unpack(head: bytes, payload: bytes) -> tuple[Entry, float]:
    """Answer an entry and when it was put."""
    line, flags, _, _, tracked_at, put_at, length = _HEAD.unpack_from(head)
    keys = head[_HEAD.size :]
    entry = Entry(
        endpoint=_ENDPOINTS[line],
        messages=unpack(payload),
        device_key=keys[:length],
        user_key=keys[length:],
        tracked_at=tracked_at,
        is_repeatable=bool(flags & _REPEATABLE),
        is_identity=bool(flags & _IDENTITY),
    )
    return entry, put_at


def _read_leased(id: int, head: bytes, payload: bytes, attempts: int, overdue: int) -> Leased:  # noqa: A002
    entry, put_at = _unpack(head, payload)
    return Leased(id, entry, attempts, put_at, is_overdue=overdue > 0)


def _read_letter(stream_id: bytes, values: Sequence[bytes]) -> DeadLetter:
    fields = dict(zip(values[::2], values[1::2], strict=True))
    entry, _ = _unpack(fields[b"head"], fields[b"message"])
    refusal = Refusal(0, fields[b"reason"].decode(), decode(fields[b"reply"]))
    return DeadLetter.of(entry, refusal, float(fields[b"at"]), int(stream_id.partition(b"-")[0]))


def _read_counter(name: bytes) -> tuple[str, str]:
    counter, _, reason = name.decode().partition(":")
    return counter, reason
