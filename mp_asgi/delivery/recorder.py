"""Tell the ledger what visitors chose, and ask it before anything leaves.

On a thread of its own: a slow database delays neither a request nor the storing of events.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, Protocol, TypeVar

from mp_asgi.errors import MixpanelASGIError, Unavailable
from mp_asgi.events import Act, Entry, Link, Standing

from .choices import Choices
from .counters import Counters
from .lanes import Circuit
from .log import logger

MAX_ASKED: Final = 100_000  # questions that wait; more are asked again later
BATCH: Final = 200  # choices in one transaction
ASK_BATCH: Final = 1_000

#: What a ledger raises for an item that is not what it should be: no waiting mends it.
_UNKEEPABLE: Final = (TypeError, ValueError, AttributeError, LookupError)

_Answer = TypeVar("_Answer")
Answers = Mapping[bytes, Standing | None]


class Ledger(Protocol):
    """What a ledger does for delivery. Every call may block and may raise."""

    def open(self) -> None:
        """Make ready; more than once does nothing."""
        ...

    def append(self, items: Sequence[Act | Link]) -> None:
        """Keep all of them or none; the same item twice is one record."""
        ...

    def standings(self, keys: Collection[bytes]) -> Mapping[bytes, Standing]:
        """Answer where each subject stands; those without a record are absent."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


