"""Ask a shared outbox that may fail, and leave it alone for a while once it has. What becomes of a
call that it did not take is decided elsewhere.
"""

from collections.abc import Callable
from typing import TypeVar

from mp_asgi.delivery.lanes import Circuit
from mp_asgi.delivery.log import logger
from mp_asgi.errors import OutboxUnavailable

from .redis import RedisOutbox

T = TypeVar("T")


class Reach:
    """The way to a shared outbox.

    Args:
        outbox: That one.
        clock: Answers seconds since the epoch.
        random: Answers a number in [0, 1) for jitter.
        on_failure: Called after each.

    Attributes:
        trouble: What it said when it last failed; empty while it works.
    """

    def __init__(
        self,
        outbox: RedisOutbox,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        on_failure: Callable[[], None],
    ) -> None:
        self.trouble = ""
        self._outbox = outbox
        self._clock = clock
        self._random = random
        self._on_failure = on_failure
        self._circuit = Circuit()

    def pause(self) -> float:
        """Answer for how many seconds it is left alone."""
        return self._circuit.remaining(self._clock())

    def ask(self, call: Callable[[RedisOutbox], T]) -> T:
        """Answer what it answers, unless it is left alone.

        Raises:
            OutboxUnavailable: It failed, now or not long ago.
        """
        if self.pause():
            raise OutboxUnavailable(self.trouble)
        return self.insist(call)

    def insist(self, call: Callable[[RedisOutbox], T]) -> T:
        """Answer what it answers, and ask it though it failed not long ago.

        Raises:
            OutboxUnavailable: It failed.
        """
        try:
            answer = call(self._outbox)
        except OutboxUnavailable as error:
            self._fail(str(error))
            raise
        except Exception as error:  # foreign; what was put goes to the spool
            self._fail(type(error).__name__)
            raise OutboxUnavailable(self.trouble) from error
        if self.trouble:
            logger.warning("%s answers again.", self.trouble.partition(": ")[0])
            self.trouble = ""
            self._circuit.close()
        return answer

    def _fail(self, trouble: str) -> None:
        before, self.trouble = self.trouble, f"{trouble.rstrip('.')}."
        if not before:
            logger.error("%s", render_failure(self.trouble))
        self._circuit.back_off(self._clock(), self._random())
        self._on_failure()


def render_failure(trouble: str) -> str:
    """Answer in sentences that it fails, and what happens meanwhile."""
    return (
        f"The shared outbox fails: {trouble} Events wait in the spool of this host and are handed "
        "over when it answers again."
    )
