"""Hold what belongs to one process: what waits in it, its outbox, its journal and its recorder."""

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Final, Generic, TypeVar

from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Stop

from .counters import Counters
from .journal import ROTATE_BYTES, Journal
from .journals import Journaling, Journals
from .outbox.base import NO_STATS, Outbox, OutboxStats
from .outbox.spooled import Spooled
from .outbox.standby import Standby
from .recorder import Recorder
from .storer import Intake, Mark, Shelf

LOOK_SECONDS: Final = 1.0  # between two looks whether somebody has emptied the journals

T = TypeVar("T")

logger = logging.getLogger("mp_asgi.delivery")


class Home(Generic[T]):
    """What belongs to one process.

    Args:
        outbox: Where entries wait.
        recorder: Drives the consent ledger; None without one.
        journaling: How to keep what is submitted; None where nothing outlives the process.
        counters: Counts `journal_failed`.
        max_bytes: What the journals of processes without threads may take.

    Attributes:
        is_lone: This process has no threads, and leaves its journal to others.
        flushes: How many flushes wait.
        trouble: What the journal suffers from, in a sentence; empty while all is well.
    """

    def __init__(
        self,
        outbox: Outbox,
        recorder: Recorder | None,
        journaling: Journaling[T] | None,
        *,
        counters: Counters,
        max_bytes: int,
    ) -> None:
        self.pid = os.getpid()
        self.intake: Intake[T] = Intake()
        self.outbox = outbox
        self.recorder = recorder
        self.journal: Journal | None = None
        self.journals = _find_journals(outbox, journaling)
        self.progress = threading.Condition()
        self.settling = threading.Lock()
        self.flushes = 0
        self.is_lone = False
        self._journaling = journaling
        self._counters = counters
        self._max_bytes = max_bytes
        self.trouble = ""
        self._is_keeping = False  # whether there should be a journal
        self._left: Journal | None = None  # by the last close
        self._owner: object = None  # of the journal: the crew that ends it
        self._opening = threading.Lock()
        self._looked_at = -math.inf
        self._is_full = False

    # --- what waits ---------------------------------------------------------------------------

    def unstored(self) -> int:
        """Count the messages that the outbox does not have yet."""
        kept = () if self.is_lone else (self.journal, self._left)
        return self.intake.waiting() + sum(journal.waiting for journal in kept if journal)

    def depth(self) -> int:
        """Count the messages that wait in the outbox, or in the spool where others send; 0 if it
        does not say.
        """
        try:
            if isinstance(self.outbox, Spooled):
                return self.outbox.spooled()
            return self.outbox.stats().depth
        except OutboxUnavailable:
            return 0

    def unrecorded(self) -> int:
        """Count the choices that the ledger does not have yet."""
        return self.recorder.waiting() if self.recorder is not None else 0

    def held(self) -> OutboxStats:
        """Answer what of the outbox ends with this process. Waits for no storage."""
        if isinstance(self.outbox, (Standby, Spooled)):
            return self.outbox.held()
        return NO_STATS if self.outbox.is_durable else self.outbox.stats()

    def owed_stops(self) -> int:
        """Count the denials that the storage was not told of."""
        return self.outbox.owed_stops() if isinstance(self.outbox, Standby) else 0

    def close_outbox(self) -> None:
        """Hand over what memory still owes to the storage, and let go of files."""
        try:
            self.outbox.close()
        except BaseException as error:  # noqa: BLE001  # foreign storage; it is closed by the end
            logger.warning("The outbox did not close (%s).", type(error).__name__)

    # --- flushing -----------------------------------------------------------------------------

    def notify(self) -> None:
        """Let whoever flushes look again."""
        with self.progress:
            self.progress.notify_all()

    @contextlib.contextmanager
    def flushing(self) -> Iterator[None]:
        """Let batches leave without waiting to fill."""
        with self.progress:
            self.flushes += 1
        try:
            yield
        finally:
            with self.progress:
                self.flushes -= 1

    # --- the journal --------------------------------------------------------------------------

    def open_journal(self, *, is_lone: bool) -> None:
        """Keep what is submitted from now on; where that fails, memory has to do for a while."""
        self.is_lone = is_lone
        with self._opening:
            self._is_keeping = self.journals is not None
            self._left = None
            if self.journal is None:
                self._open()

    def detach_journal(self) -> None:
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

    def keep(self, journal: Journal, item: T | Stop, count: int) -> bool:
        """Write an item into the journal. Return whether it is kept; never raises."""
        if journal.is_over or (self.is_lone and self._has_no_room()):
            return False
        try:
            body = self._journaling.pack(item) if self._journaling is not None else b""
            is_kept = journal.append(body, count)
            if is_kept and self.is_lone and journal.file.size > ROTATE_BYTES:
                self._rotate(journal)
        except Exception as error:  # noqa: BLE001  # takes the way through memory, and is counted
            self._fail(error)
            return False
        if not is_kept and not journal.is_over:
            self._fail(OSError("write"))
        return is_kept

    def keep_left(self) -> int:
        """Write what waits in the intake into a journal of its own, for the next process.

        Returns:
            How many messages it has now.
        """
        if self.journals is None or self._journaling is None or not self.intake.items:
            return 0
        try:
            journal = Journal(self.journals.create(is_lone=False))
        except Exception as error:  # noqa: BLE001  # the rest is counted as lost
            self._fail(error)
            return 0
        unkept = []
        while self.intake.items:
            item, count = self.intake.items.popleft()
            if not isinstance(item, Mark) and not self.keep(journal, item, count):
                unkept.append((item, count))
        self.intake.items.extend(unkept)
        self.journals.leave(journal.end())
        return journal.waiting

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

    def _reopen(self, owner: object) -> Journal | None:
        """Try again to make the journal that should be there, for who empties it now."""
        with self._opening:
            if not self._is_keeping or owner is not self._owner:
                return None
            if self.journal is None:
                self._open()
            return self.journal

    def _has_no_room(self) -> bool:
        """Whether nobody delivers what processes without threads keep."""
        now = time.monotonic()
        if self.journals is not None and now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._is_full = self.journals.size_bytes() >= self._max_bytes
        return self._is_full

    def _rotate(self, journal: Journal) -> None:
        """Begin another file, so that whoever delivers can delete this one."""
        if self.journals is None:
            return
        try:
            old, _ = journal.rotate(self.journals.create(is_lone=True))
        except OSError as error:
            self._fail(error)
        else:
            self.journals.leave(old)

    def _fail(self, error: Exception) -> None:
        self._counters.count("journal_failed")
        if not self.trouble:
            self.trouble = (
                f"The journal failed ({type(error).__name__}): what it does not take is stored as "
                "with MP_ASGI_DURABILITY=relaxed."
            )
            logger.error("%s More of the same are only counted (journal_failed).", self.trouble)


def _find_journals(outbox: Outbox, journaling: Journaling[T] | None) -> Journals | None:
    """Answer where journals are, if what they hold may be put into this outbox."""
    if journaling is None or not outbox.is_durable:
        return None
    try:
        return Journals(journaling.directory())
    except OutboxUnavailable:
        return None  # whoever makes the outbox has said it
