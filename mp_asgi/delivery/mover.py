"""Move what journals hold into the outbox. What the outbox does not take stays where it is.

A journal holds what a request said of its visitor: as soon as the outbox has all of it, another
file takes its place.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from mp_asgi.events import Stop

from .heir import Heir
from .journal import ROTATE_BYTES, Group, Journal, Record
from .journals import Journals
from .lanes import remaining

ADOPT_SECONDS: Final = 5.0  # between two looks for what others have left, and two tries of a move
RENEW_SECONDS: Final = 1.0  # that a file outlives what it holds; denials make it shorter

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shelf(Generic[T]):
    """The journals that one process empties.

    Attributes:
        journals: All of the project's.
        journal: This process's own; None if it keeps none, or could not make it.
        unpack: Makes an item of what a record holds; any exception if it is none.
        reopen: Tries again to make the own one; None without success, or where there should be
            none.
    """

    journals: Journals
    journal: Journal | None
    unpack: Callable[[bytes], T | Stop]
    reopen: Callable[[], Journal | None]


class Mover:
    """Empty the journals of a project's directory, on one thread.

    Args:
        shelf: The journals.
        forget: Obeys the stop in a record. Answers whether the outbox has it now.
        store: Puts a group. Answers whether the outbox has it now.
        clock: Answers seconds since the epoch.
        on_deleted: Called when this process's journal was deleted, and another one begins.
        on_damaged: Called for what could not be read in the middle of a journal.
        is_pressed: Whether what only memory holds waits, so that others' journals have to.

    Attributes:
        journal: This process's own; None while it has none.
        is_hurried: Whether what the outbox has must not stay in the journal any longer.
        has_heard: Whether all stops were obeyed once that others had left in their journals.
    """

    def __init__(
        self,
        shelf: Shelf[T],
        *,
        forget: Callable[[Record], bool],
        store: Callable[[Group], bool],
        clock: Callable[[], float],
        on_deleted: Callable[[], None],
        on_damaged: Callable[[], None],
        is_pressed: Callable[[], bool],
    ) -> None:
        self.journal = shelf.journal
        self.is_hurried = False
        self.has_heard = False
        self._journals = shelf.journals
        self._heir = Heir(
            shelf.journals,
            forget=forget,
            store=store,
            on_damaged=on_damaged,
            is_pressed=is_pressed,
        )
        self._forget = forget
        self._store = store
        self._clock = clock
        self._reopen = shelf.reopen
        self._on_deleted = on_deleted
        self._reopened_at = clock()
        self._renewed_at = -math.inf
        self._adopted_at = -math.inf
        self._is_adopting = False

    def move(self, *, is_flushing: bool) -> bool:
        """Move what this process kept, and now and then obey what others left, before `adopt`.

        Args:
            is_flushing: Whether to look for others' journals, however short ago the last look was.

        Returns:
            Whether the outbox has all that this process kept before this call.
        """
        now = self._clock()
        self._mend(now)
        is_moved = self._move_own()
        self._renew(now)
        is_due = is_flushing or not remaining(ADOPT_SECONDS, self._adopted_at, now)
        if is_moved and is_due:
            self._adopted_at = now
            is_moved = self._heir.forget()
        self._is_adopting = is_moved and is_due
        return is_moved

    def adopt(self) -> bool:
        """Move what others left, if it is time. Return whether the outbox has it."""
        if not self._is_adopting:
            return True
        is_done = self._heir.inherit()
        if self._heir.is_interrupted:
            self._adopted_at = -math.inf  # goes on in the next round
        return is_done

    def hear(self) -> None:
        """Obey all stops in others' journals, unless that was done before: nothing that waits in
        the outbox may leave before.
        """
        self.has_heard = self.has_heard or self._heir.forget()

    def patience(self) -> float:
        """Answer how many seconds from now there may be something to do, whatever comes."""
        journal = self.journal
        return RENEW_SECONDS if journal is not None and journal.file.size else ADOPT_SECONDS

    def end(self) -> None:
        """Delete this process's journal, or leave it to the next one if it holds anything."""
        if self.journal is None or self.journal.is_over:
            return
        file = self.journal.end()
        if self.journal.is_stored:
            self._journals.remove(file)
        else:
            self._journals.leave(file)

    def _mend(self, now: float) -> None:
        """Make a journal where there is none: it could not be made, or somebody deleted it."""
        journal = self.journal
        if journal is None:
            if not remaining(ADOPT_SECONDS, self._reopened_at, now):
                self._reopened_at = now
                self.journal = self._reopen()
        elif journal.file.is_gone():
            self._on_deleted()
            with contextlib.suppress(OSError):  # tried again in the next round
                self._journals.remove(journal.rescue(self._journals.create(is_lone=False)))

    def _renew(self, now: float) -> None:
        """Begin another file if the outbox has all of this one."""
        journal = self.journal
        if journal is None or not journal.file.size or not journal.is_stored:
            return
        if not self.is_hurried and remaining(RENEW_SECONDS, self._renewed_at, now):
            return
        try:
            file = self._journals.create(is_lone=False, after=journal.file)
        except OSError:
            return
        old = journal.replace(file)
        self._journals.remove(file if old is None else old)
        if old is not None:
            self._renewed_at, self.is_hurried = now, False

    def _move_own(self) -> bool:
        journal = self.journal
        if journal is None or journal.is_stored:
            return True
        try:
            groups = journal.seal()
        except OSError:
            return False
        if not self._obey(groups):
            return False
        for group in groups:
            if not self._store(group):
                return False
            journal.settle(group)
        if journal.file.size > ROTATE_BYTES:
            self._rotate(journal)
        return bool(groups)

    def _rotate(self, journal: Journal) -> None:
        """Begin another file, and move what came into the old one meanwhile."""
        try:
            file = self._journals.create(is_lone=False)
        except OSError:
            return  # the old one only grows
        old, start = journal.rotate(file)
        try:
            groups = old.read_sealed(start)
        except OSError:
            groups = None
        if groups is not None and self._obey(groups) and all(map(self._store, groups)):
            self._journals.remove(old)
        else:
            self._journals.leave(old)  # an orphan from now on

    def _obey(self, groups: Sequence[Group]) -> bool:
        """Obey all stops of some groups, before any of them is put."""
        records = (record for group in groups for record in group.records)
        return all(self._forget(record) for record in records if not record.messages)
