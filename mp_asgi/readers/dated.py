"""Join a yes or no with the time that a cookie tells for it."""

from collections.abc import Callable

from .base import DENIED, GRANTED, UNREADABLE, Reading, Said
from .parsing import parse_iso_time


def read_dated(
    told: object,
    *,
    is_granted: bool,
    parse: Callable[[object], float | None] = parse_iso_time,
) -> Reading:
    """Answer a choice with its time.

    A refusal counts whatever stands there. A consent counts without a time where the cookie
    tells none, but not with one that cannot be read: it may be older than the notice in force.

    Args:
        told: The time as it stands there; None where the cookie has none.
        is_granted: The choice.
        parse: Answers seconds since the epoch, or None for what is no time.
    """
    at = parse(told)
    if not is_granted:
        return DENIED if at is None else Reading(Said.DENIED, at)
    if at is not None:
        return Reading(Said.GRANTED, at)
    return GRANTED if told is None else UNREADABLE
