"""Turn times into the ledger's whole milliseconds and back. Pure.

A denial counts from the end of its millisecond, anything else from the start: what was tracked
before a denial must not pass as tracked after it, nor what follows a grant as before it.
"""

import math
from typing import Final

from mp_asgi.events import ActState

DENIALS: Final = frozenset({ActState.DENIED.value, ActState.ERASED.value})

_FUZZ: Final = 0.001  # milliseconds; above the grain of today's times as floats, 0.00024


def to_milliseconds(at: float, state: str, now: float) -> int:
    """Answer the moment of an act; a time from the future is `now`, as it could not be outdone."""
    milliseconds = min(max(0.0, at), now) * 1000
    if state in DENIALS:
        return math.ceil(milliseconds - _FUZZ)
    return math.floor(milliseconds + _FUZZ)


def is_moment(at: object) -> bool:
    """Answer whether a record's time can be read: SQLite keeps any text that somebody puts there.

    It sorts such a text after every number.
    """
    return isinstance(at, int | float) and at < math.inf


def to_seconds(milliseconds: int) -> float:
    """Answer seconds since the epoch."""
    return milliseconds / 1000
