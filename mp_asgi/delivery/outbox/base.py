"""Say what an outbox promises: accept, lease, settle, forget. No storage is decided here.

`tests/delivery/outbox/contract.py` is this contract as tests; every outbox passes them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from mp_asgi.events import Endpoint, Entry, Message

#: Endpoints whose messages name a distinct_id; a group is the same under every ID.
AWAITS_ALIASES: Final = frozenset({Endpoint.EVENTS, Endpoint.PEOPLE})
#: Endpoints on which one lease at a time is out: what is said of a profile keeps its order.
KEEPS_ORDER: Final = frozenset({Endpoint.ALIASES, Endpoint.PEOPLE, Endpoint.GROUPS})

MAX_UNREPEATABLE: Final = 50
"""Messages in a lease that are not repeatable; as many share the fate of a lost answer."""

MAX_DEAD_LETTERS: Final = 100_000
"""Dead letters that an outbox keeps; beyond it, and beyond `outbox_max_bytes` of them, the oldest
are given up, and counted `letters_lost`."""

MAX_STOP_MARKS: Final = 100_000
"""Stop marks that an outbox keeps: a stop has already removed what waits; its mark guards
latecomers."""

Counts = Mapping[tuple[str, str], int]
"""Numbers by counter and reason; the reason is empty where there is none."""
Horizon = tuple[int, ...]
"""A moment of an outbox: behind all that was put before. Opaque to whoever holds it."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where entries come from, so that what is handed in twice is taken once.

    Attributes:
        source: A journal, a spool or a file, by a name that no other has.
        number: Of the last thing in the source that these entries are of. Grows; whatever is at
            or below the greatest number of a source that an outbox has seen, it has. It is
            known for at least `outbox_max_age` after the outbox last met one of the source.
        is_historical: Whether somebody answers for what was tracked before any stop mark that is
            kept: that all of these agreed, and none of them has withdrawn since.
    """

    source: str
    number: int
    is_historical: bool = False


@dataclass(frozen=True, slots=True)
class Leased:
    """An entry that is taken for a while, to be acked, released, split or buried.

    Attributes:
        id: The number of the entry's first message in this outbox. It grows with each put, so
            ids tell the order; a split entry's second half has an id between its neighbours'.
        entry: What was put.
        attempts: How often it was released before.
        put_at: When it was accepted, in seconds since the epoch.
        is_overdue: Whoever leased it before let the lease run out, and may have sent it.
    """

    id: int
    entry: Entry
    attempts: int
    put_at: float
    is_overdue: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one message of an entry will never be delivered.

    Attributes:
        index: Where the message stands in its entry, from 0.
        reason: The label under which it is counted, for example `rejected`.
        reply: What Mixpanel said, at most 500 characters; empty if it said nothing.
    """

    index: int
    reason: str
    reply: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A buried message with its reason, kept so that nothing is lost silently.

    Attributes:
        endpoint: Where the message was meant to go.
        message: The message as it was accepted.
        reason: The refusal's reason.
        reply: The refusal's reply.
        buried_at: Seconds since the epoch.
        device_key: Keyed hash of the visitor's device ID, to look it up under a stop mark.
        user_key: Keyed hash of the visitor's user ID; empty without one.
        id: Its number among the dead letters of its outbox; grows.
        tracked_at: When its entry was tracked, in seconds since the epoch.
        is_repeatable: As of its entry.
        is_identity: As of its entry.
    """

    endpoint: Endpoint
    message: Message
    reason: str
    reply: str
    buried_at: float
    device_key: bytes
    user_key: bytes
    id: int = 0
    tracked_at: float = 0.0
    is_repeatable: bool = True
    is_identity: bool = False

    @classmethod
    def of(cls, entry: Entry, refusal: Refusal, buried_at: float, id: int) -> Self:  # noqa: A002
        """Bury one message of an entry."""
        return cls(
            endpoint=entry.endpoint,
            message=entry.messages[refusal.index],
            reason=refusal.reason,
            reply=refusal.reply,
            buried_at=buried_at,
            device_key=entry.device_key,
            user_key=entry.user_key,
            id=id,
            tracked_at=entry.tracked_at,
            is_repeatable=entry.is_repeatable,
            is_identity=entry.is_identity,
        )

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes, in the measure of what waits."""
        return len(self.message.body) + 1

    def to_entry(self) -> Entry:
        """Answer what goes to Mixpanel when the letter is replayed."""
        return Entry(
            endpoint=self.endpoint,
            messages=(self.message,),
            device_key=self.device_key,
            user_key=self.user_key,
            tracked_at=self.tracked_at,
            is_repeatable=self.is_repeatable,
            is_identity=self.is_identity,
        )


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """How full an outbox is.

    Attributes:
        depth: Messages that wait, leased ones included.
        size_bytes: Bytes that they take.
        oldest_put_at: When the entry that waits longest was put, in seconds since the epoch; None
            when nothing waits. What is imported was tracked long before.
        dead: Messages among the dead letters.
        behind_aliases: Messages that wait until an alias of their user is settled.
        leased: Messages under a lease.
        totals: What was counted since the outbox was made, by everybody who shares it.
        log_bytes: Bytes of a file's write-ahead log, which comes on top of what waits.
        dead_bytes: Bytes that the dead letters take, which come on top of what waits, too.
    """

    depth: int
    size_bytes: int
    oldest_put_at: float | None
    dead: int
    behind_aliases: int
    leased: int = 0
    totals: Counts = field(default_factory=dict)
    log_bytes: int = 0
    dead_bytes: int = 0

    def __add__(self, other: Self) -> Self:
        """Answer how full two outboxes are together."""
        totals = Counter(self.totals)
        totals.update(other.totals)
        oldest = (self.oldest_put_at, other.oldest_put_at)
        return type(self)(
            depth=self.depth + other.depth,
            size_bytes=self.size_bytes + other.size_bytes,
            oldest_put_at=min((at for at in oldest if at is not None), default=None),
            dead=self.dead + other.dead,
            behind_aliases=self.behind_aliases + other.behind_aliases,
            leased=self.leased + other.leased,
            totals=totals,
            log_bytes=self.log_bytes + other.log_bytes,
            dead_bytes=self.dead_bytes + other.dead_bytes,
        )


