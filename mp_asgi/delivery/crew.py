"""Put together who works for one process between a start and a stop: storer, sender, recorder."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Entry
from mp_asgi.settings import Settings

from .counters import Counters
from .forwarder import Forwarder
from .home import Home
from .outbox.base import Horizon
from .outbox.spooled import Spooled
from .pump import Pump
from .run import Job, Pulse, Rest, Run
from .sender import Sender
from .storer import Storer
from .transport import Transport

HEAR_SECONDS: Final = 60.0  # for the stops in journals; thousands of them take seconds
_POLL_SECONDS: Final = 0.1  # of an outbox that others empty, while somebody waits

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tools(Generic[T]):
    """What a crew works with.

    Attributes:
        transport_factory: Makes the transport, in the thread that sends.
        render: Makes entries of an item, in the storing thread.
        counters: Where everything is counted.
        settings: Bounds and intervals.
        clock: Answers seconds since the epoch.
    """

    transport_factory: Callable[[], Transport]
    render: Callable[[T], Sequence[Entry]]
    counters: Counters
    settings: Settings
    clock: Callable[[], float]


class Crew(Generic[T]):
    """The threads of one process and what they drive.

    Args:
        home: What they work on.
        tools: What they work with.

    Attributes:
        storer: Fills the outbox.
        sender: Empties it, or its spool where others send.
    """

    def __init__(self, home: Home[T], tools: Tools[T]) -> None:
        self._home = home
        self._tools = tools
        self._delivered = 0
        self._sent_at: float | None = None
        self._rest = Rest(home.notify)
        self._pump = Pump(home.outbox, tools.settings, tools.counters)
        self.sender = self._make_sender()
        self.storer = make_storer(home, tools, self._on_stored)
        jobs: dict[str, Job] = {
            "mp-asgi-storer": self.storer.run,
            "mp-asgi-sender": self._send,
        }
        wakes = [home.intake.wake, self._rest, self.storer.has_heard]
        if home.recorder is not None:
            jobs["mp-asgi-recorder"] = home.recorder.run
            wakes.append(home.recorder.wake)
        self._run = Run(jobs, wakes, home.close_outbox)

    def start(self) -> None:
        """Start the threads that do not run yet.

        Raises:
            RuntimeError: The system has none left, or the interpreter ends. Those that were
                started go on.
        """
        self._run.start()

    def stop(self, deadline: float) -> bool:
        """Let them finish. Return whether they have, before a moment of `time.monotonic`."""
        return self._run.stop(deadline)

    def flush(self, deadline: float) -> bool:
        """Store and send what was submitted before, until it is gone or nobody can send it before
        a moment of `time.monotonic`. Return whether it is gone.
        """
        home = self._home
        with home.flushing():
            if not home.intake.mark().wait(max(0.0, deadline - time.monotonic())):
                return False
            is_done = self._wait_until_sent(deadline)
        # Gone from the outbox and counted are one; and no step goes on as if this flush did.
        if not home.settling.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        home.settling.release()
        return is_done

    def pulse(self) -> Pulse:
        """Answer how they fare."""
        home = self._home
        away = home.outbox.trouble if isinstance(home.outbox, Spooled) else ""
        return Pulse(
            is_running=self._run.is_alive(),
            stored_at=self.storer.stored_at,
            sent_at=self._sent_at,
            is_blocked=self._pump.is_blocked,
            trouble=" ".join(filter(None, (home.keeper.trouble, away))),
        )

    def _send(self, stopping: threading.Event) -> None:
        # A denial in a journal ends what waits in the outbox, too.
        self.storer.has_heard.wait(HEAR_SECONDS)
        self.sender.run(stopping)

    def _make_sender(self) -> Sender | Forwarder:
        home, tools = self._home, self._tools
        if isinstance(home.outbox, Spooled):  # `mp-asgi drain` sends
            forwarder = Forwarder(home.outbox, clock=tools.clock, on_progress=self._on_progress)
            forwarder.wake = self._rest
            return forwarder
        sender = Sender(
            pump=self._pump,
            transport_factory=tools.transport_factory,
            clock=tools.clock,
            settling=home.settling,
            screen=None if home.recorder is None else home.recorder.screen,
            is_flushing=lambda: home.flushes > 0,
            on_progress=self._on_progress,
        )
        sender.wake = self._rest
        return sender

    def _wait_until_sent(self, deadline: float) -> bool:
        home = self._home
        try:
            horizon = home.outbox.horizon()
        except OutboxUnavailable:
            return False
        self._rest.set()  # the sender decides anew, as long as somebody flushes

        def is_over() -> bool:
            return self._is_past(horizon) or self._has_given_up(deadline)

        with home.progress:
            while (left := deadline - time.monotonic()) > 0:
                # What another process has sent wakes nobody here.
                if home.progress.wait_for(is_over, min(left, _POLL_SECONDS)):
                    return self._is_past(horizon)
        return False  # a storage that hangs is asked no more

    def _is_past(self, horizon: Horizon) -> bool:
        try:
            return self._home.outbox.is_past(horizon)
        except OutboxUnavailable:
            return False

    def _has_given_up(self, deadline: float) -> bool:
        """Whether nothing will be sent in time: the host is down, or whatever waits is held back.
        What another process may be sending is worth waiting for.
        """
        if not self._rest.lasts(deadline):
            return False
        try:
            return not self._home.outbox.stats().leased
        except OutboxUnavailable:
            return True

    def _on_stored(self) -> None:
        self._rest.set()
        self._home.notify()  # a stop may have removed what a flush waits for

    def _on_progress(self) -> None:
        delivered = self._tools.counters.snapshot().delivered
        if delivered != self._delivered:
            self._delivered, self._sent_at = delivered, self._tools.clock()
        self._home.notify()


def make_storer(home: Home[T], tools: Tools[T], on_stored: Callable[[], None]) -> Storer[T]:
    """Make what fills the outbox, for a thread or for the end of a process."""
    return Storer(
        intake=home.intake,
        outbox=home.outbox,
        render=tools.render,
        counters=tools.counters,
        clock=tools.clock,
        on_stored=on_stored,
        shelf=home.keeper.shelf(),
    )
