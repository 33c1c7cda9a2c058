"""Hold what the exchanges of one process share, and say where their consequences go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from .consent.policy import ConsentPolicy, Decision
from .cookies import CookieStyle
from .errors import NotConsented
from .head import HeadReader, SchemeReader
from .identity import IdentityMode
from .jar import JarReader
from .settings import Settings
from .signing import CookieSigner
from .stops import Stops
from .wire import Item, KeyMaker


class Handover:
    """What one request sends, with the decision that allows it.

    Attributes:
        decision: Granted, always.
        items: At least one, in the order of the calls.

    Raises:
        NotConsented: There is no handing over without a granted decision (promise 1).
    """

    __slots__ = ("decision", "items")

    def __init__(self, decision: Decision, items: Sequence[Item]) -> None:
        if not decision.is_granted:
            raise NotConsented("A hand-over needs a granted decision.")
        self.decision = decision
        self.items = items


class Sink(Protocol):
    """Where an exchange's consequences go. Nothing here blocks or raises."""

    def accept(self, handover: Handover) -> None:
        """Take responsibility for delivering it."""
        ...

    def stop(self, keys: Sequence[bytes], at: float) -> None:
        """Forget what waits under these keys, and let nothing tracked until `at` pass."""
        ...

    def count(self, name: str, number: int = 1, reason: str = "") -> None:
        """Count what happened."""
        ...

    def warn(self, topic: str, message: str) -> None:
        """Log a message, once a topic."""
        ...


class Lock(Protocol):
    """A re-entrant lock."""

    def acquire(self) -> bool:
        """Wait for it."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...

    def __enter__(self) -> object: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> object: ...


@dataclass(frozen=True, slots=True)
class Core:
    """The rules made from one process's settings, and its sources of time and randomness.

    Attributes:
        lock: Re-entrant; guards what an exchange changes. Held for microseconds, never while
            the app's code runs.
        has_late_answers: There is an `identify_from` or a `consent_from` to ask; not when
            switched off.
        known_names: Event names that were checked before; bounded by the exchange.
    """

    settings: Settings
    mode: IdentityMode
    policy: ConsentPolicy
    heads: HeadReader
    schemes: SchemeReader
    jars: JarReader
    id_style: CookieStyle
    consent_style: CookieStyle
    script_style: CookieStyle
    id_signer: CookieSigner
    consent_signer: CookieSigner
    keys: KeyMaker
    stops: Stops
    sink: Sink
    clock: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    lock: Lock
    has_late_answers: bool
    known_names: set[str]
