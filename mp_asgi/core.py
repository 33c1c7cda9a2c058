"""Hold what the exchanges of one process share, and say where their consequences go."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol

from .accounts import Accounts
from .adopter import Adopter, PageIds
from .consent.policy import ConsentPolicy, Decision, Default
from .consent.region import Defaults
from .consent.signals import has_withheld_cookies
from .context import ContextReader, RequestContext
from .cookieless import DailyVisitors
from .cookies import CookieStyle
from .errors import InvalidEvent, NotConsented
from .events import Act, Link
from .head import HeadReader, RequestHead, SchemeReader
from .identity import IdentityMode
from .jar import JarReader
from .settings import Settings
from .sharing import BrowserCookies
from .signing import CookieSigner
from .stops import Stops
from .wire import Item, KeyMaker

_SHOWN_NAME: Final = 100  # characters of an event's name in a log line
_TAKEN_FOR_SILENCE: Final = frozenset({Default.OPT_OUT, Default.COOKIELESS})


class Handover:
    """What one request sends, with the decision that allows it.

    Attributes:
        decision: Granted, always.
        items: At least one, in the order of the calls.
        context: The request that they were tracked in; None outside of one.
        promised_at: Seconds since the epoch of the grant that a job carries: a stop after it ends
            what the job tracks later. None in a request.

    Raises:
        NotConsented: There is no handing over without a granted decision (promise 1).
    """

    __slots__ = ("context", "decision", "items", "promised_at")

    def __init__(
        self,
        decision: Decision,
        items: Sequence[Item],
        context: RequestContext | None = None,
        promised_at: float | None = None,
    ) -> None:
        if not decision.is_granted:
            raise NotConsented("A hand-over needs a granted decision.")
        self.decision = decision
        self.items = items
        self.context = context
        self.promised_at = promised_at


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

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool:  # noqa: FBT001  # Python's
        """Wait for it so many seconds, for ever without. Return whether it is held."""
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
        hands_over_early: What was tracked before a response starts is kept before it starts
            (setting `durability`).
        contexts: Reads where an event happened.
        adopter: Finds whose ID to go on with; None if none is adopted.
        browser: Writes mixpanel-browser's cookies; None if the site does not know it.
        page_ids: Reads its ID cookie; None likewise.
        sees_pages: Page views are tracked for the app.
        excluded: Matches the paths on which nothing is tracked; None if there are none.
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
    hands_over_early: bool
    contexts: ContextReader
    adopter: Adopter | None
    browser: BrowserCookies | None
    page_ids: PageIds | None
    sees_pages: bool
    excluded: re.Pattern[str] | None
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


def refuse(core: Core, error: Exception, verb: str, name: object = None) -> None:
    """Count and log what a call did wrong; raise it only under `strict`."""
    if core.settings.strict:
        raise error
    reason = error.reason if isinstance(error, InvalidEvent) else "failed_call"
    core.sink.count("refused", 1, reason)
    detail = str(error) if isinstance(error, InvalidEvent) else type(error).__name__
    shown = f"({str.__str__(name)[:_SHOWN_NAME]!r})" if isinstance(name, str) else ""
    core.sink.warn(f"{reason} {verb}", f"refused {verb}{shown} ({reason}): {detail}")
