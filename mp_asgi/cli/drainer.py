"""Deliver from a command what waits in the outbox, as a web process would, until a signal ends it.

Ledger, stop marks, leases and retries are the worker's; here is only when it runs, and what of its
log an operator is shown.
"""

import contextlib
import logging
import math
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

from mp_asgi.analytics import Analytics
from mp_asgi.delivery.counters import Stats
from mp_asgi.delivery.outbox.base import NO_STATS, Outbox
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.settings import Settings

from .progress import Progress

_STEP_SECONDS: Final = 1.0  # between two looks at what is left
_REST_SECONDS: Final = 0.05  # after a step that had nothing to wait for
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Drainer:
    """Deliver while the context is open. A first signal ends the waiting, a second one all.

    Args:
        settings: Of the project.
        outbox: Where messages wait; not closed here.
        progress: Where to show how far it is.
        command: Name of the command, for what is told.

    Attributes:
        trouble: What last stopped delivery, as it was told; empty if nothing did.
        is_flushed: The last flush left nothing, nor did it find any more in journals.
        start: How full the outbox was when this began.
    """

    def __init__(
        self, settings: Settings, outbox: Outbox, progress: Progress, command: str
    ) -> None:
        self.trouble = ""
        self.is_flushed = False
        self.start = NO_STATS
        self._deadline = math.inf
        self._settings = settings
        self._outbox = outbox
        self._progress = progress
        self._teller = _Teller(self, command)
        self._stopping = threading.Event()
        self._silences: set[str] = set()  # why the outbox did not answer
        self._before: dict[signal.Signals, Any] = {}
        self._analytics = Analytics(settings, outbox=lambda: outbox)

    def __enter__(self) -> Self:
        self.start = self._outbox.stats()
        logging.getLogger("mp_asgi").addHandler(self._teller)
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._stop)
        self._analytics.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # That something still waits is no trouble here, and told by the command itself.
            self._teller.setLevel(logging.ERROR)
            left = max(0.0, self._deadline - time.monotonic())
            self._analytics.close(min(self._settings.close_timeout, left))
        finally:
            self._restore_signals()
            logging.getLogger("mp_asgi").removeHandler(self._teller)

    @property
    def is_stopped(self) -> bool:
        """Whether a signal came."""
        return self._stopping.is_set()

    def deliver_until(self, is_done: Callable[[], bool], seconds: float = math.inf) -> bool:
        """Deliver, without waiting for batches to fill. Return whether it is done.

        Args:
            is_done: Whether what was wanted is reached.
            seconds: After how many to give up; then closing waits for nothing either.
        """
        self._deadline = time.monotonic() + seconds
        has_waited = False
        while not self._ask(is_done):
            left = self._deadline - time.monotonic()
            if self.is_stopped or left <= 0:
                return False
            has_waited = True
            self._show()
            self.is_flushed = self._analytics.flush(min(_STEP_SECONDS, left))
            if not self._is_delivering():
                return False
            self._stopping.wait(_REST_SECONDS)
        if has_waited:
            self._show()
        return True

    def deliver_for_ever(self) -> bool:
        """Deliver, as batches fill, until a signal comes. Return whether one came before what
        delivers died.
        """
        while not self._stopping.wait(_STEP_SECONDS):
            if not self._is_delivering():
                return False
        return True

    def count(self) -> Stats:
        """Answer what was counted since this began, by everybody who shares the outbox. What was
        buried is all that died, though some of it, or of what died before, may have been replayed.
        """
        now = self._outbox.stats()
        # An outbox that was made anew counts from zero: what would be negative is left out.
        counts = Counter(now.totals) - Counter(self.start.totals)
        del counts["replayed", ""]
        return Stats.of(counts, waiting=now.depth)

    def _is_delivering(self) -> bool:
        if self._analytics.is_delivering:
            return True
        self._teller.tell("The threads that deliver do not run. Start it again.")
        return False

    def _ask(self, is_done: Callable[[], bool]) -> bool:
        try:
            return is_done()
        except OutboxUnavailable as error:  # it may come back
            # What the log tells tells nothing twice; this is asked every second.
            if (text := str(error)) not in self._silences:
                self._silences.add(text)
                self._teller.tell(text)
            self.trouble = text
            return False

    def _show(self) -> None:
        with contextlib.suppress(OutboxUnavailable):  # told where it is asked whether it is done
            counts = self.count()
            if not counts.delivered + counts.waiting:
                return
            self._progress.show("Delivering", counts.delivered, counts.delivered + counts.waiting)

    def _stop(self, _: int, __: FrameType | None) -> None:
        self._stopping.set()
        self._restore_signals()

    def _restore_signals(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


class _Teller(logging.Handler):
    """Write the log of the package on standard error.

    Standard error is looked up each time: a progress bar puts another one in its place.
    """

    def __init__(self, drainer: Drainer, command: str) -> None:
        super().__init__(logging.WARNING)
        self._drainer = drainer
        self._command = command

    # typing.override needs Python 3.12.
    def emit(self, record: logging.LogRecord) -> None:  # type: ignore[explicit-override]
        self.tell(record.getMessage())

    def tell(self, text: str) -> None:
        self._drainer.trouble = text
        print(f"mp-asgi {self._command}: {text}", file=sys.stderr, flush=True)
