"""Hold what waits for the ledger, in order. What is no news, only the ledger can tell."""

import itertools
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

from mp_asgi.events import Act, Link

MAX_WAITING: Final = 100_000  # for a database that is down
#: A grant that is lost is asked for again; a denial that is lost is broken.
MAX_WAITING_DENIALS: Final = 1_000_000


class Choices:
    """A bounded queue. Adding and removing are guarded by whoever calls."""

    def __init__(self) -> None:
        self._items: deque[tuple[int, Act | Link]] = deque()
        self._numbers: Counter[bytes] = Counter()  # how many wait that are about it
        self._places = itertools.count(1)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Act | Link) -> bool:
        """Take an item. Return whether there was room."""
        is_denial = isinstance(item, Act) and item.is_denial
        if len(self._items) >= (MAX_WAITING_DENIALS if is_denial else MAX_WAITING):
            return False
        if isinstance(item, Act):
            self._numbers[item.key] += 1
        self._items.append((next(self._places), item))
        return True

    def first(self, number: int) -> list[Act | Link]:
        """Answer what is next, without taking it: another thread may add meanwhile."""
        return [self._items[index][1] for index in range(min(number, len(self._items)))]

    def remove(self, items: Sequence[Act | Link]) -> None:
        """Take out what `first` answered."""
        for item in items:
            self._items.popleft()
            if isinstance(item, Act):
                self._numbers[item.key] -= 1
                if not self._numbers[item.key]:
                    del self._numbers[item.key]

    def is_about(self, key: bytes) -> bool:
        """Whether something waits that was chosen for this key."""
        return key in self._numbers

    def last_place(self) -> int:
        """Answer a number that `is_past` compares with what waits now."""
        return self._items[-1][0] if self._items else 0

    def is_past(self, place: int) -> bool:
        """Whether everything up to that place is gone."""
        return not self._items or self._items[0][0] > place
