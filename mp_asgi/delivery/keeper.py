"""Keep what one process submits in a journal of its own. Whoever empties it is not its matter."""

import math
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Stop
from mp_asgi.settings import Settings

from .counters import Counters
from .intake import Intake, Mark
from .journal import ROTATE_BYTES, Journal
from .journals import Journaling, Journals
from .log import logger
from .mover import Shelf
from .uwsgi import ends_silently

LOOK_SECONDS: Final = 1.0  # between two looks whether somebody has emptied the journals
LONE_SECONDS: Final = 60.0  # that a lone file grows where somebody delivers; denials make it less

T = TypeVar("T")


def keeps_journal(settings: Settings) -> bool:
    """Whether what this process submits is kept in a journal until the outbox has it.

    uWSGI's processes end without a word, and may have no threads.
    """
    return settings.durability == "strict" or ends_silently()


class Keeper(Generic[T]):
    """Make, write, give up and leave the journal of one process.

    Args:
        journaling: How to keep what is submitted; None where nothing outlives the process.
        counters: Counts `journal_failed`.
        clock: Answers seconds since the epoch.
        max_bytes: What the journals of processes without threads may take.

    Attributes:
        journal: What is written now; None while nothing is kept.
        journals: Those of the project; None where there cannot be any.
        is_lone: This process has no threads, and leaves its journal to others.
        trouble: What the journal suffers from, in a sentence; empty while all is well.
    """

    def __init__(
        self,
        journaling: Journaling[T] | None,
        counters: Counters,
        *,
        clock: Callable[[], float],
        max_bytes: int,
    ) -> None:
        self.journal: Journal | None = None
        self.journals = _find_journals(journaling)
        self.is_lone = False
        self.trouble = ""
        self._journaling = journaling
        self._counters = counters
        self._clock = clock
        self._max_bytes = max_bytes
        self._is_keeping = False  # whether there should be a journal
        self._left: Journal | None = None  # by the last close
        self._owner: object = None  # of the journal: the crew that ends it
        self._opening = threading.Lock()
        self._looked_at = -math.inf
        self._is_full = False
        self._began_at = -math.inf  # of the lone file that is written
        self._before: Path | None = None  # the lone file before it

    def open(self, *, is_lone: bool) -> None:
        """Keep what is submitted from now on; where that fails, memory has to do for a while."""
        self.is_lone = is_lone
        with self._opening:
            self._is_keeping = self.journals is not None
            self._left = None
            if self.journal is None:
                self._open()

    def detach(self) -> None:
        """Keep nothing any more: whoever empties the journal is about to end it."""
        with self._opening:
            self._is_keeping = False
            self._left, self.journal = self.journal, None

    def shelf(self) -> Shelf[T] | None:
        """Answer the journals that this process empties."""
        if self.journals is None or self._journaling is None:
            return None
        owner = self._owner = object()
        reopen = partial(self._reopen, owner)
        return Shelf(self.journals, self.journal, self._journaling.unpack, reopen)

    def waiting(self) -> int:
        """Count the messages that this process keeps until it has stored them."""
        kept = () if self.is_lone else (self.journal, self._left)
        return sum(journal.waiting for journal in kept if journal)

    def keep(
        self, journal: Journal, item: T | Stop, count: int, *, is_identity: bool = False
    ) -> bool:
        """Write an item into the journal. Return whether it is kept; never raises.

        Args:
            journal: The one that is written now.
            item: What was submitted.
            count: How many messages it holds; a stop none, and nothing else.
            is_identity: Whether it holds an identity event, which is kept though there is no room.
        """
        now = self._clock()
        is_bounded = self.is_lone and not is_identity and not isinstance(item, Stop)
        if journal.is_over or (is_bounded and self._has_no_room(now)):
            return False
        try:
            body = self._journaling.pack(item) if self._journaling is not None else b""
            is_kept = journal.append(body, count, now)
            if is_kept and self.is_lone:
                self._renew(journal, now, is_hurried=isinstance(item, Stop))
        except Exception as error:  # noqa: BLE001  # takes the way through memory, and is counted
            self._fail(error)
            return False
        if not is_kept and not journal.is_over:
            self._fail(OSError("write"))
        return is_kept

    def keep_left(self, intake: Intake[T], patience_seconds: float) -> int:
        """Write what no thread has taken into a journal of its own, for the next process.

        Args:
            intake: Is empty then, but for stops that could not be kept.
            patience_seconds: How long to wait for whoever stores.

        Returns:
            How many messages are kept nowhere.
        """
        taken, lost = intake.take_left(patience_seconds)
        left = [(item, count) for item, count in taken if not isinstance(item, Mark)]
        journal = self._begin_last() if left else None
        for item, count in left:
            if journal is not None and self.keep(journal, item, count):
                continue
            lost += count
            if isinstance(item, Stop):
                intake.items.append((item, 0))  # the end may come twice
        if journal is not None and self.journals is not None:
            self.journals.leave(journal.end())
        return lost

    def leave(self) -> None:
        """Leave the journal of a process without threads to whoever delivers it."""
        journal, self.journal = self.journal, None
        if journal is None or self.journals is None:
            return
        file = journal.end()
        if file.size:
            self.journals.leave(file)
        else:
            self.journals.remove(file)

    def abandon(self) -> None:
        """Leave everything to the parent, in a forked child."""
        if self.journals is not None:
            self.journals.abandon()

    def _open(self) -> None:
        if self.journals is None:
            return
        try:
            self.journal = Journal(self.journals.create(is_lone=self.is_lone))
        except Exception as error:  # noqa: BLE001  # a request may be the first; memory has to do
            self._fail(error)
        else:
            self.trouble = ""
            self._began_at = self._clock()

    def _begin_last(self) -> Journal | None:
        if self.journals is None:
            return None
        try:
            return Journal(self.journals.create(is_lone=False))
        except Exception as error:  # noqa: BLE001  # what it should have kept is counted as lost
            self._fail(error)
            return None

    def _reopen(self, owner: object) -> Journal | None:
        """Try again to make the journal that should be there, for who empties it now."""
        with self._opening:
            if not self._is_keeping or owner is not self._owner:
                return None
            if self.journal is None:
                self._open()
            return self.journal

    def _has_no_room(self, now: float) -> bool:
        """Whether nobody delivers what processes without threads keep."""
        # Also where the clock was set back. Each request pays for this.
        if self.journals is not None and not 0 <= now - self._looked_at < LOOK_SECONDS:
            self._looked_at = now
            self._is_full = self.journals.size_bytes() >= self._max_bytes
        return self._is_full

    def _renew(self, journal: Journal, now: float, *, is_hurried: bool) -> None:
        """Begin another lone file if this one is large; or old, or holds a denial, and somebody
        delivers: only what nobody writes any more can be deleted.
        """
        if is_hurried:
            self._began_at = -math.inf
        if journal.file.size <= ROTATE_BYTES:
            if 0 <= now - self._began_at < LONE_SECONDS:
                return
            if self._before is not None and self._before.exists():
                # Nobody does; the disk shall not fill with small files. Asked again soon.
                self._began_at = now - LONE_SECONDS + LOOK_SECONDS
                return
        self._rotate(journal, now)

    def _rotate(self, journal: Journal, now: float) -> None:
        if self.journals is None:
            return
        try:
            old, _ = journal.rotate(self.journals.create(is_lone=True))
        except OSError as error:
            self._fail(error)
        else:
            self._before, self._began_at = old.path, now
            self.journals.leave(old)

    def _fail(self, error: Exception) -> None:
        self._counters.count("journal_failed")
        if not self.trouble:
            self.trouble = (
                f"The journal failed ({type(error).__name__}): what it does not take is stored as "
                "with MP_ASGI_DURABILITY=relaxed."
            )
            logger.error("%s More of the same are only counted (journal_failed).", self.trouble)


def _find_journals(journaling: Journaling[T] | None) -> Journals | None:
    try:
        return None if journaling is None else Journals(journaling.directory())
    except OutboxUnavailable:
        return None  # whoever makes the outbox has said it
