"""Say how much an operator may put into an outbox at once, so that visitors' events still fit."""

from dataclasses import dataclass
from typing import Final

from mp_asgi.delivery.outbox.base import Outbox
from mp_asgi.settings import Settings

SHARE: Final = 0.5  # of the outbox that an operator may fill: the rest is the visitors'


@dataclass(frozen=True, slots=True)
class Room:
    """What of an outbox is free.

    Attributes:
        is_empty: Whether nothing waits there at all.
        messages: How many more it may hold; below 0 if it has too many already.
        size_bytes: How many bytes more.
    """

    is_empty: bool
    messages: float
    size_bytes: float

    def holds(self, messages: int, size_bytes: int) -> bool:
        """Whether so much fits."""
        return messages <= self.messages and size_bytes <= self.size_bytes


def find_room(outbox: Outbox, settings: Settings, share: float = SHARE) -> Room:
    """Answer what a share of an outbox has free.

    Raises:
        OutboxUnavailable: It does not answer.
    """
    stats = outbox.stats()
    return Room(
        not stats.depth,
        settings.outbox_max_messages * share - stats.depth,
        settings.outbox_max_bytes * share - stats.size_bytes,
    )
