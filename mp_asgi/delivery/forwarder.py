"""Empty the spool of this host into the shared outbox, on one thread."""

import math
import threading
from collections.abc import Callable
from typing import Final

from .lanes import remaining
from .log import logger
from .outbox.spooled import Spooled

EXPIRE_SECONDS: Final = 3600.0  # between looks for what is too old to be kept
PAUSE_SECONDS: Final = 1.0  # after a failure, so that it does not fill a processor


class Forwarder:
    """Do in a web process what a sender does elsewhere: hand over instead of sending.

    Args:
        outbox: With the spool.
        clock: Answers seconds since the epoch.
        on_progress: Called after each step.
    """

    def __init__(
        self, outbox: Spooled, *, clock: Callable[[], float], on_progress: Callable[[], None]
    ) -> None:
        self.wake: threading.Event = threading.Event()
        self._outbox = outbox
        self._clock = clock
        self._on_progress = on_progress
        self._expired_at = -math.inf
        self._has_told = False

    def run(self, stopping: threading.Event) -> None:
        """Hand over until `stopping` is set."""
        while not stopping.is_set():
            try:
                rest = self.step()
            except BaseException as error:  # noqa: BLE001  # what was taken stays in the spool
                self._tell(error)
                rest = PAUSE_SECONDS
            if rest:
                self.wake.wait(rest)
                self.wake.clear()

    def step(self) -> float:
        """Hand over a part. Return how many seconds to rest before the next."""
        now = self._clock()
        if not remaining(EXPIRE_SECONDS, self._expired_at, now):
            self._expired_at = now
            self._outbox.expire(now)
        try:
            return self._outbox.forward(now)
        finally:
            self._on_progress()

    def fence(self, seconds: float) -> bool:
        """Answer at once: nothing leaves to Mixpanel from this process."""
        return True

    def _tell(self, error: BaseException) -> None:
        if not self._has_told:
            self._has_told = True
            # Only the type: the text of a foreign error may quote a property.
            name = type(error).__name__
            logger.error("The spool was not emptied (%s). More of it is not logged.", name)
