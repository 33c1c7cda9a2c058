"""Hold what belongs to one process: what waits in it, its outbox, its journal and its recorder.

Answers what is left to do in it, and lets those who flush wait for that.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from mp_asgi.errors import OutboxUnavailable

from .intake import Intake
from .keeper import Keeper
from .log import logger
from .outbox.base import NO_STATS, Outbox, OutboxStats
from .outbox.spooled import Spooled
from .outbox.standby import Standby
from .recorder import Recorder

T = TypeVar("T")


class Home(Generic[T]):
    """What belongs to one process.

    Args:
        outbox: Where entries wait.
        recorder: Drives the consent ledger; None without one.
        keeper: Keeps what is submitted on disk, where that is wanted.

    Attributes:
        intake: What was submitted and is not stored yet.
        progress: Notified whenever a flush may be over.
        settling: Held while the fate of a batch is decided, stored and counted.
        flushes: How many flushes wait.
    """

    def __init__(self, outbox: Outbox, recorder: Recorder | None, keeper: Keeper[T]) -> None:
        self.pid = os.getpid()
        self.intake: Intake[T] = Intake()
        self.outbox = outbox
        self.recorder = recorder
        self.keeper = keeper
        self.progress = threading.Condition()
        self.settling = threading.Lock()
        self.flushes = 0

    # --- what is left to do -------------------------------------------------------------------

    def is_busy(self, *, with_others: bool = False) -> bool:
        """Whether anything is left to store, to record or to send.

        Args:
            with_others: Whether to ask an outbox, too, that other processes put into all the time.
        """
        if self.has_unstored() or self.unrecorded():
            return True
        return (with_others or not self.outbox.is_shared) and self._depth() > 0

    def has_unstored(self) -> bool:
        """Whether the outbox does not have everything yet, stops included."""
        return self.intake.has_items() or self.unstored() > 0

    def unstored(self) -> int:
        """Count the messages that the outbox does not have yet."""
        return self.intake.waiting() + self.keeper.waiting()

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

    def _depth(self) -> int:
        """Count what waits in the outbox, or in the spool where others send; 0 if it is silent."""
        try:
            if isinstance(self.outbox, Spooled):
                return self.outbox.spooled()
            return self.outbox.stats().depth
        except OutboxUnavailable:
            return 0
