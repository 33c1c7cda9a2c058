"""Keep a lock usable in a forked child: the thread that held it at the fork does not live there."""

import os
import weakref
from functools import partial
from typing import Final

from .core import Lock

HOLD_SECONDS: Final = 1.0  # it is held for microseconds; a fork must not wait for a bug


class ForkGuard:
    """Hold a lock while this process forks, so that the child finds it free, and what it guards
    whole.

    Args:
        lock: Re-entrant: who forks may hold it.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._held = 0
        if hasattr(os, "register_at_fork"):
            reference: weakref.ref[ForkGuard] = weakref.ref(
                self
            )  # what is registered stays for ever
            after = partial(_after, reference)
            os.register_at_fork(
                before=partial(_before, reference), after_in_parent=after, after_in_child=after
            )

    def hold(self) -> None:
        """Take the lock."""
        if self._lock.acquire(timeout=HOLD_SECONDS):
            self._held += 1

    def let_go(self) -> None:
        """Give it back, if it was to be had."""
        if self._held:
            self._held -= 1
            self._lock.release()


def _before(reference: "weakref.ref[ForkGuard]") -> None:
    guard = reference()
    if guard is not None:
        guard.hold()


def _after(reference: "weakref.ref[ForkGuard]") -> None:
    guard = reference()
    if guard is not None:
        guard.let_go()
