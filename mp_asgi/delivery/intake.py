"""Hold what was submitted and is not stored yet, in order. Appending takes no lock."""

import threading
from collections import deque
from typing import Generic, TypeVar

from mp_asgi.events import Stop

T = TypeVar("T")


class Mark(threading.Event):
    """Stands in the intake and is set once everything before it is stored."""


class Intake(Generic[T]):
    """What was submitted, until a storer has stored it.

    Attributes:
        items: Each submitted item with the number of its messages.
        messages: How many messages the items hold, nearly: a race of two threads may lose one
            addition, and each round of the storer starts from zero again.
        in_hand: Messages that the storer has taken and not stored yet.
        wake: Set when there is something to store.
        storing: Held while a round stores, so that two storers keep the order.
    """

    def __init__(self) -> None:
        self.items: deque[tuple[T | Stop | Mark, int]] = deque()
        self.messages = 0
        self.in_hand = 0
        self.wake = threading.Event()
        self.storing = threading.Lock()

    def mark(self) -> Mark:
        """Answer what is set once everything that was submitted before this call is stored."""
        mark = Mark()
        self.items.append((mark, 0))
        self.wake.set()
        return mark

    def waiting(self) -> int:
        """Count the messages that are not stored yet."""
        # In this order: what a storer takes meanwhile counts twice, and is not missed.
        waiting = sum(count for _, count in self._peek())
        return waiting + self.in_hand

    def has_items(self) -> bool:
        """Whether anything waits to be taken, stops included, which hold no message."""
        return any(not isinstance(item, Mark) for item, _ in self._peek())

    def take(self) -> list[tuple[T | Stop | Mark, int]]:
        """Take everything, oldest first."""
        taken = []
        while self.items:
            item = self.items[0]
            # Seen in one place or the other at any time, for a moment in both.
            self.in_hand += item[1]
            taken.append(self.items.popleft())
        self.messages = 0
        return taken

    def take_left(self, patience_seconds: float) -> tuple[list[tuple[T | Stop | Mark, int]], int]:
        """Take everything for the end of the process. What is submitted meanwhile is left to those
        who submit it.

        Args:
            patience_seconds: How long to wait for whoever stores; one that hangs, for ever.

        Returns:
            The items, and how many messages somebody has taken before and does not get stored.
        """
        is_free = self.storing.acquire(timeout=patience_seconds)
        try:
            taken = self.take()
            self.in_hand -= sum(count for _, count in taken)
            return taken, 0 if is_free else self.in_hand
        finally:
            if is_free:
                self.storing.release()

    def _peek(self) -> tuple[tuple[T | Stop | Mark, int], ...]:
        while True:
            try:
                return tuple(self.items)
            except RuntimeError:  # another thread appended meanwhile
                continue
