"""Decide whether a visitor may be tracked. Pure: signals in, decision out.

The order is the table of reference/consent.md section 6 as RULES section 2 changes it.
"""

from dataclasses import dataclass, field
from enum import Enum

from mp_asgi.settings import PolicyVersion

from .choice import Choice
from .signals import OwnCookies, Said

MAX_SKEW_SECONDS = 300  # a grant from further in the future was not made by our clock


class State(Enum):
    """The answer for one request."""

    GRANTED = "granted"
    DENIED = "denied"
    UNKNOWN = "unknown"


class Kind(Enum):
    """What kind of grant an event left under."""

    EXPLICIT = "explicit"
    OPT_OUT_DEFAULT = "opt-out-default"


class Reason(Enum):
    """Why the answer is what it is: a label for people and counters."""

    DISABLED = "disabled"
    GRANTED_NOW = "granted-now"
    DENIED_NOW = "denied-now"
    WITHDRAWN = "withdrawn"
    COOKIE_DENIED = "cookie-denied"
    SCRIPT_DENIED = "script-denied"
    HEADER_DENIED = "header-denied"
    APP_DENIED = "app-denied"
    APP_UNREADABLE = "app-unreadable"
    GPC = "sec-gpc"
    DNT = "dnt"
    APP_GRANTED = "app-granted"
    COOKIE_GRANTED = "cookie-granted"
    HEADER_GRANTED = "header-granted"
    GRANT_EXPIRED = "grant-expired"
    NOTICE_CHANGED = "notice-changed"
    UNREADABLE = "unreadable"
    OPT_OUT_DEFAULT = "opt-out-default"
    NO_CHOICE = "no-choice"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for this request, and what follows from it.

    Attributes:
        state: Granted, denied or unknown.
        reason: Which rule answered.
        source: Which signal it read: `request`, `cookie`, `script`, `header`, `app`,
            `sec-gpc`, `dnt`, `process`, `policy` or `settings`.
        kind: What kind of grant; None unless granted.
        needs_prompt: Whether the visitor should be asked.
        is_stale: A grant that does not count any more: the one unknown that deletes the ID.
        is_granted: Whether anything may leave.
    """

    state: State
    reason: Reason
    source: str
    kind: Kind | None = None
    needs_prompt: bool = False
    is_stale: bool = False
    is_granted: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_granted", self.state is State.GRANTED)


@dataclass(frozen=True, slots=True)
class AppAnswer:
    """What `consent_from` said: granted, denied or unreadable, with its time if it has one."""

    said: Said = Said.NOTHING
    at: float | None = None


@dataclass(slots=True)
class Signals:
    """Everything one request says about consent.

    Attributes:
        act: The choice made in this request, the strongest signal there is.
        own: Our consent cookies.
        header: The application header.
        is_cross_site: A header's grant is not believed then.
        has_gpc: `Sec-GPC: 1`, if it is honoured.
        has_dnt: `DNT: 1`, if it is honoured.
        app: The app's stored answer.
        withdrawn_at: When this process saw the visitor of the ID cookie deny; None if it did not.
    """

    own: OwnCookies
    act: Choice | None = None
    header: Said = Said.NOTHING
    is_cross_site: bool = False
    has_gpc: bool = False
    has_dnt: bool = False
    app: AppAnswer = AppAnswer()
    withdrawn_at: float | None = None


@dataclass(frozen=True, slots=True)
class ConsentPolicy:
    """The rules of one deployment (see `Settings`)."""

    is_opt_out: bool
    version: PolicyVersion
    max_age: float

    def decide(self, signals: Signals, now: float) -> Decision:
        """Answer for one request. The first rule that knows wins."""
        if signals.act is not None:
            return _GRANTED_NOW if signals.act.is_granted else _DENIED_NOW
        return (
            self._explicit_denial(signals, now)
            or self._browser_denial(signals, now)
            or self._grant(signals, now)
            or self._stale_grant(signals)
            or self._default(signals)
        )

    def is_repeated(self, act: Choice, own: Choice | None, now: float) -> bool:
        """Whether the visitor only repeats an answer that still counts."""
        return (
            own is not None
            and (own.is_granted, own.version) == (act.is_granted, act.version)
            # Agreeing again without GPC takes nothing from a grant that overrides it.
            and own.source in {act.source, "gpc-override"}
            # A grant older than the notice does not count, so giving it again is news.
            and self._counts(own.at, now)
        )

    def _explicit_denial(self, signals: Signals, now: float) -> Decision | None:
        own, withdrawn_at = signals.own, signals.withdrawn_at
        if withdrawn_at is not None and (own.choice is None or own.choice.at <= withdrawn_at):
            return _WITHDRAWN  # these cookies are from before; the browser has others by now
        if own.choice is not None and not own.choice.is_granted:
            is_same_notice = own.choice.version == self.version.name
            is_settled = is_same_notice and self._is_fresh(own.choice.at, now)
            return _COOKIE_DENIED if is_settled else _COOKIE_DENIED_LONG_AGO
        if own.is_denied_by_script:
            return _SCRIPT_DENIED
        if signals.header is Said.DENIED:
            return _HEADER_DENIED
        return _APP_DENIED if signals.app.said is Said.DENIED else None

    def _browser_denial(self, signals: Signals, now: float) -> Decision | None:
        own = signals.own.choice
        if signals.has_gpc and not (
            own is not None and own.source == "gpc-override" and self._is_counting(own, now)
        ):
            return _GPC
        if signals.has_dnt:
            return _DNT
        # An answer that could not be read may have been a denial: nothing below may grant.
        return _APP_UNREADABLE if signals.app.said is Said.UNREADABLE else None

    def _grant(self, signals: Signals, now: float) -> Decision | None:
        if signals.app.said is Said.GRANTED and self._counts(signals.app.at, now):
            return _APP_GRANTED
        if signals.own.choice is not None and self._is_counting(signals.own.choice, now):
            return _COOKIE_GRANTED
        if signals.header is Said.GRANTED and not signals.is_cross_site:
            return _HEADER_GRANTED
        return None

    def _stale_grant(self, signals: Signals) -> Decision | None:
        choice, app = signals.own.choice, signals.app
        if app.said is Said.GRANTED:
            source, at, is_other = "app", app.at or 0.0, False
        elif choice is not None:
            source, at, is_other = "cookie", choice.at, choice.version != self.version.name
        else:
            return None
        has_changed = is_other or at < self.version.since
        reason = Reason.NOTICE_CHANGED if has_changed else Reason.GRANT_EXPIRED
        return Decision(State.UNKNOWN, reason, source, needs_prompt=True, is_stale=True)

    def _default(self, signals: Signals) -> Decision:
        # Somebody did choose something; not knowing what, an opt-out site must take it as no.
        if signals.own.is_unreadable:
            return _UNREADABLE_DENIED if self.is_opt_out else _UNREADABLE
        if not self.is_opt_out:
            return _NO_CHOICE
        is_unreadable = signals.header is Said.UNREADABLE
        return _HEADER_UNREADABLE if is_unreadable else _OPT_OUT_DEFAULT

    def _is_counting(self, choice: Choice, now: float) -> bool:
        is_same_notice = choice.version == self.version.name
        return choice.is_granted and is_same_notice and self._counts(choice.at, now)

    def _counts(self, at: float | None, now: float) -> bool:
        return at is None or (at >= self.version.since and self._is_fresh(at, now))

    def _is_fresh(self, at: float, now: float) -> bool:
        return -MAX_SKEW_SECONDS <= now - at <= self.max_age


_EXPLICIT = Kind.EXPLICIT
DISABLED = Decision(State.DENIED, Reason.DISABLED, "settings")
_GRANTED_NOW = Decision(State.GRANTED, Reason.GRANTED_NOW, "request", _EXPLICIT)
_DENIED_NOW = Decision(State.DENIED, Reason.DENIED_NOW, "request")
_WITHDRAWN = Decision(State.DENIED, Reason.WITHDRAWN, "process")
_COOKIE_DENIED = Decision(State.DENIED, Reason.COOKIE_DENIED, "cookie")
_COOKIE_DENIED_LONG_AGO = Decision(State.DENIED, Reason.COOKIE_DENIED, "cookie", needs_prompt=True)
_SCRIPT_DENIED = Decision(State.DENIED, Reason.SCRIPT_DENIED, "script")
_HEADER_DENIED = Decision(State.DENIED, Reason.HEADER_DENIED, "header")
_APP_DENIED = Decision(State.DENIED, Reason.APP_DENIED, "app")
_APP_UNREADABLE = Decision(State.UNKNOWN, Reason.APP_UNREADABLE, "app")
_GPC = Decision(State.DENIED, Reason.GPC, "sec-gpc")
_DNT = Decision(State.DENIED, Reason.DNT, "dnt")
_APP_GRANTED = Decision(State.GRANTED, Reason.APP_GRANTED, "app", _EXPLICIT)
_COOKIE_GRANTED = Decision(State.GRANTED, Reason.COOKIE_GRANTED, "cookie", _EXPLICIT)
_HEADER_GRANTED = Decision(State.GRANTED, Reason.HEADER_GRANTED, "header", _EXPLICIT)
_UNREADABLE = Decision(State.UNKNOWN, Reason.UNREADABLE, "cookie", needs_prompt=True)
_UNREADABLE_DENIED = Decision(State.DENIED, Reason.UNREADABLE, "cookie")
_HEADER_UNREADABLE = Decision(State.DENIED, Reason.UNREADABLE, "header")
_OPT_OUT_DEFAULT = Decision(State.GRANTED, Reason.OPT_OUT_DEFAULT, "policy", Kind.OPT_OUT_DEFAULT)
_NO_CHOICE = Decision(State.UNKNOWN, Reason.NO_CHOICE, "policy", needs_prompt=True)
