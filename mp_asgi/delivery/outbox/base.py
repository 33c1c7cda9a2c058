"""Say what an outbox promises: accept, lease, settle, forget. No storage is decided here.

`tests/delivery/outbox/contract.py` is this contract as tests; every outbox passes them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mp_asgi.events import Endpoint, Entry, Message

#: Endpoints whose messages name a distinct_id; a group is the same under every ID.
AWAITS_ALIASES: Final = frozenset({Endpoint.EVENTS, Endpoint.PEOPLE})


@dataclass(frozen=True, slots=True)
class Leased:
    """An entry that is taken for a while, to be acked, released, split or buried.

    Attributes:
        id: The number of the entry's first message in this outbox. It grows with each put, so
            ids tell the order; a split entry's second half has an id between its neighbours'.
        entry: What was put.
        attempts: How often it was released before.
        put_at: When it was accepted, in seconds since the epoch.
    """

    id: int
    entry: Entry
    attempts: int
    put_at: float


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
    """

    endpoint: Endpoint
    message: Message
    reason: str
    reply: str
    buried_at: float
    device_key: bytes
    user_key: bytes


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """How full an outbox is.

    Attributes:
        depth: Messages that wait, leased ones included.
        size_bytes: Bytes that they take.
        oldest_tracked_at: When the entry that waits longest was tracked, in seconds since the
            epoch; None when nothing waits.
        dead: Messages among the dead letters.
        first_id: The smallest id that waits; `next_id` when nothing waits.
        next_id: The id that the next entry gets. All that was put before a moment is gone once
            `first_id` has reached that moment's `next_id`.
        behind_aliases: Messages that wait until an alias of their user is settled.
    """

    depth: int
    size_bytes: int
    oldest_tracked_at: float | None
    dead: int
    first_id: int
    next_id: int
    behind_aliases: int


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of the messages of one put.

    Attributes:
        stored: Messages that wait now.
        stopped: Messages refused because of a stop mark.
        overflowed: Messages refused because the outbox was full.
    """

    stored: int
    stopped: int
    overflowed: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a lease on one endpoint could take now.

    Attributes:
        messages: Messages ready to go, 0 while the first entry is leased or held back. What stands
            aside for an alias is not among them.
        size_bytes: Bytes that they take.
        waiting_since: When the first of them was put, in seconds since the epoch.
    """

    messages: int
    size_bytes: int
    waiting_since: float


class Outbox(Protocol):
    """Where accepted entries wait for delivery. Thread-safe, bounded, first in, first out.

    An entry that is leased or held back holds back those behind it on its endpoint, so that
    profile updates and `$create_alias` keep their order (DESIGN section 5). An entry on
    `AWAITS_ALIASES` stands aside while an alias with its user key and a smaller id waits, ready or
    not: Mixpanel merges nothing of before (reference/mixpanel.md section 3), so the alias is
    acknowledged, or given up, before any event of that user leaves (RULES section 1, rule 5). Other
    users pass; then it returns to its place.

    Nothing under a stop mark ever waits: `forget` removes it and `put` refuses it, each
    atomically. Ids that are gone are ignored everywhere, so that a late ack after a forget settles
    nothing twice.
    """

    def put(self, entries: Sequence[Entry], now: float) -> PutResult:
        """Accept entries, each as a whole, in order.

        An entry tracked at or before a stop mark of its device or user key is refused. When
        full by messages or bytes the newest is refused, but never one with `is_identity`.
        """
        ...

    def backlog(self, endpoint: Endpoint, now: float) -> Backlog:
        """Answer what could be leased now, at a cost that does not grow with the depth."""
        ...

    def lease(
        self, endpoint: Endpoint, now: float, *, max_messages: int, max_bytes: int, seconds: float
    ) -> list[Leased]:
        """Take whole entries, oldest first, for `seconds`; after that they return.

        At least one entry if any is ready, even if it alone exceeds a maximum. An entry that is
        not repeatable is taken alone, so that no other entry's fate makes it go twice.
        """
        ...

    def ack(self, ids: Sequence[int]) -> int:
        """Remove delivered entries. Return how many messages that settled."""
        ...

    def release(self, ids: Sequence[int], not_before: float) -> None:
        """Give entries back where they stood and count an attempt; ready from `not_before`."""
        ...

    def split(self, id: int) -> None:  # noqa: A002  # the word of the contract
        """Put two entries, each with half of the messages and ready, in one entry's place."""
        ...

    def bury(self, id: int, refusals: Sequence[Refusal], now: float) -> bool:  # noqa: A002
        """Turn the named messages into dead letters and remove the entry, atomically.

        The messages that are not named count as delivered. Return whether the entry was there.
        """
        ...

    def forget(self, keys: Collection[bytes], at: float) -> int:
        """Remove what was tracked at or before `at` under any key, leased or not.

        A stop mark with the newest `at` of each key stays for the retry budget; no later grant
        lifts it (RULES section 2.3). Return the number of messages removed.
        """
        ...

    def erase(self, keys: Collection[bytes], at: float) -> int:
        """Forget as `forget` does, and remove the dead letters under the keys, too.

        Return the number of messages removed, dead letters not counted.
        """
        ...

    def dead(self) -> Sequence[DeadLetter]:
        """Answer the dead letters, oldest first."""
        ...

    def stats(self) -> OutboxStats:
        """Answer how full the outbox is."""
        ...
