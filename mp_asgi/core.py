"""Hold what the exchanges of one process share, and say where their consequences go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol

from .accounts import Accounts
from .consent.policy import ConsentPolicy, Decision, Default
from .consent.region import Defaults
from .consent.signals import has_withheld_cookies
from .cookieless import DailyVisitors
from .cookies import CookieStyle
from .errors import NotConsented
from .events import Act, Link
from .head import HeadReader, RequestHead, SchemeReader
from .identity import IdentityMode
from .jar import JarReader
from .settings import Settings
from .signing import CookieSigner
from .stops import Stops
from .wire import Item, KeyMaker

_TAKEN_FOR_SILENCE: Final = frozenset({Default.OPT_OUT, Default.COOKIELESS})


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

    def record(self, item: Act | Link) -> None:
        """Tell the ledger, if there is one."""
        ...

    def ask(self, key: bytes) -> None:
        """Ask the ledger where a subject stands; `accounts` learns it later."""
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
    ) -> bool | None: ...


@dataclass(frozen=True, slots=True)
class Core:
    """The rules made from one process's settings, and its sources of time and randomness.

    Attributes:
        lock: Re-entrant; guards what an exchange changes. Held for microseconds, never while
            the app's code runs.
        accounts: What the ledger says, as far as it is known here; None without a ledger.
        daily: Visitors who have not chosen, where the policy says `cookieless`.
        has_late_answers: There is an `identify_from` or a `consent_from` to ask; not when
            switched off.
        has_late_consent: One of them may grant what is unknown until then.
        has_account_grants: What a user agreed to on one device counts on all of them.
        known_names: Event names that were checked before; bounded by the exchange.
    """

    settings: Settings
    mode: IdentityMode
    policy: ConsentPolicy
    defaults: Defaults
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
    accounts: Accounts | None
    daily: DailyVisitors
    sink: Sink
    clock: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    lock: Lock
    has_late_answers: bool
    has_late_consent: bool
    has_account_grants: bool
    known_names: set[str]

    def read_default(self, head: RequestHead, *, has_cookies: bool) -> Default:
        """Answer what holds for this request's visitor without a choice.

        Args:
            head: The request.
            has_cookies: Whether any cookie of ours came with it.
        """
        default = self.defaults.constant or self.defaults.read(head, self._tell_policy_failed)
        if has_cookies or default not in _TAKEN_FOR_SILENCE:
            return default
        # Who has refused may only seem silent: their browser left the refusal at home.
        is_unheard = has_withheld_cookies(head, self.settings.cookie_samesite)
        return Default.OPT_IN if is_unheard else default

    def _tell_policy_failed(self, why: str) -> None:
        self.sink.count("policy_failed")
        self.sink.warn("policy", f"policy failed ({why}); its visitors are asked first")
