"""Remember, in this process, whom a denial has stopped: a device that was denied is over.

Cookies of before the denial may still arrive: from another tab, from an open socket, from a
response that could not carry the new ones. The outbox has its own marks, for what waits there.
"""

from collections.abc import Iterable
from typing import Final

MAX_REMEMBERED: Final = 10_000


class Stops:
    """The newest stop under each key, the oldest ones forgotten.

    Attributes:
        at: Seconds since the epoch of the last stop, by key.
    """

    __slots__ = ("_withdrawn_at", "at")

    def __init__(self) -> None:
        self.at: dict[bytes, float] = {}
        self._withdrawn_at: dict[bytes, float] = {}

    def add(self, keys: Iterable[bytes], at: float, *, is_act: bool) -> None:
        """Note a stop. Under the lock of the process.

        Args:
            keys: Keyed hashes of device and user IDs.
            at: Seconds since the epoch.
            is_act: The visitor chose it here; a browser's signal, for one, may end again.
        """
        for key in keys:
            _remember(self.at, key, at)
            if is_act:
                _remember(self._withdrawn_at, key, at)

    def withdrawn_at(self, key: bytes) -> float | None:
        """Answer when the visitor chose to stop; None if they did not."""
        return self._withdrawn_at.get(key)


def _remember(memory: dict[bytes, float], key: bytes, at: float) -> None:
    if key not in memory and len(memory) >= MAX_REMEMBERED:
        del memory[next(iter(memory))]
    memory[key] = at
