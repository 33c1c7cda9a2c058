"""Obey the pump: send its batches, report their fate, sleep when it says so."""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from mp_asgi.errors import OutboxUnavailable, Unavailable
from mp_asgi.events import Entry

from .log import logger
from .pump import Batch, Pump, Wait
from .transport import Transport

PAUSE_SECONDS: Final = 1.0  # after a failure of ours, so that it does not fill a processor


class Sender:
    """Drive a pump on one thread.

    Args:
        pump: Says what to do.
        transport_factory: Makes the transport, in the thread that uses it, at its first batch.
        clock: Answers seconds since the epoch.
        settling: Held while a step is decided, and while a batch's fate is stored and counted:
            whoever takes it finds neither half done.
        is_flushing: Tells whether batches leave without waiting to fill.
        on_progress: Called after each step, whatever it has settled.
        screen: Answers which entries the consent ledger allows to leave; None without one.
    """

    def __init__(
        self,
        *,
        pump: Pump,
        transport_factory: Callable[[], Transport],
        clock: Callable[[], float],
        settling: threading.Lock,
        is_flushing: Callable[[], bool],
        on_progress: Callable[[], None],
        screen: Callable[[Sequence[Entry]], Sequence[bool]] | None = None,
    ) -> None:
        self.wake = threading.Event()
        self.settling = settling
        self._sending = threading.Lock()  # held from the ledger's last word to Mixpanel's
        self._pump = pump
        self._transport_factory = transport_factory
        self._transport: Transport | None = None
        self._clock = clock
        self._screen = screen
        self._is_flushing = is_flushing
        self._on_progress = on_progress
        self._has_told = False

    def run(self, stopping: threading.Event) -> None:
        """Send until `stopping` is set."""
        while not stopping.is_set():
            try:
                rest = self.step()
            except BaseException as error:  # noqa: BLE001  # what is decided waits to be stored
                self._tell("The sender failed and goes on", error)
                stopping.wait(PAUSE_SECONDS)  # whoever puts does not wake it into the next failure
                continue
            if rest:
                self.wake.wait(rest)
                self.wake.clear()
        if self._transport is not None:
            self._transport.close()

    def step(self) -> float:
        """Take one step of the pump. Return how many seconds to rest before the next."""
        try:
            with self.settling:
                step = self._pump.next_step(self._clock(), is_flushing=self._is_flushing())
            if isinstance(step, Wait):
                return step.seconds
            with self._sending:
                allowed = self._leave_out_denied(step.batch)
                if allowed is not None:
                    self._exchange(allowed)
        finally:
            self._on_progress()
        return 0.0

    def fence(self, seconds: float) -> bool:
        """Wait until no send that has begun before is under way. Return whether that was so.

        Args:
            seconds: How long to wait at most.
        """
        if not self._sending.acquire(timeout=seconds):
            return False
        self._sending.release()
        return True

    def _leave_out_denied(self, batch: Batch) -> Batch | None:
        """Ask the ledger last of all: what it denies goes, what it cannot answer waits."""
        if self._screen is None:
            return batch
        try:
            allowed = self._screen([leased.entry for leased in batch.leased])
        except BaseException as error:  # noqa: BLE001  # foreign; the batch waits
            if not isinstance(error, Unavailable):
                self._tell("The ledger failed in a way that is not its own", error)
            with self.settling:
                self._pump.postpone(batch, self._clock())
            return None
        with self.settling:
            return self._pump.leave_out_denied(batch, allowed, self._clock())

    def _exchange(self, batch: Batch) -> None:
        with self.settling:
            if self._pump.let_go_stale(batch, self._clock()):
                return
        try:
            if self._transport is None:
                self._transport = self._transport_factory()
            reply = self._transport.send(batch.endpoint, batch.body())
        except Unavailable as error:
            with self.settling:
                self._pump.fail(batch, error, self._clock())
        except BaseException as error:  # noqa: BLE001  # a foreign failure: the answer counts as lost
            self._tell("The transport failed in a way that is not its own", error)
            lost = Unavailable(type(error).__name__, is_sent=True)
            with self.settling:
                self._pump.fail(batch, lost, self._clock())
        else:
            with self.settling:
                self._pump.receive(batch, reply, self._clock())

    def _tell(self, text: str, error: BaseException) -> None:
        if not self._has_told:
            self._has_told = True
            # Only the type: the text of a foreign error may quote a property. Ours names the place.
            is_ours = isinstance(error, OutboxUnavailable)
            name = str(error) if is_ours else type(error).__name__
            logger.error("%s (%s). More of the same are not logged.", text, name)
