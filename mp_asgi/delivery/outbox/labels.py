"""Say on an entry in the spool how it was put, and make an entry of what else is owed.

A spool keeps entries and nothing beside them, so that the first message's name carries the label.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Self

from mp_asgi.events import Endpoint, Entry, Message

from .base import Counts, Outbox, Ticket


class Kind(Enum):
    """What an entry in the spool is."""

    SURE = "sure"  # what was never put
    DOUBTFUL = "doubtful"  # what was put, and nobody knows whether that was done
    STOP = "stop"  # what the shared outbox did not hear of
    ERASURE = "erasure"
    TALLY = "tally"  # counts of which nobody knows whether it has them


@dataclass(frozen=True, slots=True)
class Label:
    """How an entry was put.

    Attributes:
        kind: What it is.
        source: Of the ticket of its put.
        number: Of that ticket.
        index: Of the entry in its put.
    """

    kind: Kind
    source: str
    number: int
    index: int

    @property
    def ticket(self) -> Ticket:
        """Of the put."""
        return Ticket(self.source, self.number)

    @property
    def name(self) -> str:
        """What no other entry is called."""
        return f"{self.source}.{self.number}.{self.index}"

    def put_on(self, entry: Entry) -> Entry:
        """Answer the entry with this label."""
        return _rename(entry, f"{self.kind.value}.{self.name}.{entry.messages[0].name}")

    @classmethod
    def take_off(cls, entry: Entry) -> tuple[Self, Entry]:
        """Answer an entry's label, and the entry without it."""
        kind, source, number, index, name = entry.messages[0].name.split(".", 4)
        return cls(Kind(kind), source, int(number), int(index)), _rename(entry, name)


@dataclass(frozen=True, slots=True)
class OwedStop:
    """A stop or an erasure, with which of the two it is.

    Attributes:
        kind: Which of the two.
        keys: Of the visitors.
        at: What was tracked until then goes.
    """

    kind: Kind
    keys: tuple[bytes, ...]
    at: float

    def apply(self, outbox: Outbox, now: float) -> int:
        """Stop or erase there. Return how many messages went."""
        is_erasure = self.kind is Kind.ERASURE
        return (outbox.erase if is_erasure else outbox.forget)(self.keys, self.at, now)


def owe_stop(stop: OwedStop, source: str) -> Entry:
    """Answer an entry, for `read_stop`."""
    return _owe({"keys": [key.hex() for key in stop.keys], "at": stop.at}, source)


def read_stop(kind: Kind, entry: Entry) -> OwedStop:
    """Answer what is owed."""
    owed: Mapping[str, Any] = json.loads(entry.messages[0].body)
    return OwedStop(kind, tuple(map(bytes.fromhex, owed["keys"])), owed["at"])


def owe_counts(counts: Counts, source: str) -> Entry:
    """Answer an entry, for `read_counts`."""
    return _owe([(*name, number) for name, number in counts.items()], source)


def read_counts(entry: Entry) -> Counts:
    """Answer what is owed."""
    owed = json.loads(entry.messages[0].body)
    return {(name, reason): number for name, reason, number in owed}


def _owe(what: Any, source: str) -> Entry:
    """Answer an entry that no stop removes and that stays when the spool is full."""
    # Aliases are handed over first; it is nobody's, so that it holds nobody back.
    return Entry(
        endpoint=Endpoint.ALIASES,
        messages=(Message("", json.dumps(what).encode()),),
        device_key=f"owed by {source}".encode(),
        user_key=b"",
        # A spool that is new since another was damaged stops all of before, but this is no event.
        tracked_at=math.inf,
        is_identity=True,
    )


def _rename(entry: Entry, name: str) -> Entry:
    first, *others = entry.messages
    return replace(entry, messages=(replace(first, name=name), *others))
