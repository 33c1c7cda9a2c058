"""Run delivery behind the requests: daemon threads, started in each process when needed.

Decides only when threads live and what a flush, a fork and the end of the process mean. What
leaves when is the pump's matter.

A process that may not have threads (uWSGI without `enable-threads`) keeps what is submitted in its
journal, and another one delivers it.
"""

import atexit
import contextlib
import logging
import math
import os
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Act, Entry, Link, Stop
from mp_asgi.settings import Settings

from .counters import Counters, Stats
from .crew import Crew, Tools, make_storer
from .home import Home
from .journals import Journaling
from .outbox.base import Counts, DeadLetter, Horizon, Outbox
from .recorder import Recorder
from .run import Pulse
from .storer import Mark
from .transport import Transport
from .uwsgi import ends_silently, has_threads

_LAST: Final = -100  # of multiprocessing's finalizers: the others may still track
_RETRY_SECONDS: Final = 5.0  # between two requests that try to start threads, if none could be
_POLL_SECONDS: Final = 0.1  # of an outbox that others empty, while somebody waits
_LONE: Final = (
    "uWSGI runs without enable-threads, so this process delivers nothing. With a durable outbox "
    "its events wait in a journal for `mp-asgi drain`, or for a process with threads."
)

T = TypeVar("T")

logger = logging.getLogger("mp_asgi.delivery")


