"""Say what a reader of a consent manager's cookies is, and what it answers.

A reader knows one manager's grammar (reference/consent.md section 2). It decides nothing and
knows no clock: how old a choice may be is the policy's matter.
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, Protocol


class Said(Enum):
    """What one signal says."""

    NOTHING = "nothing"
    GRANTED = "granted"
    DENIED = "denied"
    STALE = "stale"
    """A choice was made, and the manager itself wants it asked for again."""
    UNREADABLE = "unreadable"
    """Something is there that may have been a choice. Never a grant."""


class Reading(NamedTuple):
    """What one manager's cookies say about analytics.

    Attributes:
        said: The choice; `NOTHING` if none was made yet, although the cookie exists.
        at: Seconds since the epoch of the choice; None where the cookie does not tell. A time
            that is only precise to the day is the day's beginning.
        until: Seconds since the epoch after which a grant is stale; None if it does not end.
    """

    said: Said = Said.NOTHING
    at: float | None = None
    until: float | None = None


NOTHING = Reading()
GRANTED = Reading(Said.GRANTED)
DENIED = Reading(Said.DENIED)
STALE = Reading(Said.STALE)
UNREADABLE = Reading(Said.UNREADABLE)


class Reader(Protocol):
    """Read one consent manager's cookies.

    Attributes:
        name: As in `MP_ASGI_CONSENT_READERS`: letters, digits, `-`.
        cookies: Names of the cookies that it reads; with a `*` at the end, all that begin so. A
            bare `*` is for what cannot tell beforehand: then it counts as present when it says
            something.
    """

    @property
    def name(self) -> str:
        """What the mirror, the ledger and `explain` call it; no two readers share one."""
        ...

    @property
    def cookies(self) -> tuple[str, ...]:
        """What must be there for it to be asked; the same for the whole life of the reader."""
        ...

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what the cookies say. May raise: whoever asks takes that as `UNREADABLE`.

        Args:
            cookies: At least one of those in `cookies`, by name as it came; the raw value, its
                bytes as Latin-1, neither unquoted nor stripped, at most 4096 characters.
        """
        ...
