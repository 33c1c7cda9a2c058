"""Call a worker when its process ends, and in the child when it forks. A signal is none of it."""

import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Final

_LAST: Final = -100  # of multiprocessing's finalizers: the others may still track

Call = Callable[[], None]


class Hooks:
    """What a process calls of an object, which it does not keep alive.

    Args:
        on_exit: A bound method, for the end of the interpreter; may be called twice.
        on_fork: A bound method, for a forked child.
    """

    def __init__(self, on_exit: Call, on_fork: Call) -> None:
        self._exit = partial(_call, weakref.WeakMethod(on_exit))
        self._fork = partial(_call, weakref.WeakMethod(on_fork))
        self._exits = contextlib.ExitStack()  # takes them back
        self._is_exit_set = False
        self._is_fork_set = False

    def set(self) -> None:
        """Be called from now on."""
        if not self._is_fork_set and hasattr(os, "register_at_fork"):
            self._is_fork_set = True
            os.register_at_fork(after_in_child=self._fork)
        if not self._is_exit_set:
            self._is_exit_set = True
            atexit.register(self._exit)
            self._exits.callback(atexit.unregister, self._exit)
            # Its children end by os._exit, and run no more than its finalizers.
            if util := sys.modules.get("multiprocessing.util"):
                finalizer = util.Finalize(None, self._exit, exitpriority=_LAST)
                self._exits.callback(finalizer.cancel)

    def close(self) -> None:
        """Be called no more at the end; a fork's hook cannot be taken back."""
        self._exits.close()
        self._is_exit_set = False

    def become_child(self) -> None:
        """Let the next `set` reach a child of multiprocessing, which forgets all finalizers."""
        self._is_exit_set = False


def _call(reference: weakref.WeakMethod[Call]) -> None:
    method = reference()
    if method is not None:
        method()
