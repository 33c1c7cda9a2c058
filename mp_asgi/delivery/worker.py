"""Run delivery behind the requests: daemon threads, started in each process when needed.

Decides only when threads live and what a flush, a fork and the end of the process mean. What
leaves when is the pump's matter.
"""

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Generic, TypeVar

from mp_asgi.events import Act, Entry, Link, Stop
from mp_asgi.settings import Settings

from .counters import Counters, Stats
from .outbox.base import DeadLetter, Outbox
from .pump import Pump
from .recorder import Recorder
from .sender import Sender
from .storer import Intake, Mark, Storer
from .transport import Transport

_LAST: Final = -100  # of multiprocessing's finalizers: the others may still track

T = TypeVar("T")

logger = logging.getLogger("mp_asgi.delivery")


class _Home(Generic[T]):
    """What belongs to one process: its intake, its outbox and its recorder."""

    def __init__(self, outbox: Outbox, recorder: Recorder | None) -> None:
        self.pid = os.getpid()
        self.intake: Intake[T] = Intake()
        self.outbox = outbox
        self.recorder = recorder
        self.progress = threading.Condition()
        self.settling = threading.Lock()
        self.flushes = 0

    def waiting(self) -> int:
        return self.intake.waiting() + self.outbox.stats().depth

    def unrecorded(self) -> int:
        return self.recorder.waiting() if self.recorder is not None else 0

    def notify(self) -> None:
        with self.progress:
            self.progress.notify_all()

    @contextlib.contextmanager
    def flushing(self) -> Iterator[None]:
        with self.progress:
            self.flushes += 1
        try:
            yield
        finally:
            with self.progress:
                self.flushes -= 1


class _Run:
    """The threads between a start and a stop."""

    def __init__(
        self,
        jobs: Mapping[str, Callable[[threading.Event], None]],
        wakes: Sequence[threading.Event],
        sender: Sender,
    ) -> None:
        self.sender = sender
        self._stopping = threading.Event()
        self._wakes = wakes
        self._threads = [
            threading.Thread(target=run, args=(self._stopping,), name=name, daemon=True)
            for name, run in jobs.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, deadline: float) -> None:
        self._stopping.set()
        for wake in self._wakes:
            wake.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))


