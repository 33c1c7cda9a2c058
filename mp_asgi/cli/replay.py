"""Put dead letters back, as far as there is room. Which ones is chosen elsewhere."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from mp_asgi.delivery.outbox.base import Outbox
from mp_asgi.settings import Settings

from .room import Room, find_room

_AT_ONCE: Final = 100  # letters: visitors' events come between two looks at the room


def replay(
    outbox: Outbox, sizes: Mapping[int, int], settings: Settings, clock: Callable[[], float]
) -> tuple[int, int]:
    """Put letters back, oldest first, until `SHARE` of the outbox is full.

    Args:
        outbox: Whose they are.
        sizes: Bytes of each letter's message, by its number.
        settings: With the outbox's bounds.
        clock: Answers seconds since the epoch.

    Returns:
        How many wait again, and for how many there was no room.

    Raises:
        OutboxUnavailable: The outbox does not answer.
    """
    left = deque(sorted(sizes.items()))
    replayed = 0
    while portion := _take(left, find_room(outbox, settings)):
        replayed += outbox.replay(portion, clock())
    return replayed, len(left)


def _take(left: deque[tuple[int, int]], room: Room) -> list[int]:
    """Take the next letters that fit together; one always fits where nothing waits."""
    taken: list[int] = []
    size_bytes = 0
    while left and len(taken) < _AT_ONCE:
        number, size = left[0]
        is_alone = room.is_empty and not taken
        if not (is_alone or room.holds(len(taken) + 1, size_bytes + size)):
            break
        left.popleft()
        taken.append(number)
        size_bytes += size
    return taken
