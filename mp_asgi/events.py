"""Name what is delivered: messages, the entries that carry them, and the stops that forget them.

The request tower makes these, the delivery tower carries them; neither imports the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

MAX_BATCH_MESSAGES = 2000  # messages a request, Mixpanel docs reference/import-events
MAX_BATCH_BYTES = 1_900_000  # uncompressed; stays below the 2 MiB that a live 413 names
MAX_MESSAGE_BYTES = 1_000_000  # "less than 1 MB", reference/import-events


class Endpoint(Enum):
    """Where a message goes. The value is the path on Mixpanel's ingestion host."""

    EVENTS = "/import"
    PEOPLE = "/engage"
    GROUPS = "/groups"


@dataclass(frozen=True, slots=True)
class Message:
    """One event or one profile update, frozen as the bytes of one JSON object.

    A retry repeats these bytes, so that event, time, distinct_id and `$insert_id` stay
    equal and Mixpanel counts once (docs reference/event-deduplication).

    Attributes:
        name: The event's name or the profile operation, for logs and dead letters.
        body: UTF-8 JSON of one object, below `MAX_MESSAGE_BYTES`.
        insert_id: The dedupe key; empty for profile updates, which have none.
    """

    name: str
    body: bytes
    insert_id: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one hand-over holds of one visitor for one endpoint: the unit of the outbox.

    Attributes:
        endpoint: Where the messages go.
        messages: At least one, in the order of the calls.
        device_key: Keyed hash of the visitor's device ID.
        user_key: Keyed hash of the visitor's user ID; empty without one.
        tracked_at: Seconds since the epoch of the earliest message. A stop mark at or after
            this time stops the entry.
        is_repeatable: False if a message would count twice when it is sent twice
            (`$add`, `$append`): it is not repeated after a lost answer.
        is_identity: True if it carries an identity event, which is never dropped when full.
    """

    endpoint: Endpoint
    messages: tuple[Message, ...]
    device_key: bytes
    user_key: bytes
    tracked_at: float
    is_repeatable: bool = True
    is_identity: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes that the messages take in a batch, separators included."""
        return sum(len(message.body) + 1 for message in self.messages)


@dataclass(frozen=True, slots=True)
class Stop:
    """A denial on its way to the outbox: forget what waits under these keys.

    Attributes:
        keys: Keyed hashes of device and user IDs, none of them empty.
        at: Seconds since the epoch; nothing tracked at or before it may leave.
    """

    keys: Sequence[bytes]
    at: float
