"""Decide what a stop ends, and what is so old that nobody can tell. Pure; each outbox obeys it.

`redis.lua` says the same in its language.
"""

import math
from typing import Final

from .base import Ticket

CLOCK_SECONDS: Final = 3600.0
"""What a stop mark may be ahead of now. Hosts' clocks differ by less, and no call takes so long:
beyond it only a clock that was wrong can have dated it."""


AHEAD_SECONDS: Final = 60.0
"""What an event may be ahead of now: a call waits for a lock, a packet is late, and hosts' clocks
differ by less."""


def is_ended(tracked_at: float, at: float, now: float) -> bool:
    """Answer whether a stop at `at` ends what was tracked then, as far as can be told now.

    What is dated later than now was so by a clock that was ahead, perhaps before the stop.
    """
    return not at < tracked_at <= now + AHEAD_SECONDS


def find_oldest(max_age: float, now: float, ticket: Ticket | None) -> float:
    """Answer since when something must have been tracked to be put: a mark of before may be gone.

    Args:
        max_age: How long stop marks are kept.
        now: By the clock that dated it.
        ticket: Of the put.
    """
    return -math.inf if ticket is not None and ticket.is_historical else now - max_age