class Recorder:
    """Drive a ledger for one process.

    Args:
        ledger: Where choices are kept.
        counters: Counts `recorded`, `unrecorded` (given up) and `ledger_failed`.
        clock: Seconds since the epoch.
        random: A number in [0, 1) for jitter.
        on_answers: Gets what the ledger says of the subjects that were asked for or changed.
        learning: Held while it is called, and by whoever calls `record`.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        counters: Counters,
        clock: Callable[[], float],
        random: Callable[[], float],
        on_answers: Callable[[Answers], None],
        learning: AbstractContextManager[object],
    ) -> None:
        self.wake = threading.Event()
        self._ledger = ledger
        self._counters = counters
        self._clock = clock
        self._random = random
        self._on_answers = on_answers
        self._learning = learning
        self._choices = Choices()
        self._asked: deque[bytes] = deque(maxlen=MAX_ASKED)
        self._is_open = False
        # Whoever appends holds it, so that choices keep their order.
        self._appending = threading.Lock()
        self._settled = threading.Condition()
        self._circuit = Circuit()
        self._has_told = False
        self._told: set[str] = set()

    # --- on the request path: appends, takes no lock, never raises ----------------------------

    def record(self, item: Act | Link) -> None:
        """Take a choice, to be kept as soon as the database allows."""
        if self._choices.add(item):
            self.wake.set()
        else:
            self._counters.count("unrecorded")
            self._tell_once("full", "too many choices wait for the consent ledger; more are lost")

    def ask(self, key: bytes) -> None:
        """Look a subject up, and tell `on_answers`."""
        self._asked.append(key)
        self.wake.set()

    def waiting(self) -> int:
        """Count what is not recorded yet."""
        return len(self._choices)

    # --- off the request path -----------------------------------------------------------------

    def run(self, stopping: threading.Event) -> None:
        """Record and answer until `stopping` is set, and then what is left, once."""
        while not stopping.is_set():
            rest = self.step()
            self.wake.wait(rest)
            self.wake.clear()
        self.step()
        try:
            self._ledger.close()
        except Exception as error:  # noqa: BLE001  # nothing waits for it; its connections end
            self._note_failure(error)

    def step(self) -> float | None:
        """Do what is due. Return how many seconds to rest; None until something comes."""
        pause = self._circuit.remaining(self._clock())
        if pause:
            return pause
        try:
            self.settle()
            self._answer()
        except Unavailable:
            return self._circuit.remaining(self._clock())
        return None

    def settle(self) -> None:
        """Record everything that was chosen before this call.

        Raises:
            Unavailable: The ledger failed; what is not recorded waits.
        """
        with self._appending:
            while batch := self._choices.first(BATCH):
                self._guard(partial(self._append_all, batch))
                with self._learning:
                    self._choices.remove(batch)
                with self._settled:
                    self._settled.notify_all()
                self._tell({item.key for item in batch if isinstance(item, Act)})

    def flush(self, seconds: float) -> bool:
        """Wait until what was chosen before is recorded, by the thread that does it.

        Returns:
            Whether it is, within so many seconds.
        """
        place = self._choices.last_place()
        with self._settled:
            self._circuit.close()  # somebody waits: try at once, whatever failed before
            self.wake.set()
            return self._settled.wait_for(
                lambda: self._choices.is_past(place), timeout=max(0.0, seconds)
            )

    def screen(self, entries: Sequence[Entry]) -> list[bool]:
        """Answer which entries may leave, as the ledger says now.

        What was chosen in this process before is recorded first, so that an event never
        overtakes the grant under which it was tracked.

        Raises:
            Unavailable: The ledger failed: nothing may leave, nothing is lost.
        """
        self.settle()
        keys = {key for entry in entries for key in (entry.device_key, entry.user_key) if key}
        standings = self._guard(partial(self._ledger.standings, keys))
        return [
            all(
                standings[key].allows(entry.tracked_at)
                for key in (entry.device_key, entry.user_key)
                if key in standings
            )
            for entry in entries
        ]

    def _append_all(self, batch: Sequence[Act | Link]) -> None:
        """Append a batch; one item that cannot be kept stops no other."""
        try:
            self._append(batch)
        except MixpanelASGIError:
            raise
        except _UNKEEPABLE:
            for item in batch:
                self._append_one(item)

    def _append_one(self, item: Act | Link) -> None:
        for kept in (item, *_bare(item)):
            try:
                return self._append([kept])
            except MixpanelASGIError:
                raise
            except _UNKEEPABLE as error:
                text = f"a choice could not be recorded as it was given ({type(error).__name__})"
                self._tell_once("unkeepable", text)
        self._counters.count("unrecorded")
        return None

    def _append(self, batch: Sequence[Act | Link]) -> None:
        keys = {item.key for item in batch if isinstance(item, Act)}
        known: dict[bytes, Standing] = dict(self._ledger.standings(keys)) if keys else {}
        news: list[Act | Link] = []
        for item in batch:
            if isinstance(item, Link):
                news.append(item)
            elif item.is_news(known.get(item.key)):
                known[item.key] = item.standing()
                news.append(item)
        self._ledger.append(news)
        self._counters.count("recorded", sum(isinstance(item, Act) for item in news))

    def _answer(self) -> None:
        while self._asked:
            keys = {self._asked.popleft() for _ in range(min(ASK_BATCH, len(self._asked)))}
            with self._appending:
                self._tell(keys)

    def _tell(self, keys: set[bytes]) -> None:
        if not keys:
            return
        standings = self._guard(partial(self._ledger.standings, keys))
        with self._learning:
            # What was chosen meanwhile is newer than this answer, and is told once recorded.
            asked = [key for key in keys if not self._choices.is_about(key)]
            self._on_answers({key: standings.get(key) for key in asked})

    def _guard(self, call: Callable[[], _Answer]) -> _Answer:
        try:
            if not self._is_open:
                self._ledger.open()
                self._is_open = True
            result = call()
        except Exception as error:
            self._note_failure(error)
            raise Unavailable("the consent ledger failed", is_sent=False) from error
        if self._has_told:
            self._has_told = False
            logger.warning("The consent ledger answers again.")
        self._circuit.close()
        return result

    def _note_failure(self, error: Exception) -> None:
        self._counters.count("ledger_failed")
        self._circuit.back_off(self._clock(), self._random())
        if not self._has_told:
            self._has_told = True
            # Ours hold no secret; the text of a foreign one may quote a connection's password.
            text = str(error) if isinstance(error, MixpanelASGIError) else type(error).__name__
            logger.error(
                "The consent ledger failed (%s). Nothing is sent until it answers; choices and "
                "events wait.",
                text,
            )

    def _tell_once(self, topic: str, text: str) -> None:
        if topic not in self._told:
            self._told.add(topic)
            logger.error("%s. More of the same are only counted.", text.capitalize())


def _bare(item: Act | Link) -> list[Act]:
    """Answer a denial without what an app may have given wrongly; nothing else is worth it."""
    if isinstance(item, Link) or not item.is_denial:
        return []
    return [Act(key=item.key, subject=item.subject, state=item.state, at=item.at)]
