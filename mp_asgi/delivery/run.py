"""Run the threads of one process between a start and a stop, and tell how they fare."""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

GRACE_SECONDS: Final = 1.0  # to store what is left, when delivery has used all the time

Job = Callable[[threading.Event], None]


@dataclass(frozen=True, slots=True)
class Pulse:
    """How the delivery of one process fares.

    Attributes:
        is_running: All of its threads live. False before the first event, too.
        stored_at: Seconds since the epoch when the outbox last took something of this process.
        sent_at: When Mixpanel last took something of it.
        is_blocked: Mixpanel refuses token or credentials.
        trouble: What else is wrong with this process, in a sentence; empty without anything.
    """

    is_running: bool = False
    stored_at: float | None = None
    sent_at: float | None = None
    is_blocked: bool = False
    trouble: str = ""


class Rest(threading.Event):
    """Wakes a sender, and tells until when it sleeps.

    Args:
        on_rest: Called whenever it goes to sleep.
    """

    def __init__(self, on_rest: Callable[[], None]) -> None:
        super().__init__()
        self._on_rest = on_rest
        self._until = -math.inf

    def lasts(self, deadline: float) -> bool:
        """Whether it sleeps beyond a moment (of `time.monotonic`), and nobody has woken it."""
        # In this order: who wakes up forgets until when first.
        return not self.is_set() and self._until > deadline

    def wait(self, timeout: float | None = None) -> bool:  # type: ignore[explicit-override]  # 3.12
        """Sleep until it is set."""
        self._until = math.inf if timeout is None else time.monotonic() + timeout
        self._on_rest()
        return super().wait(timeout)

    def clear(self) -> None:  # type: ignore[explicit-override]  # 3.12
        """Be ready for the next one."""
        self._until = -math.inf
        super().clear()


class Run:
    """The threads between a start and a stop.

    Args:
        jobs: What each runs, by name, until the event is set. The first one waits for no network,
            and is always given the time to finish.
        wakes: What wakes them.
        end: Called by the first one, when the others have finished or their time is over.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        wakes: Sequence[threading.Event],
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self._stopping = threading.Event()
        self._wakes = wakes
        self._end = end
        self._deadline = -math.inf  # until a stop says more
        self._threads = [
            threading.Thread(target=self._work, args=(job,), name=name, daemon=True)
            for name, job in jobs.items()
        ]

    def start(self) -> None:
        """Start all of them that do not run yet.

        Raises:
            RuntimeError: The system has no thread left, or the interpreter ends. Those that were
                started go on.
        """
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    def is_alive(self) -> bool:
        """Whether all of them live."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self, deadline: float) -> bool:
        """Let them finish. Return whether they have, before a moment of `time.monotonic`."""
        self._deadline = deadline
        self._stopping.set()
        for wake in self._wakes:
            wake.set()
        first, *others = self._threads
        _join(others, deadline)
        _join([first], max(deadline, time.monotonic() + GRACE_SECONDS))
        return not self.has_any()

    def has_any(self) -> bool:
        """Whether any of them lives."""
        return any(thread.is_alive() for thread in self._threads)

    def _work(self, job: Job) -> None:
        job(self._stopping)
        first, *others = self._threads
        if threading.current_thread() is first:
            _join(others, self._deadline)
            self._end()


def _join(threads: Sequence[threading.Thread], deadline: float) -> None:
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