class Worker(Generic[T]):
    """Take what requests submit and deliver it, outliving them.

    Threads start at the first submit in each process and never before. A forked child starts
    empty: what waited at the fork is the parent's.

    Args:
        outbox_factory: Makes this process's outbox.
        transport_factory: Makes the transport, in the thread that sends.
        recorder_factory: Makes what drives this process's ledger; None without one.
        render: Makes entries of an item, in the storing thread. What it leaves out it counts
            itself as `dropped`; if it raises, the whole item is dropped as `unrenderable`.
        counters: Where everything is counted.
        settings: Bounds, intervals and the time a shutdown may take.
        clock: Answers seconds since the epoch.
    """

    def __init__(
        self,
        *,
        outbox_factory: Callable[[], Outbox],
        transport_factory: Callable[[], Transport],
        recorder_factory: Callable[[], Recorder] | None = None,
        render: Callable[[T], Sequence[Entry]],
        counters: Counters,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox_factory = outbox_factory
        self._transport_factory = transport_factory
        self._recorder_factory = recorder_factory
        self._render = render
        self._counters = counters
        self._settings = settings
        self._clock = clock
        self._max_messages = settings.outbox_max_messages
        self._running_pid = 0  # the process whose threads run; 0 when none do
        self._home: _Home[T] = self._new_home()
        self._run: _Run | None = None
        # By process: a lock that another thread held at the fork stays locked in the child.
        self._locks: dict[int, threading.Lock] = {}
        self._exit_hook = partial(_exit, weakref.ref(self))
        self._exit_hooks = contextlib.ExitStack()  # takes them back
        self._is_exit_hooked = False
        self._is_fork_hooked = False
        self._is_over = False
        self._has_told_overflow = False

    def submit(self, item: T | Stop, count: int = 0, *, is_identity: bool = False) -> None:
        """Accept an item. On the request path: appends, takes no lock, never raises.

        Args:
            item: What `render` understands, or a stop, which forgets what was submitted before.
            count: How many messages the item holds.
            is_identity: Whether it holds an identity event, which is never dropped when full.
        """
        if self._running_pid != os.getpid() and not self._start():
            self._drop(count, "shutdown")
            return
        intake = self._home.intake
        if (
            intake.messages + count > self._max_messages
            and not is_identity
            and not isinstance(item, Stop)
        ):
            self._overflow(count)
            return
        intake.items.append((item, count))
        intake.messages += count
        if not intake.wake.is_set():
            intake.wake.set()

    def record(self, item: Act | Link) -> None:
        """Accept a choice for the ledger. On the request path: never raises, never waits."""
        if not self._is_running():
            self._counters.count("unrecorded")
        elif recorder := self._home.recorder:
            recorder.record(item)

    def ask(self, key: bytes) -> None:
        """Look a subject up in the ledger, for a later request. Never raises, never waits."""
        if self._is_running() and (recorder := self._home.recorder):
            recorder.ask(key)

    def flush(self, timeout: float) -> bool:
        """Send what was submitted before this call, without waiting for batches to fill.

        Returns:
            Whether all of it was delivered, buried or dropped within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        home = self._here()
        if not self._settle_records(home, deadline):
            return False
        if not home.waiting() and not home.intake.items:
            with home.settling:
                return True
        if not self._start():
            return False
        with home.flushing():
            mark = Mark()
            home.intake.items.append((mark, 0))
            home.intake.wake.set()
            if not mark.wait(max(0.0, deadline - time.monotonic())):
                return False
            outbox = home.outbox
            next_id = outbox.stats().next_id
            with home.progress:
                is_done = home.progress.wait_for(
                    lambda: outbox.stats().first_id >= next_id,
                    max(0.0, deadline - time.monotonic()),
                )
        # Gone from the outbox and counted are one; and no step goes on as if this flush did.
        with home.settling:
            return is_done

    def close(self, timeout: float) -> bool:
        """Flush and stop the threads. A later submit starts them again.

        What is not delivered in time stays for that later submit, and is lost with the process.

        Returns:
            Whether everything was delivered, buried or dropped within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        # Events of requests that end while the server stops arrive after a flush began.
        while self._is_busy() and self.flush(deadline - time.monotonic()):
            pass
        self._stop(deadline)
        home = self._here()
        if self._is_busy():
            logger.warning(
                "Closed with %d messages not delivered and %d choices not recorded yet.",
                home.waiting(),
                home.unrecorded(),
            )
            return False
        # Nothing is left that the end of the process could lose.
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            self._exit_hooks.close()
            self._is_exit_hooked = False
        return True

    def fence(self, timeout: float) -> bool:
        """Wait until no send of this process that began before is under way.

        Returns:
            Whether that was so within `timeout` seconds.
        """
        run = self._run if self._running_pid == os.getpid() else None
        return run is None or run.sender.fence(timeout)

    def erase(self, keys: Collection[bytes], at: float) -> int:
        """Remove what this process holds of before `at` under the keys, dead letters included.

        What was submitted and is not stored yet meets the mark that this leaves.

        Returns:
            How many messages that waited were removed.
        """
        removed = self._here().outbox.erase(keys, at)
        self._counters.count("dropped", removed, "erased")
        return removed

    def stats(self) -> Stats:
        """Answer what was counted, what waits in the intake included."""
        home = self._here()
        submitted = home.intake.waiting()
        counted = self._counters.snapshot()
        return replace(
            counted,
            accepted=counted.accepted + submitted,
            waiting=submitted + home.outbox.stats().depth,
        )

    def dead(self) -> Sequence[DeadLetter]:
        """Answer the dead letters of this process's outbox, oldest first."""
        return self._here().outbox.dead()

    def exit(self) -> None:
        """Deliver what can be delivered in time and drop the rest: the interpreter ends.

        Registered with `atexit`, and with `multiprocessing` where that is used; may come twice.
        Threads cannot start any more; a later submit is dropped.
        """
        home = self._home
        if home.pid != os.getpid():
            return  # a child of the process that started: all of this is its parent's
        deadline = time.monotonic() + self._settings.close_timeout
        if self._running_pid:
            self.flush(self._settings.close_timeout)
        self._is_over = True  # first, so that no submit starts what is stopped
        self._stop(deadline)
        lost, unrecorded = home.waiting(), home.unrecorded()
        if lost or unrecorded:
            self._counters.count("accepted", home.intake.waiting())
            self._counters.count("dropped", lost, "shutdown")
            self._counters.count("unrecorded", unrecorded)
            self._home = self._new_home()
            logger.warning(
                "The process ends with %d messages not delivered and %d choices not recorded.",
                lost,
                unrecorded,
            )

    def _start(self) -> bool:
        """Start the threads of this process unless they run. Return whether they do."""
        pid = os.getpid()
        with self._locks.setdefault(pid, threading.Lock()):
            if self._running_pid == pid:
                return True
            if self._is_over:
                return False
            home = self._home_of(pid)
            run = self._new_run(home)
            try:
                run.start()
            except RuntimeError:  # the interpreter ends, or the system has no thread left
                run.stop(0.0)
                return False
            self._hook()
            home.intake.wake.set()  # something may be left from before a close
            self._run = run
            self._running_pid = pid
            return True

    def _new_run(self, home: _Home[T]) -> _Run:
        sender = Sender(
            pump=Pump(home.outbox, self._settings, self._counters),
            outbox=home.outbox,
            transport_factory=self._transport_factory,
            clock=self._clock,
            settling=home.settling,
            screen=None if home.recorder is None else home.recorder.screen,
            is_flushing=lambda: home.flushes > 0,
            on_progress=home.notify,
        )

        def on_stored() -> None:
            sender.wake.set()
            home.notify()  # a stop may have removed what a flush waits for

        storer = Storer(
            intake=home.intake,
            outbox=home.outbox,
            render=self._render,
            counters=self._counters,
            clock=self._clock,
            on_stored=on_stored,
        )
        jobs = {"mp-asgi-storer": storer.run, "mp-asgi-sender": sender.run}
        wakes = [home.intake.wake, sender.wake]
        if home.recorder is not None:
            jobs["mp-asgi-recorder"] = home.recorder.run
            wakes.append(home.recorder.wake)
        return _Run(jobs, wakes, sender)

    def _new_home(self) -> _Home[T]:
        make = self._recorder_factory
        return _Home(self._outbox_factory(), None if make is None else make())

    def _stop(self, deadline: float) -> None:
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            run, self._run = self._run, None
            self._running_pid = 0
        if run is not None:
            run.stop(deadline)

    def _is_busy(self) -> bool:
        home = self._here()
        return bool(home.waiting() or home.unrecorded())

    def _settle_records(self, home: _Home[T], deadline: float) -> bool:
        """Wait for the recorder: a database that hangs must not hold who asks to flush."""
        if home.recorder is None or not home.unrecorded():
            return True
        return self._start() and home.recorder.flush(deadline - time.monotonic())

    def _is_running(self) -> bool:
        return self._running_pid == os.getpid() or self._start()

    def _here(self) -> _Home[T]:
        pid = os.getpid()
        with self._locks.setdefault(pid, threading.Lock()):
            return self._home_of(pid)

    def _home_of(self, pid: int) -> _Home[T]:
        if self._home.pid != pid:
            self.become_child()
        return self._home

    def become_child(self) -> None:
        """Leave everything of the parent to the parent: a forked child starts empty.

        Registered with `os.register_at_fork`, and called at the first use in another process,
        because some servers fork without the hooks (uWSGI, traps.md section 2.1).
        """
        self._home = self._new_home()
        self._run = None
        self._running_pid = 0
        self._is_exit_hooked = False  # multiprocessing forgets its parent's finalizers

    def _hook(self) -> None:
        if not self._is_fork_hooked and hasattr(os, "register_at_fork"):
            self._is_fork_hooked = True
            os.register_at_fork(after_in_child=partial(_after_fork, weakref.ref(self)))
        if not self._is_exit_hooked:
            self._is_exit_hooked = True
            atexit.register(self._exit_hook)
            self._exit_hooks.callback(atexit.unregister, self._exit_hook)
            # Its children end by os._exit, and run no more than its finalizers.
            if util := sys.modules.get("multiprocessing.util"):
                finalizer = util.Finalize(None, self._exit_hook, exitpriority=_LAST)
                self._exit_hooks.callback(finalizer.cancel)

    def _overflow(self, count: int) -> None:
        self._drop(count, "overflow")
        if not self._has_told_overflow:
            self._has_told_overflow = True
            logger.error("The intake is full; new events are dropped and counted (overflow).")

    def _drop(self, count: int, reason: str) -> None:
        self._counters.count("accepted", count)
        self._counters.count("dropped", count, reason)


def _exit(reference: "weakref.ref[Worker[T]]") -> None:
    worker = reference()
    if worker is not None:
        worker.exit()


def _after_fork(reference: "weakref.ref[Worker[T]]") -> None:
    worker = reference()
    if worker is not None:
        worker.become_child()
