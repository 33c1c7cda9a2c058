"""Move what was submitted into the outbox. The network has no part in it and cannot delay it.

What a journal holds stays there until the outbox has it; what only memory holds is lost with a
storage that fails.

Nothing that the app's or a storage's code raises may end the thread, not even what Python lets pass
by `except Exception` (SystemExit, CancelledError, gevent's Timeout): nothing would be stored again.
"""

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Entry, Stop

from .counters import Counters
from .intake import Intake, Mark
from .journal import Group, Record
from .lanes import remaining
from .log import logger
from .mover import Mover, Shelf
from .outbox.base import Outbox, PutResult, Ticket

LINGER_SECONDS: Final = 0.005  # gathers a burst in one round; still stored "within 10 ms"

TALLY_SECONDS: Final = 1.0  # between two tellings of what was counted before the outbox
IDLE_SECONDS: Final = 10.0  # until what was only refused is told, too

T = TypeVar("T")


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
        shelf: The journals to move, if there may be any.

    Attributes:
        stored_at: Seconds since the epoch when the outbox last took something; None before.
        has_heard: Set once no stop is left in a journal that is older than this: before, nothing
            of the outbox may leave.
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
        shelf: Shelf[T] | None = None,
    ) -> None:
        self.stored_at: float | None = None
        self.has_heard = threading.Event()
        self._intake = intake
        self._outbox = outbox
        self._render = render
        self._counters = counters
        self._clock = clock
        self._on_stored = on_stored
        self._told: set[str] = set()
        self._tallied_at = -math.inf
        self._mover = None if shelf is None else self._make_mover(shelf)
        self._rendered: tuple[Ticket, list[Entry]] | None = None

    def run(self, stopping: threading.Event) -> None:
        """Store until `stopping` is set, and then what is left."""
        while not stopping.is_set():
            self._intake.wake.wait(IDLE_SECONDS if self._mover is None else self._mover.patience())
            stopping.wait(LINGER_SECONDS)
            self._intake.wake.clear()
            self.store()
            if not remaining(TALLY_SECONDS, self._tallied_at, self._clock()):
                self.tally()
        self.end()

    def end(self) -> None:
        """Store what is left; what the outbox does not take stays in its journal."""
        self.store()
        self.tally()
        if self._mover is not None:
            self._mover.end()

    def tally(self) -> None:
        """Tell the outbox what was counted before it."""
        try:
            self._counters.tell(self._outbox.tally)
        except BaseException as error:  # noqa: BLE001  # foreign storage; told again later
            self._tell("tally", "The outbox did not take what was counted", error)
        self._tallied_at = self._clock()

    def hurry(self) -> None:
        """Let nothing that the outbox has stay in the journal after the next round."""
        if self._mover is not None:
            self._mover.is_hurried = True

    def store(self) -> None:
        """Store everything that was submitted before this call."""
        with self._intake.storing:
            taken = self._intake.take()
            self._count_kept()
            # Stops first: between a put and its forget, a sender could take what was put. What
            # was tracked before a stop is refused by its mark, what came later is not concerned.
            for item, _ in taken:
                if isinstance(item, Stop):
                    self._forget(item)
            marks = [item for item, _ in taken if isinstance(item, Mark)]
            is_moved = self._move(is_flushing=bool(marks))
            self._store_taken(taken)  # only memory holds it: others' journals can wait
            self._answer(marks, is_moved=is_moved and self._adopt())
        self._on_stored()

    def _move(self, *, is_flushing: bool) -> bool:
        """Move what this process's journal holds. Return whether the outbox has it."""
        mover = self._mover
        if mover is None:
            self.has_heard.set()
            return True
        mover.hear()
        if mover.has_heard:
            self.has_heard.set()
        is_moved = mover.move(is_flushing=is_flushing)
        self._count_kept()
        return is_moved

    def _adopt(self) -> bool:
        """Move what others' journals hold. Return whether the outbox has it."""
        return self._mover is None or self._mover.adopt()

    def _answer(self, marks: Sequence[Mark], *, is_moved: bool) -> None:
        for mark in marks:
            if is_moved:
                mark.set()
            else:  # whoever waits for it waits for the journals, too
                self._intake.items.append((mark, 0))

    def _count_kept(self) -> None:
        """Let what the journal keeps count for the bound of the intake."""
        if self._mover is not None and self._mover.journal is not None:
            self._intake.messages = self._mover.journal.waiting

    def _make_mover(self, shelf: Shelf[T]) -> Mover:
        return Mover(
            shelf,
            forget=partial(self._obey_record, unpack=shelf.unpack),
            store=partial(self._store_group, unpack=shelf.unpack),
            clock=self._clock,
            on_deleted=partial(self._counters.count, "journal_failed"),
            on_damaged=self._lose_damaged,
            is_pressed=self._intake.has_items,
        )

    def _obey_record(self, record: Record, *, unpack: Callable[[bytes], T | Stop]) -> bool:
        """Forget what a record stops. Return whether the outbox has it, or nobody ever will."""
        try:
            item = unpack(record.body)
        except Exception:  # noqa: BLE001  # is counted where it is put
            return True
        if not isinstance(item, Stop):
            return True
        try:
            self._forget_or_raise(item)
        except OutboxUnavailable as error:
            self._tell_unmoved(error)
            return False
        except BaseException as error:  # noqa: BLE001  # a bug, and no waiting mends it
            self._lose_stop(error)
        self.hurry()
        return True

    def _store_group(self, group: Group, *, unpack: Callable[[bytes], T | Stop]) -> bool:
        """Put what a journal holds. Return whether the outbox has it, or nobody ever will."""
        try:
            if self._rendered is None or self._rendered[0] != group.ticket:
                self._rendered = (group.ticket, self._render_group(group, unpack))
            result = self._outbox.put(self._rendered[1], self._clock(), group.ticket)
        except OutboxUnavailable as error:
            self._tell_unmoved(error)
            return False
        except BaseException as error:  # noqa: BLE001  # a bug, and no waiting mends it
            self._lose(sum(record.messages for record in group.records), error)
        else:
            self._count(result)
        self._rendered = None
        return True

    def _render_group(self, group: Group, unpack: Callable[[bytes], T | Stop]) -> list[Entry]:
        """Render a group, but for stops: they are obeyed before any of it is put."""
        entries: list[Entry] = []
        for record in group.records:
            try:
                item = unpack(record.body)
            except Exception as error:  # noqa: BLE001  # drops and counts this item, no other
                self._give_up(record.messages, error)
                continue
            if not isinstance(item, Stop):
                entries.extend(self._entries_of(item, record.messages))
        return entries

    def _store_taken(self, taken: Sequence[tuple[T | Stop | Mark, int]]) -> None:
        entries: list[Entry] = []
        count = 0
        for item, item_count in taken:
            if not isinstance(item, Stop | Mark):
                entries.extend(self._entries_of(item, item_count))
                count += item_count
        self._put(entries, count)

    def _entries_of(self, item: T, count: int) -> Sequence[Entry]:
        try:
            entries = self._render(item)
        except BaseException as error:  # noqa: BLE001  # drops and counts this item, no other
            self._give_up(count, error)
            return ()
        # What is left out, `render` has counted; what is put, the outbox counts.
        if left_out := max(0, count - _count_messages(entries)):
            self._counters.count("accepted", left_out)
        return entries

    def _put(self, entries: Sequence[Entry], count: int) -> None:
        """Put entries that were submitted as `count` messages, and count what became of them."""
        if not entries:
            self._intake.in_hand -= count
            return
        try:
            result = self._outbox.put(entries, self._clock())
        except BaseException as error:  # noqa: BLE001  # foreign storage; dropped and counted
            self._lose(_count_messages(entries), error)
        else:
            self._count(result)
        self._intake.in_hand -= count

    def _count(self, result: PutResult) -> None:
        self.stored_at = self._clock()
        self._counters.echo("accepted", result.accepted)
        self._counters.echo("dropped", result.stopped, "stopped")
        self._counters.echo("dropped", result.too_old, "too_old")
        self._counters.echo("dropped", result.overflowed, "overflow")
        if result.overflowed:
            self._tell("overflow", "The outbox is full; the newest events are dropped")

    def _lose(self, messages: int, error: BaseException) -> None:
        self._counters.count("accepted", messages)
        self._counters.count("dropped", messages, "unstored")
        self._tell("unstored", "The outbox did not store; events are dropped", error)

    def _give_up(self, count: int, error: BaseException) -> None:
        self._counters.count("accepted", count)
        self._counters.count("dropped", count, "unrenderable")
        text = "A hand-over could not be rendered; its events are dropped"
        self._tell("unrenderable", text, error)

    def _forget_or_raise(self, item: Stop) -> None:
        self._counters.echo(
            "dropped", self._outbox.forget(item.keys, item.at, self._clock()), "stopped"
        )

    def _forget(self, item: Stop) -> None:
        try:
            self._forget_or_raise(item)
        except BaseException as error:  # noqa: BLE001  # foreign storage; the loss is said
            self._lose_stop(error)

    def _lose_stop(self, error: BaseException) -> None:
        self._counters.count("stop_lost")
        self._tell("stop", "The outbox did not forget a visitor who denied", error)

    def _lose_damaged(self) -> None:
        self._counters.count("journal_failed")
        self._tell("damaged", "A journal is damaged; only what could be read of it is stored")

    def _tell_unmoved(self, error: BaseException) -> None:
        self._tell("unmoved", "The outbox does not store; events stay in the journal", error)

    def _tell(self, problem: str, text: str, error: BaseException | None = None) -> None:
        if problem not in self._told:
            self._told.add(problem)
            # Only the type: the text of a foreign error may quote a property.
            cause = type(error).__name__ if error else problem
            logger.error("%s (%s). More of the same are only counted.", text, cause)


def _count_messages(entries: Sequence[Entry]) -> int:
    return sum(len(entry.messages) for entry in entries)
