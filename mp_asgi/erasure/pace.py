"""Keep the pace that Mixpanel's GDPR API asks for, and wait longer after each failure."""

import random as random_module
from collections.abc import Callable
from typing import Final

SECONDS_BETWEEN_REQUESTS: Final = 1.1  # one a second is allowed (reference/gdpr-api); clocks differ
MAX_TRIES: Final = 6  # about a minute of waiting altogether
MAX_BACKOFF_SECONDS: Final = 60.0
_FIRST_BACKOFF_SECONDS: Final = 2.0


class Pace:
    """When the next request may start.

    Args:
        clock: Seconds that never run backwards.
        sleep: Waits so many seconds.
        random: Answers a number in [0, 1) for jitter.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._next_at = float("-inf")

    def now(self) -> float:
        """Answer the time in seconds that never run backwards."""
        return self._clock()

    def wait(self) -> None:
        """Return when a request may start."""
        seconds = self._next_at - self._clock()
        if seconds > 0:
            self._sleep(seconds)

    def note_end(self) -> None:
        """Learn that a request is over: the pace counts from here, whenever it arrived."""
        self._next_at = self._clock() + SECONDS_BETWEEN_REQUESTS

    def back_off(self, failures: int) -> None:
        """Wait after the n-th failure in a row, half of it up to chance."""
        most = min(_FIRST_BACKOFF_SECONDS * 2.0 ** (failures - 1), MAX_BACKOFF_SECONDS)
        self._sleep(most * (0.5 + self._random() / 2))

    def pause(self, seconds: float) -> None:
        """Wait, whatever the pace."""
        self._sleep(seconds)
