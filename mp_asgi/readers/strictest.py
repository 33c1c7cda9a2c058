"""Choose among the answers of several cookies of one manager. Nothing is read here."""

import math
from collections.abc import Sequence

from .base import NOTHING, Reading, Said

_ORDER = (Said.NOTHING, Said.GRANTED, Said.STALE, Said.UNREADABLE, Said.DENIED)
_RANKS = {said: rank for rank, said in enumerate(_ORDER)}


def strictest(readings: Sequence[Reading]) -> Reading:
    """Answer the one that permits least; `NOTHING` only where all say so.

    Of two denials the later counts, of two grants the earlier; a denial without a time is the
    latest.
    """
    if len(readings) == 1:
        return readings[0]  # as nearly always
    return max(readings, key=_strictness, default=NOTHING)


def _strictness(reading: Reading) -> tuple[int, float]:
    time = math.inf if reading.at is None else reading.at
    return _RANKS[reading.said], time if reading.said is Said.DENIED else -time
