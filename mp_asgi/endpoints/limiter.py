"""Limit how much pages may send, by token buckets: one for each sender, one for all.

Only what was taken is charged: who has no consent uses up nobody's room.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

MAX_SENDERS: Final = 10_000  # about 2 MB; who is forgotten starts with a full bucket


class Rate(NamedTuple):
    """How fast a bucket fills, and how much it holds.

    Attributes:
        per_second: Messages a second.
        burst: Messages at once.
    """

    per_second: float
    burst: float


EACH: Final = Rate(20, 2_000)
"""Of a visitor: two tabs that send 50 messages every 5 s, as mixpanel-browser does at most, and
what it kept while its reader was offline."""
NETWORK: Final = Rate(200, 5_000)
"""Of all in one network who have no ID yet: a site behind a proxy that it has not declared is one
network."""
ALL: Final = Rate(5_000, 20_000)
"""Of a process: to read and to render as many takes a tenth of one core (18 µs each)."""


class Sender(NamedTuple):
    """Whose bucket it is.

    Attributes:
        rate: Of the bucket.
        name: A device ID, or a network.
    """

    rate: Rate
    name: str


class Limiter:
    """Count what pages send. Not safe in threads by itself.

    Args:
        everybody: For all of them together.
        max_senders: How many are remembered, the latest first.
    """

    def __init__(self, everybody: Rate = ALL, max_senders: int = MAX_SENDERS) -> None:
        self._max_senders = max_senders
        self._everybody = _Bucket(everybody)
        self._senders: OrderedDict[Sender, _Bucket] = OrderedDict()

    def has_room(self, sender: Sender, number: int, now: float) -> bool:
        """Whether so many messages at once are within the limits.

        Args:
            sender: Who sends them.
            number: How many.
            now: Seconds since the epoch.
        """
        buckets = self._everybody, self._find(sender)
        return all(bucket.level(now) >= number for bucket in buckets)

    def charge(self, sender: Sender, number: int) -> None:
        """Count messages that were taken. Requests at once may take more than there is room for;
        the next ones wait for it.
        """
        self._everybody.take(number)
        self._find(sender).take(number)

    def _find(self, sender: Sender) -> "_Bucket":
        bucket = self._senders.setdefault(sender, _Bucket(sender.rate))
        self._senders.move_to_end(sender)
        if len(self._senders) > self._max_senders:
            self._senders.popitem(last=False)
        return bucket


class _Bucket:
    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._level = rate.burst
        self._at = 0.0

    def level(self, now: float) -> float:
        """Answer what is in it now. A clock that is set back changes nothing."""
        gained = max(0.0, now - self._at) * self._rate.per_second
        self._level = min(self._rate.burst, self._level + gained)
        self._at = now
        return self._level

    def take(self, number: int) -> None:
        self._level -= number
