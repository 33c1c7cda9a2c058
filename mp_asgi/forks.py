"""Keep what other threads hold usable in a forked child: whoever held it does not live there."""

import contextlib
import os
import threading
import weakref
from functools import partial
from typing import Final

from .core import Lock

HOLD_SECONDS: Final = 1.0  # it is held for microseconds; a fork must not wait for a bug
IMPORT_SECONDS: Final = 5.0  # urllib3 takes 0.2 s, more on a busy or a slow disk


class ForkGuard:
    """Hold a lock while this process forks, so that the child finds it free, and what it guards
    whole.

    Args:
        lock: Re-entrant: who forks may hold it.
        seconds: How long a fork waits for it.
    """

    def __init__(self, lock: Lock, seconds: float = HOLD_SECONDS) -> None:
        self._lock = lock
        self._seconds = seconds
        _watch_forks(self)

    def hold(self) -> None:
        """Take the lock."""
        self._lock.acquire(timeout=self._seconds)

    def let_go(self) -> None:
        """Give it back, if it was to be had."""
        with contextlib.suppress(RuntimeError):  # it is another thread's
            self._lock.release()


class ImportGuard:
    """Let a fork wait while a thread of ours may import something.

    A child inherits the lock of each module that another thread was importing, and nobody frees
    it there (CPython 3.11 to 3.14): who imports that module waits for ever, the app's requests,
    too.

    Args:
        seconds: How long a fork waits.
    """

    def __init__(self, seconds: float = IMPORT_SECONDS) -> None:
        self._seconds = seconds
        # By process: one that a fork did not get stays locked in the child.
        self._locks: dict[int, Lock] = {}
        _watch_forks(self)

    def lock(self) -> Lock:
        """Answer what to hold while something may be imported."""
        return self._locks.setdefault(os.getpid(), threading.RLock())

    def hold(self) -> None:
        """Wait until nothing is imported."""
        self.lock().acquire(timeout=self._seconds)

    def let_go(self) -> None:
        """Let imports go on."""
        with contextlib.suppress(RuntimeError):  # another thread's, or a child's own, which is free
            self.lock().release()


def _watch_forks(guard: ForkGuard | ImportGuard) -> None:
    if hasattr(os, "register_at_fork"):
        reference = weakref.ref(guard)  # what is registered stays for ever
        after = partial(_after, reference)
        os.register_at_fork(
            before=partial(_before, reference), after_in_parent=after, after_in_child=after
        )


def _before(reference: "weakref.ref[ForkGuard | ImportGuard]") -> None:
    guard = reference()
    if guard is not None:
        guard.hold()


def _after(reference: "weakref.ref[ForkGuard | ImportGuard]") -> None:
    guard = reference()
    if guard is not None:
        guard.let_go()