class Worker(Generic[T]):
    """Take what requests submit and deliver it, outliving them.

    Threads start at the first submit in each process and never before, unless `start` is called. A
    forked child starts empty: what waited at the fork is the parent's.

    Args:
        outbox_factory: Makes this process's outbox.
        transport_factory: Makes the transport, in the thread that sends.
        recorder_factory: Makes what drives this process's ledger; None without one.
        render: Makes entries of an item, in the storing thread. What it leaves out it counts
            itself as `dropped`; if it raises, the whole item is dropped as `unrenderable`.
        counters: Where everything is counted.
        settings: Bounds, intervals, durability and the time a shutdown may take.
        clock: Answers seconds since the epoch.
        journaling: How items are kept on disk before the outbox has them; None if they cannot be.
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
        journaling: Journaling[T] | None = None,
    ) -> None:
        self._outbox_factory = outbox_factory
        self._recorder_factory = recorder_factory
        self._journaling = journaling
        self._counters = counters
        self._settings = settings
        self._tools = Tools(transport_factory, render, counters, settings, clock)
        self._max_messages = settings.outbox_max_messages
        self._running_pid = 0  # the process whose threads run; 0 when none do
        self._home: Home[T] = self._new_home()
        self._crew: Crew[T] | None = None
        # By process: a lock that another thread held at the fork stays locked in the child.
        self._locks: dict[int, threading.Lock] = {}
        self._exit_hook = partial(_exit, weakref.ref(self))
        self._exit_hooks = contextlib.ExitStack()  # takes them back
        self._is_exit_hooked = False
        self._is_fork_hooked = False
        self._is_over = False
        self._is_ending = False  # the interpreter ends: no thread starts any more
        self._retry_at = -math.inf
        self._told: set[str] = set()

    def submit(self, item: T | Stop, count: int = 0, *, is_identity: bool = False) -> None:
        """Accept an item. On the request path: appends, takes no lock, never raises.

        In strict durability, and on uWSGI, it writes to the journal, under a lock held for that
        write.

        Args:
            item: What `render` understands, or a stop, which forgets what was submitted before.
            count: How many messages the item holds.
            is_identity: Whether it holds an identity event, which is never dropped when full.
        """
        if not self._is_running():
            self._submit_without_threads(item, count, is_identity=is_identity)
            return
        home = self._home
        intake = home.intake
        if (
            intake.messages + count > self._max_messages
            and not is_identity
            and not isinstance(item, Stop)
        ):
            self._overflow(count)
            return
        journal = home.journal
        if journal is None or not home.keep(journal, item, count):
            if journal is not None and home.journal is not journal:  # closed meanwhile
                self.submit(item, count, is_identity=is_identity)
                return
            intake.items.append((item, count))
        elif home.is_lone:
            return
        intake.messages += count
        if not intake.wake.is_set():
            intake.wake.set()

    def record(self, item: Act | Link) -> None:
        """Accept a choice for the ledger. On the request path: never raises, never waits."""
        if not self._is_running() and (self._is_over or self._is_ending):
            self._counters.count("unrecorded")
        elif recorder := self._home.recorder:
            recorder.record(item)

    def ask(self, key: bytes) -> None:
        """Look a subject up in the ledger, for a later request. Never raises, never waits."""
        if self._is_running() and (recorder := self._home.recorder):
            recorder.ask(key)

    def start(self) -> bool:
        """Start the threads though nothing was submitted: what an earlier process left leaves.

        Returns:
            Whether they run.
        """
        return self._start() and self._crew is not None

    @property
    def is_durable(self) -> bool:
        """Whether an earlier process may have left something."""
        return self._here().outbox.is_durable

    def flush(self, timeout: float) -> bool:
        """Send what was submitted before this call, without waiting for batches to fill.

        Returns early where nothing can be sent in time. What processes that share the outbox put
        before is sent, too; what they put later is not waited for.

        Returns:
            Whether all of it was delivered, buried or dropped within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        home = self._here()
        if not self._settle_records(home, deadline):
            return False
        # Who runs finds what others have left in their journals.
        is_looking = self._running_pid == os.getpid() and home.journals is not None
        if not is_looking and not home.unstored() and not home.intake.items and not home.depth():
            with home.settling:
                return True
        if not self._start() or (crew := self._crew) is None:
            return False
        with home.flushing():
            if not self._wait_until_stored(home, deadline - time.monotonic()):
                return False
            is_done = self._wait_until_sent(home, crew, deadline)
        # Gone from the outbox and counted are one; and no step goes on as if this flush did.
        if not home.settling.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        home.settling.release()
        return is_done

    def close(self, timeout: float) -> bool:
        """Flush and stop the threads. A later submit starts them again.

        What is not delivered in time stays for that later submit; a durable outbox keeps it for
        the next process, too.

        Returns:
            Whether everything was delivered, buried or dropped within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        home = self._here()
        is_done = not self._is_busy(home) or self.flush(timeout)
        # Events of requests that end while the server stops arrive after a flush began.
        while is_done and self._is_own_busy(home):
            is_done = self.flush(deadline - time.monotonic())
        self._stop(deadline)
        if not is_done or self._is_own_busy(home):
            self._tell_close(home)
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
        crew = self._crew if self._running_pid == os.getpid() else None
        return crew is None or crew.sender.fence(timeout)

    def erase(self, keys: Collection[bytes], at: float) -> int:
        """Remove what this process holds of before `at` under the keys, dead letters included.

        What was submitted and is not stored yet meets the mark that this leaves.

        Returns:
            How many messages that waited were removed.
        """
        home = self._here()
        removed = home.outbox.erase(keys, at)
        self._counters.echo("dropped", removed, "erased")
        if home.journal is not None and (crew := self._crew) is not None:
            crew.storer.hurry()
            self._wait_until_stored(home, self._settings.close_timeout)
        return removed

    def stats(self) -> Stats:
        """Answer what was counted, what waits in the intake included.

        Raises:
            OutboxUnavailable: The outbox does not say.
        """
        home = self._here()
        submitted = home.unstored()
        stats = home.outbox.stats()
        counts = Counter(stats.totals)
        counts.update(self._counters.untold())
        counts["accepted", ""] += submitted
        return Stats.of(counts, waiting=submitted + stats.depth)

    def pulse(self) -> Pulse:
        """Answer how the threads of this process fare, without asking the outbox."""
        home = self._here()
        crew = self._crew if self._running_pid == os.getpid() else None
        return Pulse(trouble=_LONE if home.is_lone else "") if crew is None else crew.pulse()

    def dead(self) -> Sequence[DeadLetter]:
        """Answer the dead letters of this process's outbox, oldest first."""
        return self._here().outbox.dead()

    def exit(self) -> None:
        """Deliver what can be delivered in time: the interpreter ends.

        What is left waits in a durable outbox, or in a journal, for the next process; what only
        memory has is dropped. Registered with `atexit`, and with `multiprocessing` where that is
        used; may come twice. Threads cannot start any more.
        """
        home = self._home
        if home.pid != os.getpid():
            return  # a child of the process that started: all of this is its parent's
        deadline = time.monotonic() + self._settings.close_timeout
        is_done = not self._running_pid or self.flush(self._settings.close_timeout)
        self._is_over = True  # first, so that no submit starts what is stopped
        if has_ended := self._stop(deadline):
            if time.monotonic() < deadline:
                self._store_left(home)
            self._counters.count("stop_lost", home.owed_stops())
        home.keep_left()
        # A thread that hangs in the storage would hold whoever asks it, too.
        if not self._lose_left(home, may_ask=has_ended) and not is_done:
            self._tell_close(home)

    # --- start and stop -----------------------------------------------------------------------

    def _start(self) -> bool:
        """Start the threads of this process unless they run. Return whether it can go on."""
        pid = os.getpid()
        with self._locks.setdefault(pid, threading.Lock()):
            if self._running_pid == pid:
                return True
            if self._is_over:
                return False
            home = self._home_of(pid)
            is_lone = not has_threads()
            if self._settings.durability == "strict" or ends_silently():
                home.open_journal(is_lone=is_lone)
            if is_lone:
                self._tell("lone", _LONE)
            elif not self._start_crew(home):
                return False
            self._hook()
            self._running_pid = pid
            return True

    def _start_crew(self, home: Home[T]) -> bool:
        # One that could not start as a whole goes on where it is: its storer stores.
        crew = self._crew = self._crew or Crew(home, self._tools)
        home.intake.wake.set()  # something may be left from before a close
        try:
            crew.start()
        except RuntimeError as error:
            # The interpreter ends, or the system has no thread left.
            self._is_ending = "shutdown" in str(error)
            self._is_over = home.outbox.is_durable and self._is_ending
            self._retry_at = time.monotonic() + (0.0 if self._is_ending else _RETRY_SECONDS)
            self._tell("threads", f"A thread of delivery does not start ({error}); tried again.")
            return False
        self._is_ending = False
        return True

    def _stop(self, deadline: float) -> bool:
        """Stop the threads. Return whether none is left that could still store."""
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            crew, self._crew = self._crew, None
            home, self._running_pid = self._home, 0
            if crew is not None:
                home.detach_journal()  # a submit that comes now begins another one
        if home.is_lone:
            home.leave()
        return crew is None or crew.stop(deadline)

    def _submit_without_threads(self, item: T | Stop, count: int, *, is_identity: bool) -> None:
        """Keep an item where the end of this process, or another one, finds it."""
        home = self._here()
        if home.journal is not None and home.keep(home.journal, item, count):
            return
        if not home.outbox.is_durable and (self._is_over or self._is_ending):
            self._drop(count, "shutdown")
        elif home.intake.messages + count > self._max_messages and not is_identity:
            self._overflow(count)
        else:
            home.intake.items.append((item, count))
            home.intake.messages += count
            home.intake.wake.set()  # of a storer that did start
            if self._is_over:
                self._store_left(home)
            else:
                self._hook()

    def _store_left(self, home: Home[T]) -> None:
        """Store what no thread has stored: the process ends."""
        if home.outbox.is_durable and home.unstored():
            storer = make_storer(home, self._tools, home.notify)
            home.detach_journal()
            storer.end()
            home.close_outbox()

    def _lose_left(self, home: Home[T], *, may_ask: bool) -> bool:
        """Count what ends with this process. Return whether that is anything."""
        waiting, unrecorded = home.intake.waiting(), home.unrecorded()
        held = home.held()
        lost = waiting + held.depth
        if not lost and not unrecorded:
            return False
        self._counters.count("accepted", waiting)
        self._counters.count("dropped", lost, "shutdown")
        self._counters.count("unrecorded", unrecorded)
        self._home = self._new_home()
        if may_ask or not home.outbox.is_shared:
            self._tell_lost(held.totals)
        logger.warning(
            "The process ends with %d messages not delivered and %d choices not recorded.",
            lost,
            unrecorded,
        )
        return True

    def _tell_lost(self, totals: Counts) -> None:
        """Let the totals of all who share the outbox say what this process has lost."""
        outbox = self._home.outbox
        with contextlib.suppress(OutboxUnavailable):
            outbox.tally(totals)
            if outbox.is_shared:  # else they are this process's own, with what was not told
                self._counters.tell(outbox.tally)

    # --- what is left to do -------------------------------------------------------------------

    def _wait_until_stored(self, home: Home[T], timeout: float) -> bool:
        mark = Mark()
        home.intake.items.append((mark, 0))
        home.intake.wake.set()
        return mark.wait(max(0.0, timeout))

    def _wait_until_sent(self, home: Home[T], crew: Crew[T], deadline: float) -> bool:
        """Answer whether what waits now is gone, once it is or nobody can send it in time."""
        try:
            horizon = home.outbox.horizon()
        except OutboxUnavailable:
            return False
        crew.wake_sender()  # it decides anew, as long as somebody flushes

        def is_over() -> bool:
            return _is_past(home.outbox, horizon) or crew.has_given_up(deadline)

        with home.progress:
            while (left := deadline - time.monotonic()) > 0:
                # What another process has sent wakes nobody here.
                if home.progress.wait_for(is_over, min(left, _POLL_SECONDS)):
                    return _is_past(home.outbox, horizon)
        return False  # a storage that hangs is asked no more

    def _is_busy(self, home: Home[T]) -> bool:
        return bool(self._is_own_busy(home) or home.depth())

    def _is_own_busy(self, home: Home[T]) -> bool:
        """Whether anything is left that others do not put into the outbox all the time."""
        own = home.unstored() or home.unrecorded()
        return bool(own or (not home.outbox.is_shared and home.depth()))

    def _tell_close(self, home: Home[T]) -> None:
        unrecorded = home.unrecorded()
        if home.outbox.is_durable and not home.intake.waiting() and not unrecorded:
            # Not how many: a storage that hangs would hold who closes.
            logger.warning("Closed; what is not delivered waits for the next process.")
            return
        logger.warning(
            "Closed with %d messages not delivered and %d choices not recorded yet.",
            home.unstored() + home.held().depth,
            unrecorded,
        )

    def _settle_records(self, home: Home[T], deadline: float) -> bool:
        """Wait for the recorder: a database that hangs must not hold who asks to flush."""
        if home.recorder is None or not home.unrecorded():
            return True
        return self._start() and home.recorder.flush(deadline - time.monotonic())

    # --- processes ----------------------------------------------------------------------------

    def _is_running(self) -> bool:
        """Whether the threads run, after a start if that may succeed."""
        if self._running_pid == os.getpid():
            return True
        return time.monotonic() >= self._retry_at and self._start()

    def _here(self) -> Home[T]:
        pid = os.getpid()
        with self._locks.setdefault(pid, threading.Lock()):
            return self._home_of(pid)

    def _home_of(self, pid: int) -> Home[T]:
        if self._home.pid != pid:
            self.become_child()
        return self._home

    def _new_home(self) -> Home[T]:
        make = self._recorder_factory
        return Home(
            self._outbox_factory(),
            None if make is None else make(),
            self._journaling,
            counters=self._counters,
            max_bytes=self._settings.outbox_max_bytes,
        )

    def become_child(self) -> None:
        """Leave everything of the parent to the parent: a forked child starts empty.

        Registered with `os.register_at_fork`, and called at the first use in another process,
        because some servers fork without the hooks (uWSGI, traps.md section 2.1).
        """
        self._home.abandon()
        self._home = self._new_home()
        self._crew = None
        self._running_pid = 0
        self._retry_at = -math.inf
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
        self._tell("overflow", "The intake is full; new events are dropped and counted (overflow).")

    def _drop(self, count: int, reason: str) -> None:
        self._counters.count("accepted", count)
        self._counters.count("dropped", count, reason)

    def _tell(self, topic: str, text: str) -> None:
        if topic not in self._told:
            self._told.add(topic)
            logger.error(text)


def _is_past(outbox: Outbox, horizon: Horizon) -> bool:
    try:
        return outbox.is_past(horizon)
    except OutboxUnavailable:
        return False


def _exit(reference: "weakref.ref[Worker[T]]") -> None:
    worker = reference()
    if worker is not None:
        worker.exit()


def _after_fork(reference: "weakref.ref[Worker[T]]") -> None:
    worker = reference()
    if worker is not None:
        worker.become_child()
