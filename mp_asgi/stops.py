"""Remember, in this process, whom a denial has stopped: a device that was denied is over.

Cookies of before the denial may still arrive: from another tab, from an open socket, from a
response that could not carry the new ones. The outbox has its own marks, for what waits there.
"""

from collections.abc import Iterable
from typing import Final

MAX_REMEMBERED: Final = 50_000


class Stops:
    """The newest stop under each key, the oldest ones forgotten.

    Attributes:
        at: Seconds since the epoch of the last stop, by key.
        forgotten_until: Of the newest stop that is not remembered any more: what began before
            may be anybody's.
    """

    __slots__ = ("_withdrawn_at", "at", "forgotten_until")

    def __init__(self) -> None:
        self.at: dict[bytes, float] = {}
        self.forgotten_until = 0.0
        self._withdrawn_at: dict[bytes, float] = {}

    def add(self, keys: Iterable[bytes], at: float, *, is_act: bool) -> None:
        """Note a stop. Under the lock of the process.

        Args:
            keys: Keyed hashes of device and user IDs.
            at: Seconds since the epoch.
            is_act: The visitor chose it here; a browser's signal, for one, may end again.
        """
        for key in keys:
            forgotten = _remember(self.at, key, at)
            self.forgotten_until = max(self.forgotten_until, forgotten)
            if is_act:
                _remember(self._withdrawn_at, key, at)

    def withdrawn_at(self, key: bytes) -> float | None:
        """Answer when the visitor chose to stop; None if they did not."""
        return self._withdrawn_at.get(key)


def _remember(memory: dict[bytes, float], key: bytes, at: float) -> float:
    """Note a time; answer that of the stop which had to go for it, 0 if none had to."""
    forgotten = 0.0
    if key not in memory and len(memory) >= MAX_REMEMBERED:
        forgotten = memory.pop(next(iter(memory)))
    memory[key] = at
    return forgotten