NO_STATS: Final = OutboxStats(0, 0, None, 0, 0)
"""Of an outbox in which nothing is, or of which nothing is known."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of the messages of one put.

    Attributes:
        stored: Messages that wait now.
        stopped: Messages refused because of a stop mark.
        overflowed: Messages refused because the outbox was full.
        too_old: Messages refused because nobody knows any more whether they were stopped.
    """

    stored: int
    stopped: int
    overflowed: int
    too_old: int = 0

    def __add__(self, other: Self) -> Self:
        """Answer what became of the messages of two puts."""
        return type(self)(
            self.stored + other.stored,
            self.stopped + other.stopped,
            self.overflowed + other.overflowed,
            self.too_old + other.too_old,
        )

    @property
    def accepted(self) -> int:
        """Messages that were not taken before, whatever became of them."""
        return self.stored + self.stopped + self.overflowed + self.too_old


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a lease on one endpoint could take now.

    Attributes:
        messages: Messages ready to go; on `KEEPS_ORDER` 0 while the first entry is leased or held
            back. What stands aside for an alias is not among them.
        size_bytes: Bytes that they take.
        waiting_since: When the first of them was put, in seconds since the epoch.
    """

    messages: int
    size_bytes: int
    waiting_since: float


def fill(ready: Iterable[Leased], max_messages: int, max_bytes: int) -> list[Leased]:
    """Take from what is ready, oldest first, what one lease may hold; `Outbox.lease` says it."""
    taken: list[Leased] = []
    for leased in ready:
        entry = leased.entry
        if not entry.is_repeatable and not taken:
            max_messages = min(max_messages, MAX_UNREPEATABLE)
        max_messages -= len(entry.messages)
        max_bytes -= entry.size_bytes
        is_too_much = max_messages < 0 or max_bytes < 0
        if taken and (is_too_much or entry.is_repeatable != taken[0].entry.is_repeatable):
            break
        taken.append(leased)
    return taken


class Outbox(Protocol):
    """Where accepted entries wait for delivery. Thread-safe, bounded, first in, first out.

    On `KEEPS_ORDER` an entry that is leased or held back holds back those behind it, so that
    profile updates and `$create_alias` keep their order (DESIGN section 5). On the others several
    senders may each hold a lease. An entry on `AWAITS_ALIASES` stands aside while an alias with its
    user key and a smaller id waits, ready or not: Mixpanel merges nothing of before
    (reference/mixpanel.md section 3), so the alias is acknowledged, or given up, before any event
    of that user leaves (RULES section 1, rule 5). Other users pass; then it returns to its place.

    Nothing under a stop mark is ever leased: `forget` removes it and `put` refuses it, each
    atomically; what is very much may be removed in rounds, before `forget` returns. Ids that are
    gone are ignored everywhere, so that a late ack after a forget settles nothing twice.

    Every message that is put is accounted for in `stats().totals`, in the same transaction as the
    change itself: `accepted + replayed == delivered + waiting + buried + dropped`, the last two
    summed over their reasons. `docs/operations.md` has the names.

    Methods raise `OutboxUnavailable`, and nothing else, when the storage fails; nothing of the call
    was done then, but of what goes in rounds (a stop, a replay, a purge) a part may be done, and
    what a lease took is given back before the next one, not overdue.

    Attributes:
        is_shared: Whether other processes put, and deliver, what waits here.
        is_durable: Whether what waits is still there when the process is not.
    """

    is_shared: bool
    is_durable: bool

    def put(self, entries: Sequence[Entry], now: float, ticket: Ticket | None = None) -> PutResult:
        """Accept entries, each as a whole, in order.

        An entry that a stop mark of its device or user key ends (`stopping.is_ended`) is refused,
        and so is one that may have met a mark that is gone (`stopping.find_oldest`). When full by
        messages or bytes the newest is refused, but never one with `is_identity`. With a ticket
        that the outbox has seen no entry is taken or counted; it is known for as long again.
        Marks more than `stopping.CLOCK_SECONDS` ahead are set to now, here and in `expire`.
        Counts `accepted`, and `dropped` as `stopped`, `too_old` or `overflow`.
        """
        ...

    def backlog(self, endpoint: Endpoint, now: float) -> Backlog:
        """Answer what could be leased now, at a cost that does not grow with the depth."""
        ...

    def lease(
        self, endpoint: Endpoint, now: float, *, max_messages: int, max_bytes: int, seconds: float
    ) -> list[Leased]:
        """Take whole entries, oldest first, for `seconds`; after that they return.

        At least one entry if any is ready, even if it alone exceeds a maximum. Entries that are
        not repeatable are taken without any that are, so that no other entry's fate makes them go
        twice, and at most `MAX_UNREPEATABLE` messages of them. A lease that would last longer than
        twice `seconds` from now has run out: the clock was set back. What ran out several times may
        be leased alone: perhaps it kills who sends it.
        """
        ...

    def ack(self, ids: Sequence[int]) -> int:
        """Remove delivered entries. Return how many messages that settled, counted `delivered`."""
        ...

    def drop(self, ids: Sequence[int], reason: str) -> int:
        """Remove entries that may not leave. Return how many messages, counted `dropped`."""
        ...

    def release(self, ids: Sequence[int], not_before: float) -> None:
        """Give entries back where they stood and count an attempt; ready from `not_before`.

        Whoever gives back knows what became of them: they are not overdue any more.
        """
        ...

    def split(self, id: int) -> None:  # noqa: A002  # the word of the contract
        """Put two entries, each with half of the messages and ready, in one entry's place.

        Each was tried as often as the whole.
        """
        ...

    def bury(self, id: int, refusals: Sequence[Refusal], now: float) -> bool:  # noqa: A002
        """Turn the named messages into dead letters and remove the entry, atomically.

        The messages that are not named count as delivered. Return whether the entry was there.
        Counts `buried` by reason, and `delivered`; and `letters_lost` for the oldest beyond
        `MAX_DEAD_LETTERS` or `outbox_max_bytes`.
        """
        ...

    def forget(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Remove what a stop at `at` ends (`stopping.is_ended`) under any key, leased or not.

        A stop mark with the newest `at` of each key stays for `outbox_max_age`, as long as any dead
        letter that it holds back; no later grant lifts it (RULES section 2.3). A letter that was
        buried after `at` would be kept for longer than its mark: of a stop that comes late it goes,
        too. Return the number of messages removed, dead letters not counted; they count `dropped`
        as `stopped`.
        """
        ...

    def erase(self, keys: Collection[bytes], at: float, now: float) -> int:
        """Forget as `forget` does, and remove such dead letters under the keys, too.

        Return the number of messages removed, dead letters not counted; they count `dropped` as
        `erased`. Raises, too, when only a part could be done; it is no harm to erase again.
        """
        ...

    def dead(self, after: int = 0, limit: int = MAX_DEAD_LETTERS) -> Sequence[DeadLetter]:
        """Answer dead letters with a greater id than `after`, oldest first, at most `limit`."""
        ...

    def replay(self, ids: Collection[int], now: float) -> int:
        """Put dead letters back at the end, to be sent again; their stop marks still hold.

        Return how many wait again, counted `replayed`. What a stop mark holds stays a dead letter.
        """
        ...

    def purge(self, ids: Collection[int]) -> int:
        """Delete dead letters. Return how many; they stay counted as `buried`."""
        ...

    def expire(self, now: float) -> int:
        """Give up what is older than `outbox_max_age`; dead letters of that age are deleted.

        Stop marks go here, after the letters. What was put by a clock that was ahead holds nothing
        else back.

        Return how many messages that waited, counted `dropped` as `too_old`.
        """
        ...

    def tally(self, counts: Counts) -> None:
        """Add what a process counted besides to the totals."""
        ...

    def horizon(self) -> Horizon:
        """Answer this moment, for `is_past`."""
        ...

    def is_past(self, horizon: Horizon) -> bool:
        """Answer whether nothing waits that was put before that moment."""
        ...

    def stats(self) -> OutboxStats:
        """Answer how full the outbox is."""
        ...

    def close(self) -> None:
        """Let go of files and connections; a later call opens them again."""
        ...
