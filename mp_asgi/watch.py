"""Look at one process's delivery, for its health, its metrics and its telemetry."""

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeVar

from . import telemetry
from ._version import __version__
from .delivery.counters import Counters, Stats
from .delivery.outbox.base import Outbox
from .delivery.recorder import Ledger
from .errors import MixpanelASGIError, OutboxUnavailable
from .events import Act, Link, Standing
from .health import Health, Signs, examine
from .metrics import Reading, render
from .settings import Settings

if TYPE_CHECKING:
    from .delivery.run import Pulse

GLANCE_SECONDS: Final = 0.5  # kubernetes gives a probe 1 s (timeoutSeconds)
_PROJECT_DIGITS: Final = 8  # enough to tell two projects of a process apart

_Answer = TypeVar("_Answer")

logger = logging.getLogger("mp_asgi")


class Watch:
    """Watch what delivers. What it answers may wait for a storage: never ask on an event loop.

    Args:
        settings: What was configured.
        counters: Of this process.
        clock: Seconds since the epoch.
        pulse: Answers how the threads of this process fare.
        stats: Answers what was counted, and what waits, in this process's memory, too.
    """

    _outbox: Outbox

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        clock: Callable[[], float],
        *,
        pulse: Callable[[], "Pulse"],
        stats: Callable[[], Stats],
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._clock = clock
        self._pulse = pulse
        self._stats = stats
        self._ledger: WatchedLedger | None = None
        self._is_registered = False
        self._glance: Glance | None = None

    def watch_outbox(self, outbox: Outbox) -> Outbox:
        """Watch this outbox, instead of the one before. Answer it."""
        self._outbox = outbox
        return outbox

    def watch_ledger(self, ledger: Ledger) -> Ledger:
        """Answer a ledger that is watched, instead of the one before."""
        self._ledger = WatchedLedger(ledger)
        return self._ledger

    def health(self) -> Health:
        """Answer how delivery fares, in a second. Never raises because of the outbox's storage."""
        signs = self._feel()
        try:
            signs = self._look_soon(signs)
        except OutboxUnavailable as error:
            signs = replace(signs, unavailable=str(error))
        return examine(signs, self._settings, self._clock())

    def metrics(self) -> str:
        """Render the metrics for Prometheus.

        Only what the outbox was told is shown, whichever process answers: its totals never fall.

        Raises:
            OutboxUnavailable: The outbox's storage does not answer.
        """
        self._pulse()  # after a fork it makes this process's outbox
        self._counters.tell(self._outbox.tally)
        kind = self._settings.outbox_place.kind.value
        return render(self.read(), {"version": __version__, "outbox": kind})

    def read(self) -> Reading:
        """Answer what the gauges show.

        Raises:
            OutboxUnavailable: The outbox's storage does not answer.
        """
        now = self._clock()
        signs = self._look(self._feel())
        return Reading(
            outbox=signs.outbox,
            used_ratio=signs.used_ratio(self._settings),
            age_seconds=signs.age_seconds(now),
            is_healthy=examine(signs, self._settings, now).is_ok,
            is_blocked=signs.is_blocked,
        )

    def observe(self) -> None:
        """Register with OpenTelemetry, once and only if the app uses it. Never raises.

        For a thread behind the requests. A fork inherits what is registered; the counts that its
        exporter reads are its own.
        """
        if self._is_registered or not telemetry.is_in_use():
            return
        self._is_registered = True
        project = sha256(self._settings.token.encode()).hexdigest()[:_PROJECT_DIGITS]
        try:
            telemetry.register(self._counters.counts, self.read, project)
        except Exception as error:  # noqa: BLE001  # foreign; events go on without its metrics
            logger.warning("OpenTelemetry took no metrics of us (%s).", type(error).__name__)

    def _feel(self) -> Signs:
        """Answer what is known without asking the storage."""
        pulse = self._pulse()  # first: after a fork it makes this process's outbox
        return Signs(
            is_durable=self._outbox.is_durable,
            has_ended=not pulse.is_running and pulse.stored_at is not None,
            is_blocked=pulse.is_blocked,
            is_ledger_failing=self._ledger is not None and self._ledger.is_failing,
            trouble=pulse.trouble,
        )

    def _look_soon(self, signs: Signs) -> Signs:
        """Add what the storage knows; a probe gives up before a storage does.

        Raises:
            OutboxUnavailable: It does not answer in time.
        """
        glance = self._glance
        if glance is None or glance.is_over:
            glance = self._glance = Glance(partial(self._look, signs))
        return glance.wait(GLANCE_SECONDS)

    def _look(self, signs: Signs) -> Signs:
        """Add what the storage knows."""
        outbox = self._outbox.stats()
        # While the threads run, what is not stored yet is stored within milliseconds.
        waiting = self._stats().waiting if signs.has_ended else outbox.depth
        # Asking shows whether the shared outbox answers.
        return replace(signs, outbox=outbox, waiting=waiting, trouble=self._pulse().trouble)


class Glance:
    """One look at the storage, on a thread of its own, for as many as ask meanwhile."""

    def __init__(self, look: Callable[[], Signs]) -> None:
        self._look = look
        self._signs: Signs | None = None
        self._error: Exception = OutboxUnavailable(
            f"The outbox did not answer within {GLANCE_SECONDS:g} s."
        )
        self._thread = threading.Thread(target=self._run, name="mp-asgi-glance", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it ended, or was left behind in the process that forked."""
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> Signs:
        """Answer what was seen, or raise what the storage raised."""
        self._thread.join(seconds)
        if self._signs is None:
            raise self._error
        return self._signs

    def _run(self) -> None:
        try:
            self._signs = self._look()
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            self._error = error


class WatchedLedger:
    """A ledger that remembers how its last answer was.

    Attributes:
        is_failing: Whether there was none.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.is_failing = False
        self._ledger = ledger

    def open(self) -> None:
        """Make ready; more than once does nothing."""
        self._note(self._ledger.open)

    def append(self, items: Sequence[Act | Link]) -> None:
        """Keep all of them or none; the same item twice is one record."""
        self._note(partial(self._ledger.append, items))

    def standings(self, keys: Collection[bytes]) -> Mapping[bytes, Standing]:
        """Answer where each subject stands; those without a record are absent."""
        return self._note(partial(self._ledger.standings, keys))

    def close(self) -> None:
        """Give connections back."""
        self._ledger.close()

    def _note(self, call: Callable[[], _Answer]) -> _Answer:
        try:
            answer = call()
        except MixpanelASGIError:
            self.is_failing = True
            raise
        self.is_failing = False
        return answer
