"""Settle what is left when delivery closes or its process ends: store it, or count and tell it."""

import contextlib
from typing import TypeVar

from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Stop

from .counters import Counters
from .crew import Tools, make_storer
from .home import Home
from .log import logger
from .outbox.base import Counts, Outbox

T = TypeVar("T")


def forget_now(home: Home[T], item: Stop, tools: Tools[T]) -> bool:
    """Obey a stop that no journal has taken, and that no thread will obey. Return whether it is
    done; else the end of the process tries once more.
    """
    try:
        removed = home.outbox.forget(item.keys, item.at, tools.clock())
    except BaseException:  # noqa: BLE001  # foreign storage; the loss is counted
        tools.counters.count("stop_lost")
        home.intake.items.append((item, 0))
        return False
    tools.counters.echo("dropped", removed, "stopped")
    return True


def store_left(home: Home[T], tools: Tools[T]) -> None:
    """Store what no thread has stored, if the outbox outlives the process."""
    if home.outbox.is_durable and home.has_unstored():
        storer = make_storer(home, tools, home.notify)
        home.keeper.detach()
        storer.end()
        home.close_outbox()


def lose_left(home: Home[T], waiting: int, counters: Counters) -> Counts | None:
    """Count and tell what ends with the process. Return the totals that end with it, too.

    Args:
        home: Where it waited.
        waiting: How many messages were not stored, and are kept nowhere.
        counters: Where they are counted.

    Returns:
        None if nothing is lost.
    """
    unrecorded, held = home.unrecorded(), home.held()
    lost = waiting + held.depth
    if not lost and not unrecorded:
        return None
    counters.count("accepted", waiting)
    counters.count("dropped", lost, "shutdown")
    counters.count("unrecorded", unrecorded)
    logger.warning(
        "The process ends with %d messages not delivered and %d choices not recorded.",
        lost,
        unrecorded,
    )
    return held.totals


def tell_totals(outbox: Outbox, totals: Counts, counters: Counters) -> None:
    """Let the totals of all who share the outbox say what this process has lost."""
    with contextlib.suppress(OutboxUnavailable):
        outbox.tally(totals)
        if outbox.is_shared:  # else they are this process's own, with what was not told
            counters.tell(outbox.tally)


def tell_close(home: Home[T]) -> None:
    """Log what a close leaves."""
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
