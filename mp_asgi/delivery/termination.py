"""Store what is left when SIGTERM comes to a process whose server leaves it to the system.

By default SIGTERM ends a process at once, and no `atexit` runs. Where nobody handles it, what is
registered here runs first; then the signal ends the process as it would have.
"""

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

_GRACE_SECONDS = 1.0  # beyond what the ends were promised

End = Callable[[], None]


class Termination:
    """The handler of SIGTERM, installed once a process. Whoever installs another one replaces it.

    The ends run in threads of their own: the main one, which the signal has interrupted, may hold
    a lock that they need. Meanwhile it waits, so that a server reads no more requests.
    """

    def __init__(self) -> None:
        self._ends: list[tuple[weakref.WeakMethod[End], float]] = []
        self._is_ending = False

    def add(self, end: End, seconds: float) -> None:
        """Run a method at the end, as long as its object lives.

        Args:
            end: Must return within the seconds, but is not waited for longer.
            seconds: What it may take.
        """
        self._ends = [known for known in self._ends if known[0]() is not None]
        self._ends.append((weakref.WeakMethod(end), seconds))

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Run what was added, then let the signal do what it does by default."""
        if self._is_ending:
            return  # who is impatient sends it twice
        self._is_ending = True
        # No thread to be had: it ends now. A green thread's hub cannot wait, and goes on serving
        # until the thread has come to its end.
        with suppress(RuntimeError):
            thread = threading.Thread(target=self._end, name="mp-asgi-end", daemon=True)
            thread.start()
            try:
                thread.join()
            except Exception:  # noqa: BLE001  # gevent's and eventlet's own
                return
        _die()

    def _end(self) -> None:
        deadline = time.monotonic() + _GRACE_SECONDS
        threads = []
        for reference, seconds in self._ends:
            if (end := reference()) is not None:
                deadline = max(deadline, time.monotonic() + seconds + _GRACE_SECONDS)
                threads.append(threading.Thread(target=end, daemon=True))
        with suppress(RuntimeError):
            for thread in threads:
                thread.start()
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        with suppress(ValueError):  # only the main thread may: a green one is in it
            _die()


def end_at_termination(end: End, seconds: float) -> None:
    """Run a method when SIGTERM comes, unless somebody else handles that, or handles it later.

    Only from the main thread; does nothing elsewhere.

    Args:
        end: A bound method; its object is not kept alive.
        seconds: What it may take.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if handler is signal.SIG_DFL:
        handler = Termination()
        try:
            signal.signal(signal.SIGTERM, handler)
        except ValueError:  # not the main thread, or not the main interpreter
            return
    if isinstance(handler, Termination):
        handler.add(end, seconds)


def _die() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
