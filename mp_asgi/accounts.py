"""Remember, bounded, what the ledger says of users and devices. The worker fills it; a request
never waits for it.

A miss changes nothing: what leaves is decided by the ledger itself, before every send.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from .events import Standing

MAX_REMEMBERED: Final = 10_000
FRESH_SECONDS: Final = 30.0  # after that an answer still holds, and is asked for again
HELD_SECONDS: Final = 60.0  # after that it holds no more


_Value = TypeVar("_Value")


class Accounts:
    """Where users and devices stand, by their keys.

    Args:
        ask: Gets a key that nobody knows yet, or not any more.
        clock: Seconds since the epoch.
    """

    __slots__ = ("_ask", "_asked", "_clock", "_known", "_met")

    def __init__(self, ask: Callable[[bytes], None], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._asked: OrderedDict[bytes, float] = OrderedDict()
        self._known: OrderedDict[bytes, tuple[float, Standing]] = OrderedDict()
        self._met: OrderedDict[bytes, None] = OrderedDict()

    def get(self, key: bytes) -> Standing | None:
        """Answer what is known, and ask for what is not. Under the lock of the process."""
        now = self._clock()
        if now - self._asked.get(key, 0.0) > FRESH_SECONDS:
            _remember(self._asked, key, now)
            self._ask(key)
        known = self._known.get(key)
        # What may have changed long ago is nothing to deny or to grant by.
        return known[1] if known is not None and now - known[0] <= HELD_SECONDS else None

    def meet(self, user_key: bytes, device_key: bytes) -> bool:
        """Note that a user and a device met. Return whether that is news to this process."""
        pair = user_key + device_key
        is_new = pair not in self._met
        _remember(self._met, pair, None)
        return is_new

    def learn(self, standings: Mapping[bytes, Standing | None]) -> None:
        """Take the ledger's answers, None for a key without records. Under the same lock."""
        now = self._clock()
        for key, standing in standings.items():
            if standing is None:
                self._known.pop(key, None)
            else:
                _remember(self._known, key, (now, standing))


def _remember(memory: "OrderedDict[bytes, _Value]", key: bytes, value: _Value) -> None:
    if key not in memory and len(memory) >= MAX_REMEMBERED:
        memory.popitem(last=False)
    memory[key] = value
