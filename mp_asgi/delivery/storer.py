"""Move what was submitted into the outbox. The network has no part in it and cannot delay it.

Nothing that the app's or a storage's code raises may end the thread, not even what Python lets pass
by `except Exception` (SystemExit, CancelledError, gevent's Timeout): nothing would be stored again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from mp_asgi.events import Entry, Stop

from .counters import Counters
from .outbox.base import Outbox

LINGER_SECONDS: Final = 0.005  # gathers a burst in one round; still stored "within 10 ms"

T = TypeVar("T")

logger = logging.getLogger("mp_asgi.delivery")


class Mark(threading.Event):
    """Stands in the intake and is set once everything before it is stored."""


class Intake(Generic[T]):
    """What was submitted and is not stored yet, in order. Appending takes no lock.

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

    def waiting(self) -> int:
        """Count the messages that are not stored yet."""
        while True:
            try:
                return self.in_hand + sum(count for _, count in tuple(self.items))
            except RuntimeError:  # another thread appended meanwhile
                continue

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


class Storer(Generic[T]):
    """Render what was submitted and put it into the outbox, in order.

    Args:
        intake: Where it comes from.
        outbox: Where it goes.
        render: Makes entries of an item. What it leaves out it counts itself as `dropped`; if
            it raises, the whole item is dropped as `unrenderable`.
        counters: Where the outcome is counted.
        clock: Answers seconds since the epoch.
        on_stored: Called after each round.
    """

    def __init__(
        self,
        *,
        intake: Intake[T],
        outbox: Outbox,
        render: Callable[[T], Sequence[Entry]],
        counters: Counters,
        clock: Callable[[], float],
        on_stored: Callable[[], None],
    ) -> None:
        self._intake = intake
        self._outbox = outbox
        self._render = render
        self._counters = counters
        self._clock = clock
        self._on_stored = on_stored
        self._told: set[str] = set()

    def run(self, stopping: threading.Event) -> None:
        """Store until `stopping` is set, and then what is left."""
        while not stopping.is_set():
            self._intake.wake.wait()
            stopping.wait(LINGER_SECONDS)
            self._intake.wake.clear()
            self.store()
        self.store()

    def store(self) -> None:
        """Store everything that was submitted before this call."""
        with self._intake.storing:
            taken = self._intake.take()
            # Stops first: between a put and its forget, a sender could take what was put. What
            # was tracked before a stop is refused by its mark, what came later is not concerned.
            for item, _ in taken:
                if isinstance(item, Stop):
                    self._forget(item)
            self._store_taken(taken)
        self._on_stored()

    def _store_taken(self, taken: Sequence[tuple[T | Stop | Mark, int]]) -> None:
        entries: list[Entry] = []
        count = 0
        for item, item_count in taken:
            if isinstance(item, Mark):
                self._put(entries, count)
                entries, count = [], 0
                item.set()
            elif not isinstance(item, Stop):
                entries.extend(self._entries_of(item, item_count))
                count += item_count
        self._put(entries, count)

    def _entries_of(self, item: T, count: int) -> Sequence[Entry]:
        try:
            entries = self._render(item)
        except BaseException as error:  # noqa: BLE001  # drops and counts this item, no other
            self._counters.count("accepted", count)
            self._counters.count("dropped", count, "unrenderable")
            text = "A hand-over could not be rendered; its events are dropped"
            self._tell("unrenderable", text, error)
            return ()
        # More than was announced is accepted, too; what is left out, `render` has counted.
        self._counters.count("accepted", max(count, _count_messages(entries)))
        return entries

    def _put(self, entries: Sequence[Entry], count: int) -> None:
        """Put entries that were submitted as `count` messages, and count what became of them."""
        try:
            result = self._outbox.put(entries, self._clock())
        except BaseException as error:  # noqa: BLE001  # foreign storage; dropped and counted
            self._counters.count("dropped", _count_messages(entries), "unstored")
            self._tell("unstored", "The outbox did not store; events are dropped", error)
        else:
            self._counters.count("dropped", result.stopped, "stopped")
            self._counters.count("dropped", result.overflowed, "overflow")
            if result.overflowed:
                self._tell("overflow", "The outbox is full; the newest events are dropped")
        self._intake.in_hand -= count

    def _forget(self, item: Stop) -> None:
        try:
            forgotten = self._outbox.forget(item.keys, item.at)
        except BaseException as error:  # noqa: BLE001  # foreign storage; the loss is said
            self._counters.count("stop_lost")
            self._tell("stop", "The outbox did not forget a visitor who denied", error)
        else:
            self._counters.count("dropped", forgotten, "stopped")

    def _tell(self, problem: str, text: str, error: BaseException | None = None) -> None:
        if problem not in self._told:
            self._told.add(problem)
            # Only the type: the text of a foreign error may quote a property.
            cause = type(error).__name__ if error else problem
            logger.error("%s (%s). More of the same are only counted.", text, cause)


def _count_messages(entries: Sequence[Entry]) -> int:
    return sum(len(entry.messages) for entry in entries)
