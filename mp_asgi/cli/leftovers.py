"""Find what of this host is outside of the outbox: journals of ended processes, the spool of what
Redis could not take, and outboxes of other settings.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mp_asgi.delivery.forwarder import Forwarder
from mp_asgi.delivery.journals import Journals
from mp_asgi.delivery.outbox.base import NO_STATS, Outbox, OutboxStats
from mp_asgi.delivery.outbox.location import Location, find_location
from mp_asgi.delivery.outbox.redis import RedisOutbox
from mp_asgi.delivery.outbox.spooled import HAND_OVER_SECONDS, Spooled
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from mp_asgi.delivery.outbox.strays import Stray, find_strays
from mp_asgi.delivery.run import Run
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Endpoint
from mp_asgi.settings import Settings
from mp_asgi.settings.outbox_place import OutboxKind

_STOP_SECONDS: Final = 5.0  # two calls of Redis, each with its timeout
_STOPS_SECONDS: Final = HAND_OVER_SECONDS + 5.0  # who has one in hand has lost it then
_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What waits on this host, and not in the outbox.

    Attributes:
        journals: How many nobody writes any more. The outbox may have what they hold.
        journal_bytes: How much they take.
        spool: How full the spool is.
        strays: Outboxes of this token that these settings do not lead to.
    """

    journals: int = 0
    journal_bytes: int = 0
    spool: OutboxStats = NO_STATS
    strays: tuple[Stray, ...] = ()


def find_leftovers(settings: Settings) -> Leftovers:
    """Answer what there is.

    Raises:
        OutboxUnavailable: The spool cannot be read.
    """
    location = _locate(settings)
    if location is None:
        return Leftovers()
    sizes = _measure(Journals(location.journals))
    with _lend_spool(settings, location) as spool:
        spooled = NO_STATS if spool is None else spool.stats()
    return Leftovers(len(sizes), sum(sizes), spooled, tuple(find_strays(settings)))


def find_journals(settings: Settings) -> list[Path]:
    """Answer the journals that hold anything, of living processes, too."""
    location = _locate(settings)
    return [] if location is None else Journals(location.journals).filled()


@contextmanager
def forwarding(
    settings: Settings, outbox: Outbox, *, creates: bool = False, seconds: float = math.inf
) -> Iterator[Callable[[], int]]:
    """Hand the spool over while the context is open. Lend what counts the messages in it.

    Args:
        settings: Of the project.
        outbox: To which it is handed over.
        creates: Whether a spool that is not there is made, so that one which comes is seen.
        seconds: How long to wait before for denials that another process has in hand.
    """
    with _lend_spool(settings, _locate(settings), creates=creates) as spool:
        if spool is None or not isinstance(outbox, RedisOutbox):
            yield lambda: 0
            return
        spooled = Spooled(outbox, spool)
        forwarder = Forwarder(spooled, clock=time.time, on_progress=lambda: None)
        ends_at = time.monotonic() + min(seconds, _STOPS_SECONDS)
        while time.monotonic() < ends_at and _may_owe_stops(spool) and not spooled.trouble:
            if forwarder.step():  # another process has them in hand
                forwarder.wake.wait(_LOOK_SECONDS)
        run = Run({"mp-asgi-forwarder": forwarder.run}, [forwarder.wake])
        run.start()
        try:
            yield spooled.spooled
        finally:
            run.stop(time.monotonic() + _STOP_SECONDS)


def _may_owe_stops(spool: Outbox) -> bool:
    """Whether the spool may hold a denial: nothing is sent before the shared outbox has heard it.
    They are among the aliases, which go first.
    """
    is_taken = spool.stats().leased > 0  # by a process that hands it over, or has ended
    return is_taken or spool.backlog(Endpoint.ALIASES, time.time()).messages > 0


@contextmanager
def _lend_spool(
    settings: Settings, location: Location | None, *, creates: bool = False
) -> Iterator[Outbox | None]:
    is_redis = settings.outbox_place.kind is OutboxKind.REDIS
    if location is None or not is_redis or not _has_spool(location, creates=creates):
        yield None
        return
    spool = SQLiteOutbox(location.spool, settings)
    try:
        yield spool
    finally:
        spool.close()


def _has_spool(location: Location, *, creates: bool) -> bool:
    """Answer whether there is one, or may be: a host that only drains keeps nothing perhaps."""
    if location.spool.exists() or not creates:
        return location.spool.exists()
    with suppress(OutboxUnavailable):
        location.prepare()
        return True
    return False


def _locate(settings: Settings) -> Location | None:
    try:
        return find_location(settings)
    except OutboxUnavailable:  # no directory: nothing was kept in it
        return None


def _measure(journals: Journals) -> list[int]:
    """Answer the sizes of those that hold anything. Whoever writes one holds its lock."""
    sizes = []
    for file in journals.orphans():
        sizes.append(file.size)
        journals.leave(file)
    return [size for size in sizes if size]
