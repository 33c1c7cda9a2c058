"""Find what of this host is outside of the outbox: journals of ended processes, and the spool of
what Redis could not take.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from mp_asgi.delivery.forwarder import Forwarder
from mp_asgi.delivery.journals import Journals
from mp_asgi.delivery.outbox.base import Outbox, OutboxStats
from mp_asgi.delivery.outbox.location import Location, find_location
from mp_asgi.delivery.outbox.redis import RedisOutbox
from mp_asgi.delivery.outbox.spooled import Spooled
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from mp_asgi.delivery.run import Run
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.settings import Settings
from mp_asgi.settings.outbox_place import OutboxKind

NOTHING: Final = OutboxStats(depth=0, size_bytes=0, oldest_put_at=None, dead=0, behind_aliases=0)
_STOP_SECONDS: Final = 5.0  # two calls of Redis, each with its timeout


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What waits on this host, and not in the outbox.

    Attributes:
        journals: How many nobody writes any more. The outbox may have what they hold.
        journal_bytes: How much they take.
        spool: How full the spool is.
    """

    journals: int = 0
    journal_bytes: int = 0
    spool: OutboxStats = NOTHING


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
        return Leftovers(len(sizes), sum(sizes), NOTHING if spool is None else spool.stats())


def has_journals(settings: Settings) -> bool:
    """Answer whether there may be something in journals, of living processes, too."""
    location = _locate(settings)
    return location is not None and Journals(location.journals).size_bytes() > 0


@contextmanager
def forwarding(settings: Settings, outbox: Outbox) -> Iterator[Callable[[], int]]:
    """Hand the spool over while the context is open. Lend what counts the messages in it."""
    with _lend_spool(settings, _locate(settings)) as spool:
        if spool is None or not isinstance(outbox, RedisOutbox):
            yield lambda: 0
            return
        spooled = Spooled(outbox, spool)
        forwarder = Forwarder(spooled, clock=time.time, on_progress=lambda: None)
        run = Run({"mp-asgi-forwarder": forwarder.run}, [forwarder.wake])
        run.start()
        try:
            yield spooled.spooled
        finally:
            run.stop(time.monotonic() + _STOP_SECONDS)


@contextmanager
def _lend_spool(settings: Settings, location: Location | None) -> Iterator[Outbox | None]:
    is_redis = settings.outbox_place.kind is OutboxKind.REDIS
    if location is None or not is_redis or not location.spool.exists():
        yield None
        return
    spool = SQLiteOutbox(location.spool, settings)
    try:
        yield spool
    finally:
        spool.close()


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
