"""Count what happens to every message, so that nothing is lost silently."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

_Counts = Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Stats:
    """What this process counted since it started.

    At rest, `accepted == delivered + waiting + buried + sum(dropped.values())`, in messages.
    `docs/operations.md` has every counter and every reason, and what to do about it.

    Attributes:
        accepted: Events and profile updates that were handed over for delivery.
        delivered: Those that Mixpanel confirmed.
        waiting: Those whose fate is open.
        buried: Those that became dead letters.
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


class _Store:
    """The counts of one process and their lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: dict[tuple[str, str], int] = {}


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
            store.counts[key] = store.counts.get(key, 0) + n

    def snapshot(self) -> Stats:
        """Answer the counts of this moment. What waits is known to the worker, not here."""
        store = self._store()
        with store.lock:
            counts = {key: n for key, n in store.counts.items() if n}
        return Stats(
            accepted=_total(counts, "accepted"),
            delivered=_total(counts, "delivered"),
            buried=_total(counts, "buried"),
            retried=_total(counts, "retried"),
            dropped=_by_reason(counts, "dropped"),
            refused=_by_reason(counts, "refused"),
            unpersisted=_total(counts, "unpersisted"),
            cross_site=_total(counts, "cross_site"),
            cookie_invalid=_total(counts, "cookie_invalid"),
            other={
                f"{name}.{reason}" if reason else name: n
                for (name, reason), n in counts.items()
                if name not in Stats.__slots__
            },
        )

    def _store(self) -> _Store:
        pid = os.getpid()
        return self._stores.get(pid) or self._stores.setdefault(pid, _Store())


def _total(counts: _Counts, wanted: str) -> int:
    return sum(n for (name, _), n in counts.items() if name == wanted)


def _by_reason(counts: _Counts, wanted: str) -> dict[str, int]:
    return {reason: n for (name, reason), n in counts.items() if name == wanted}
