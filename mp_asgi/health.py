"""Judge how delivery fares. Pure: what is known goes in, sentences come out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .delivery.outbox.base import NO_STATS, OutboxStats
from .settings import Settings
from .settings.outbox_place import OutboxKind

OLD_SECONDS: Final = 900.0  # two hundred flush intervals; tries are a minute apart at most
LOG_BYTES: Final = 16_000_000  # of a file's log; twice what stays of it on the disk after a burst
NEARLY_FULL: Final = 0.8  # of the outbox's bounds: what is beyond them is dropped

_IN_MEMORY: Final = (
    "messages wait in memory and are gone with the process. Is the disk full, the directory "
    "writable?"
)


@dataclass(frozen=True, slots=True)
class Health:
    """How delivery fares in this process, in sentences for operators.

    Attributes:
        problems: What loses events here and would not in another process: send requests
            elsewhere until it is mended.
        warnings: What wants a person, but would be the same in every other process; taking this
            one out of rotation mends nothing. Mixpanel being away is at most a warning.
    """

    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        """Whether this process should get requests: there is no problem."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of delivery at one moment.

    Attributes:
        outbox: How full the outbox is; as if empty while its storage does not answer.
        unavailable: Why it does not, in its own words.
        waiting: Messages that wait, those that are not stored yet included.
        is_durable: Whether what is accepted now survives the process.
        has_ended: Whether the threads of this process ran, and do not run now.
        is_blocked: Whether Mixpanel refuses the credentials or the host.
        is_ledger_failing: Whether the consent ledger gave no answer when it was last asked.
        trouble: What else is wrong with this process, in a sentence; empty without anything.
    """

    outbox: OutboxStats = NO_STATS
    unavailable: str = ""
    waiting: int = 0
    is_durable: bool = True
    has_ended: bool = False
    is_blocked: bool = False
    is_ledger_failing: bool = False
    trouble: str = ""

    def age_seconds(self, now: float) -> float:
        """Answer for how long the oldest message waits, since it was put; 0 without one."""
        put_at = self.outbox.oldest_put_at
        return 0.0 if put_at is None else max(0.0, now - put_at)

    def used_ratio(self, settings: Settings) -> float:
        """Answer how full the outbox is, by the tighter of its bounds; 1 is full."""
        return max(
            self.outbox.depth / settings.outbox_max_messages,
            self.outbox.size_bytes / settings.outbox_max_bytes,
        )

    def has_lost_storage(self, settings: Settings) -> bool:
        """Whether messages wait in memory, though the settings want them kept."""
        is_kept = settings.enabled and settings.outbox_place.kind is not OutboxKind.MEMORY
        return is_kept and not self.is_durable


def examine(signs: Signs, settings: Settings, now: float) -> Health:
    """Say what is wrong, the worst first."""
    return Health(
        tuple(_find_problems(signs, settings)), tuple(_find_warnings(signs, settings, now))
    )


def _find_problems(signs: Signs, settings: Settings) -> Iterator[str]:
    if signs.has_ended and signs.waiting:
        yield (
            f"{signs.waiting} messages wait, and the threads that store and send have ended. "
            "Restart this process; the log names the error."
        )
    if signs.has_lost_storage(settings) and settings.durability == "strict":
        yield f"MP_ASGI_DURABILITY is strict, but the outbox's storage fails: {_IN_MEMORY}"


def _find_warnings(signs: Signs, settings: Settings, now: float) -> Iterator[str]:
    if signs.is_blocked:
        yield (
            "Mixpanel refuses us; nothing is delivered, and nothing is lost yet. Check "
            "MIXPANEL_TOKEN, MIXPANEL_REGION, MIXPANEL_API_HOST and the service account."
        )
    if signs.is_ledger_failing:
        yield "The consent ledger does not answer; nothing is sent until it does. Events wait."
    if signs.unavailable:
        yield f"The outbox does not answer: {signs.unavailable}"
    if signs.has_lost_storage(settings) and settings.durability != "strict":
        yield f"The outbox's storage fails: {_IN_MEMORY}"
    if signs.trouble:
        yield signs.trouble
    yield from _find_strain(signs, settings, now)


def _find_strain(signs: Signs, settings: Settings, now: float) -> Iterator[str]:
    age_seconds = signs.age_seconds(now)
    if age_seconds > OLD_SECONDS:
        yield (
            f"The oldest message waits for {age_seconds / 60:.0f} minutes. Is Mixpanel reachable, "
            "and does anybody drain?"
        )
    if signs.outbox.log_bytes > max(LOG_BYTES, settings.outbox_max_bytes):
        yield (
            f"The outbox's log takes {signs.outbox.log_bytes / 1e6:.0f} MB of the disk and grows "
            "while another program reads the file, a forgotten sqlite3 for example. End it."
        )
    used = signs.used_ratio(settings)
    if used > NEARLY_FULL:
        yield (
            f"The outbox is {used:.0%} full; beyond MP_ASGI_OUTBOX_MAX_MESSAGES or "
            "MP_ASGI_OUTBOX_MAX_BYTES the newest events are dropped."
        )
