"""Store what became of batches, in order. What is decided about them is the pump's matter.

The rule: what is decided is stored before anything else is leased. When the storage fails in
between, it is tried again first, so that what Mixpanel took is not sent twice while this process
lives. If it ends before, the lease runs out, and whoever takes the entry over treats it as one
whose answer was lost. So it is with what fails twice in a way that is no storage's own: a bug must
not stand in the way for ever.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from mp_asgi.errors import OutboxUnavailable

from .complaints import Complaints
from .counters import Counters
from .outbox.base import Leased, Outbox, Refusal

MAX_LATE_SECONDS: Final = 30.0  # within the lease, whatever was exchanged under it


class Settlements:
    """What is decided and not stored yet.

    Args:
        outbox: Where it is stored.
        counters: Where the outcome is counted.
        complaints: Where burials are said.
    """

    def __init__(self, outbox: Outbox, counters: Counters, complaints: Complaints) -> None:
        self._outbox = outbox
        self._counters = counters
        self._waiting: deque[Callable[[float], None]] = deque()
        self._complaints = complaints
        self._interrupted: Callable[[float], None] | None = None  # not by the storage

    def store(self, now: float) -> None:
        """Store all of it.

        Raises:
            OutboxUnavailable: The storage failed; what is not stored waits for the next call.
            BaseException: Of foreign code, for example gevent's Timeout; what it interrupted waits
                for the next call, too, but only once.
        """
        while self._waiting:
            settlement = self._waiting.popleft()
            try:
                settlement(now)
            except OutboxUnavailable:
                self._waiting.appendleft(settlement)
                raise
            except BaseException:
                if settlement is not self._interrupted:
                    self._interrupted = settlement
                    self._waiting.appendleft(settlement)
                raise

    def ack(self, leased: Sequence[Leased]) -> None:
        """Settle what was delivered."""
        ids = [item.id for item in leased]
        if ids:
            self._waiting.append(lambda _: self._counters.echo("delivered", self._outbox.ack(ids)))

    def drop(self, leased: Sequence[Leased], reason: str) -> None:
        """Settle what may not leave."""
        ids = [item.id for item in leased]
        self._waiting.append(
            lambda _: self._counters.echo("dropped", self._outbox.drop(ids, reason), reason)
        )

    def release(self, leased: Sequence[Leased], now: float, *, hold_seconds: float = 0.0) -> None:
        """Give entries back, ready after so many seconds."""
        ids = [item.id for item in leased]

        if ids:
            self._add_timely(lambda: self._outbox.release(ids, now + hold_seconds), now)

    def split(self, leased: Leased, now: float) -> None:
        """Halve an entry."""
        self._add_timely(lambda: self._outbox.split(leased.id), now)

    def bury(self, leased: Leased, refusals: Sequence[Refusal], now: float) -> None:
        """Make dead letters of the messages that are refused; the rest is delivered."""
        self._waiting.append(lambda _: self._bury(leased, refusals, now))

    def bury_whole(self, leased: Sequence[Leased], reason: str, text: str, now: float) -> None:
        """Make dead letters of whole entries."""
        for item in leased:
            indexes = range(len(item.entry.messages))
            self.bury(item, [Refusal(index, reason, text) for index in indexes], now)

    def _add_timely(self, settlement: Callable[[], None], now: float) -> None:
        def store(later: float) -> None:
            # Stored so late that the lease may have run out, it could end another process's lease.
            if not self._outbox.is_shared or abs(later - now) <= MAX_LATE_SECONDS:
                settlement()

        self._waiting.append(store)

    def _bury(self, leased: Leased, refusals: Sequence[Refusal], now: float) -> None:
        messages = leased.entry.messages
        if not self._outbox.bury(leased.id, refusals, now):
            return  # forgotten meanwhile, and counted there
        reason = refusals[0].reason
        self._counters.echo("buried", len(refusals), reason)
        self._counters.echo("delivered", len(messages) - len(refusals))
        self._complaints.bury(leased, refusals)
