"""Flush at the ends of requests, for hosts on which nothing runs after them: one flush for all who
end together.
"""

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Final

REST_TIMES: Final = 10  # what a flush in vain took: requests spend a tenth of the time waiting


class Flusher:
    """Flush what was submitted since the last flush, and rest after one that was in vain.

    Args:
        flush: Takes seconds, and answers whether nothing is left waiting.
        timeout: Seconds that a flush may take.
        clock: Seconds, from anywhere, that never go back.

    Attributes:
        has_news: Something was submitted that no flush has begun with. Set after submitting.
    """

    def __init__(
        self,
        flush: Callable[[float], bool],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.has_news = False
        self._flush = flush
        self._timeout = timeout
        self._clock = clock
        self._rests_until = -math.inf
        # By process: a lock that another thread held at the fork stays locked in the child.
        self._locks: dict[int, threading.Lock] = {}

    @property
    def is_due(self) -> bool:
        """Whether the end of a request has to wait: for a flush, or for one that is under way."""
        lock = self._locks.get(os.getpid())
        is_waiting = self.has_news or (lock is not None and lock.locked())
        return is_waiting and self._clock() >= self._rests_until

    def run(self) -> None:
        """Flush, unless another request's flush has taken everything along. Blocks at most for two
        timeouts: one flush may be under way.

        Raises:
            Exception: What `flush` raises.
        """
        if not self.is_due:
            return
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            began = self._clock()
            if not self.has_news or began < self._rests_until:
                return
            self.has_news, is_done = False, False
            try:
                is_done = self._flush(self._timeout)
            finally:
                if not is_done:
                    now = self._clock()
                    self._rests_until = now + REST_TIMES * (now - began)
                    self.has_news = True
