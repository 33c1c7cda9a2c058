"""Count what happens to every message, so that nothing is lost silently.

What the outbox does it counts itself, together with the change. What happens before the outbox is
counted here, and told to it now and then: its totals are those of all who share it.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self, TypeVar

from .outbox.base import Counts

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stats:
    """What was counted since the outbox was made, by all processes that share it.

    An outbox in memory is its process's own. At rest, in messages, `accepted` is `delivered +
    waiting + buried + sum(dropped.values())`. `docs/operations.md` has every counter and every
    reason, and what to do about it.

    Attributes:
        accepted: Events and profile updates that were handed over for delivery.
        delivered: Those that Mixpanel confirmed.
        waiting: Those whose fate is open.
        buried: Those that became dead letters and were not replayed.
        retried: How often a message was put back to be sent again.
        dropped: Accepted ones that were given up, by reason.
        refused: Those that were never accepted, by reason.
        unpersisted: IDs and acts that no cookie of a response could keep.
        cross_site: What another site's page attempted.
        cookie_invalid: Cookies of ours that did not verify.
        other: Everything else that was counted, by name, with `name.reason` for labelled ones.
    """

    accepted: int = 0
    delivered: int = 0
    waiting: int = 0
    buried: int = 0
    retried: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    unpersisted: int = 0
    cross_site: int = 0
    cookie_invalid: int = 0
    other: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, counts: Counts, *, waiting: int = 0) -> Self:
        """Sort counts by what they are about.

        Args:
            counts: Numbers by counter and reason.
            waiting: Messages whose fate is open.
        """
        counts = {key: number for key, number in counts.items() if number}
        return cls(
            accepted=_total(counts, "accepted"),
            delivered=_total(counts, "delivered"),
            waiting=waiting,
            buried=_total(counts, "buried") - _total(counts, "replayed"),
            retried=_total(counts, "retried"),
            dropped=_by_reason(counts, "dropped"),
            refused=_by_reason(counts, "refused"),
            unpersisted=_total(counts, "unpersisted"),
            cross_site=_total(counts, "cross_site"),
            cookie_invalid=_total(counts, "cookie_invalid"),
            other={
                f"{name}.{reason}" if reason else name: number
                for (name, reason), number in counts.items()
                if name not in cls.__slots__
            },
        )


class _Store:
    """The counts of one process and their lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.telling = threading.Lock()  # or two threads would tell the same
        self.counts: Counter[tuple[str, str]] = Counter()
        self.untold: Counter[tuple[str, str]] = Counter()


class Counters:
    """Labelled counters of one process; a forked child starts from zero."""

    def __init__(self) -> None:
        # By process: the parent's counts are the parent's, its lock may be held at the fork.
        self._stores: dict[int, _Store] = {}

    def count(self, name: str, n: int = 1, reason: str = "") -> None:
        """Add `n` to a counter; naming a new one creates it."""
        store = self._store()
        key = (name, reason)
        with store.lock:
            store.counts[key] += n
            store.untold[key] += n

    def echo(self, name: str, n: int = 1, reason: str = "") -> None:
        """Add what the outbox has counted itself."""
        store = self._store()
        with store.lock:
            store.counts[name, reason] += n

    def snapshot(self) -> Stats:
        """Answer what this process counted since it started. What waits is not known here."""
        return Stats.of(self.counts())

    def counts(self) -> Counts:
        """Answer what this process counted since it started, by counter and reason."""
        store = self._store()
        with store.lock:
            return dict(store.counts)

    def tell(self, tally: Callable[[Counts], None]) -> None:
        """Tell an outbox what none was told yet, each count once.

        Args:
            tally: The outbox's. What it raises is raised, and the counts are told again next time.
        """
        with self._store().telling:
            if counts := self._untold():
                tally(counts)
                self._note_told(counts)

    def join(self, read: Callable[[], T]) -> tuple[T, Counts]:
        """Answer what `read` finds in an outbox, and what that was not told yet: nothing is told
        between the two, so that each count is in one of them.
        """
        with self._store().telling:
            return read(), self._untold()

    def _untold(self) -> Counts:
        store = self._store()
        with store.lock:
            return dict(store.untold)

    def _note_told(self, counts: Counts) -> None:
        store = self._store()
        with store.lock:
            store.untold.subtract(counts)
            store.untold = +store.untold

    def _store(self) -> _Store:
        pid = os.getpid()
        return self._stores.get(pid) or self._stores.setdefault(pid, _Store())


def _total(counts: Counts, wanted: str) -> int:
    return sum(n for (name, _), n in counts.items() if name == wanted)


def _by_reason(counts: Counts, wanted: str) -> dict[str, int]:
    return {reason: n for (name, reason), n in counts.items() if name == wanted}
