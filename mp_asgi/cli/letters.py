"""Know the dead letters of an outbox by reason and time, and read each only once."""

from mp_asgi.delivery.outbox.base import Outbox

from .outbox import read_letters


class Letters:
    """What is known of them.

    Args:
        outbox: Whose.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._last = 0
        self._known: dict[int, tuple[str, float]] = {}

    def read(self) -> None:
        """Read what is new."""
        for letter in read_letters(self._outbox, self._last):
            self._last = letter.id
            self._known[letter.id] = (letter.reason, letter.buried_at)

    def of(self, number: int) -> list[tuple[str, float]]:
        """Answer reason and time of each, oldest first.

        Args:
            number: How many there are, by stats that were taken after `read`.
        """
        if len(self._known) > number:
            self._drop_oldest()
        if len(self._known) > number:  # some were replayed or purged
            self._known.clear()
            self._last = 0
            self.read()
        return list(self._known.values())

    def _drop_oldest(self) -> None:
        """Forget those that the outbox gave up: nearly always the oldest."""
        first = min((letter.id for letter in self._outbox.dead(0, 1)), default=self._last + 1)
        self._known = {key: value for key, value in self._known.items() if key >= first}
