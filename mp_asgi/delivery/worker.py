"""Run delivery behind the requests: daemon threads, started in each process when needed.

Decides only when threads live and what a fork and the end of the process mean. What leaves when is
the pump's matter.

A process that may not have threads (uWSGI without `enable-threads`) keeps what is submitted in its
journal, and another one delivers it.
"""

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final, Generic, TypeVar

from mp_asgi.events import Act, Entry, Link, Stop
from mp_asgi.settings import Settings

from .counters import Counters, Stats
from .crew import Crew, Tools
from .ending import forget_now, lose_left, store_left, tell_close, tell_totals
from .home import Home
from .hooks import Hooks
from .journals import Journaling
from .keeper import Keeper, keeps_journal
from .log import logger
from .outbox.base import DeadLetter, Outbox
from .recorder import Recorder
from .run import GRACE_SECONDS, Pulse
from .transport import Transport
from .uwsgi import has_threads

_RETRY_SECONDS: Final = 5.0  # between two requests that try to start threads, if none could be
_LONE: Final = (
    "uWSGI runs without enable-threads, so this process delivers nothing. With a durable outbox "
    "its events wait in a journal for `mp-asgi drain`, or for a process with threads."
)

T = TypeVar("T")


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
        self._hooks = Hooks(self.exit, self.become_child)
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
            self._submit_without_threads(self._here(), item, count, is_identity=is_identity)
            return
        home = self._home
        if home.keeper.is_lone:
            self._submit_without_threads(home, item, count, is_identity=is_identity)
            return
        intake = home.intake
        if (
            intake.messages + count > self._max_messages
            and not is_identity
            and not isinstance(item, Stop)
        ):
            self._overflow(count)
            return
        journal = home.keeper.journal
        if journal is None or not home.keeper.keep(journal, item, count):
            if journal is not None and home.keeper.journal is not journal:  # closed meanwhile
                self.submit(item, count, is_identity=is_identity)
                return
            intake.items.append((item, count))
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
        is_looking = self._running_pid == os.getpid() and home.keeper.journals is not None
        if not is_looking and not home.is_busy(with_others=True):
            with home.settling:
                return True
        return self._start() and (crew := self._crew) is not None and crew.flush(deadline)

    def close(self, timeout: float) -> bool:
        """Flush and stop the threads. A later submit starts them again.

        What is not delivered in time stays for that later submit; a durable outbox keeps it for
        the next process, too.

        Returns:
            Whether everything was delivered, buried or dropped within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        home = self._here()
        is_done = not home.is_busy(with_others=True) or self.flush(timeout)
        # Events of requests that end while the server stops arrive after a flush began.
        while is_done and home.is_busy():
            is_done = self.flush(deadline - time.monotonic())
        self._stop(deadline)
        if not is_done or home.is_busy():
            tell_close(home)
            return False
        # Nothing is left that the end of the process could lose.
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            self._hooks.close()
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
        removed = home.outbox.erase(keys, at, self._tools.clock())
        self._counters.echo("dropped", removed, "erased")
        if home.keeper.journal is not None and (crew := self._crew) is not None:
            crew.storer.hurry()
            home.intake.mark().wait(self._settings.close_timeout)
        return removed

    def stats(self) -> Stats:
        """Answer what was counted, what waits in the intake included.

        Raises:
            OutboxUnavailable: The outbox does not say.
        """
        home = self._here()
        submitted = home.unstored()
        stats, untold = self._counters.join(home.outbox.stats)
        counts = Counter(stats.totals)
        counts.update(untold)
        counts["accepted", ""] += submitted
        return Stats.of(counts, waiting=submitted + stats.depth)

    def pulse(self) -> Pulse:
        """Answer how the threads of this process fare, without asking the outbox."""
        home = self._here()
        crew = self._crew if self._running_pid == os.getpid() else None
        return Pulse(trouble=_LONE if home.keeper.is_lone else "") if crew is None else crew.pulse()

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
                store_left(home, self._tools)
            self._counters.count("stop_lost", home.owed_stops())
        waiting = home.keeper.keep_left(home.intake, GRACE_SECONDS if has_ended else 0.0)
        lost = lose_left(home, waiting, self._counters)
        if lost is not None:
            self._home = self._new_home()
            # A thread that hangs in the storage would hold whoever asks it, too.
            if has_ended or not home.outbox.is_shared:
                tell_totals(self._home.outbox, lost, self._counters)
        elif not is_done:
            tell_close(home)

    def _settle_records(self, home: Home[T], deadline: float) -> bool:
        """Wait for the recorder: a database that hangs must not hold who asks to flush."""
        if home.recorder is None or not home.unrecorded():
            return True
        return self._start() and home.recorder.flush(deadline - time.monotonic())

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
            if keeps_journal(self._settings):
                home.keeper.open(is_lone=is_lone)
            if is_lone:
                self._tell("lone", _LONE)
            elif not self._start_crew(home):
                return False
            self._hooks.set()
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
                home.keeper.detach()  # a submit that comes now begins another one
        if home.keeper.is_lone:
            home.keeper.leave()
        return crew is None or crew.stop(deadline)

    def _submit_without_threads(
        self, home: Home[T], item: T | Stop, count: int, *, is_identity: bool
    ) -> None:
        """Keep an item where the end of this process, or another one, finds it."""
        journal = home.keeper.journal
        if journal is not None and home.keeper.keep(journal, item, count, is_identity=is_identity):
            return
        if isinstance(item, Stop) and home.keeper.is_lone:
            if not forget_now(home, item, self._tools):
                self._tell("stop", "The outbox did not forget a visitor who denied.")
        elif not home.outbox.is_durable and (self._is_over or self._is_ending):
            self._drop(count, "shutdown")
        elif not is_identity and count and home.intake.messages + count > self._max_messages:
            self._overflow(count)
        else:
            self._keep_in_memory(home, item, count)

    def _keep_in_memory(self, home: Home[T], item: T | Stop, count: int) -> None:
        home.intake.items.append((item, count))
        home.intake.messages += count
        home.intake.wake.set()  # of a storer that did start
        if self._is_over:
            store_left(home, self._tools)
        else:
            self._hooks.set()

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
        outbox, make = self._outbox_factory(), self._recorder_factory
        # What a journal holds may be put only into what outlives the process, as it does itself.
        journaling = self._journaling if outbox.is_durable else None
        keeper = Keeper(
            journaling,
            self._counters,
            clock=self._tools.clock,
            max_bytes=self._settings.outbox_max_bytes,
        )
        return Home(outbox, None if make is None else make(), keeper)

    def become_child(self) -> None:
        """Leave everything of the parent to the parent: a forked child starts empty.

        Registered with `os.register_at_fork`, and called at the first use in another process,
        because some servers fork without the hooks (uWSGI, traps.md section 2.1).
        """
        self._home.keeper.abandon()
        self._home = self._new_home()
        self._crew = None
        self._running_pid = 0
        self._retry_at = -math.inf
        self._hooks.become_child()

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
