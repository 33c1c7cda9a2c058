"""Decide whether a visitor may be tracked. Pure: signals in, decision out.

The order is the table of reference/consent.md section 6 as RULES section 2 changes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from mp_asgi.readers import NO_MANAGERS, ManagersSaid, Said
from mp_asgi.settings import PolicyVersion

from .choice import Choice
from .signals import OwnCookies

MAX_SKEW_SECONDS = 300  # a grant from further in the future was not made by our clock
MANAGER_SKEW_SECONDS = 86_400  # browsers' clocks made these (reference/consent.md section 2.3)

#: Put before a consent manager's name in `Decision.source`.
MANAGER: Final = "cmp:"


class State(Enum):
    """The answer for one request."""

    GRANTED = "granted"
    DENIED = "denied"
    UNKNOWN = "unknown"


class Kind(Enum):
    """What kind of grant an event left under."""

    EXPLICIT = "explicit"
    OPT_OUT_DEFAULT = "opt-out-default"
    COOKIELESS = "cookieless"


class Default(Enum):
    """What holds for a visitor who has not chosen."""

    OPT_IN = "opt-in"
    OPT_OUT = "opt-out"
    DENY = "deny"
    MINOR = "minor"
    """As opt-in; neither opt-out nor cookieless ever applies (RULES section 2, rule 6)."""
    COOKIELESS = "cookieless"
    """As opt-in, but counted by a hash that changes every day."""


class Reason(Enum):
    """Why the answer is what it is: a label for people and counters."""

    DISABLED = "disabled"
    GRANTED_NOW = "granted-now"
    DENIED_NOW = "denied-now"
    WITHDRAWN = "withdrawn"
    COOKIE_DENIED = "cookie-denied"
    SCRIPT_DENIED = "script-denied"
    HEADER_DENIED = "header-denied"
    MANAGER_DENIED = "manager-denied"
    MANAGER_UNREADABLE = "manager-unreadable"
    ACCOUNT_DENIED = "account-denied"
    APP_DENIED = "app-denied"
    APP_UNREADABLE = "app-unreadable"
    GPC = "sec-gpc"
    DNT = "dnt"
    ACCOUNT_GRANTED = "account-granted"
    APP_GRANTED = "app-granted"
    COOKIE_GRANTED = "cookie-granted"
    MANAGER_GRANTED = "manager-granted"
    HEADER_GRANTED = "header-granted"
    JOB_GRANTED = "job-granted"
    """In the request that a job's token is from."""
    GRANT_EXPIRED = "grant-expired"
    NOTICE_CHANGED = "notice-changed"
    UNREADABLE = "unreadable"
    POLICY_DENIED = "policy-denied"
    OPT_OUT_DEFAULT = "opt-out-default"
    COOKIELESS = "cookieless"
    NO_CHOICE = "no-choice"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for this request, and what follows from it.

    Attributes:
        state: Granted, denied or unknown.
        reason: Which rule answered.
        source: Which signal it read: `request`, `cookie`, `script`, `header`, `cmp:NAME`,
            `account`, `app`, `token`, `sec-gpc`, `dnt`, `process`, `policy` or `settings`.
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


@dataclass(frozen=True, slots=True)
class AccountAnswer:
    """What the ledger says of the user who is logged in, as far as this process remembers.

    `UNREADABLE`: this process has not heard. That changes nothing but for cookieless counting.
    """

    said: Said = Said.NOTHING
    at: float | None = None
    version: str = ""


NO_ACCOUNT: Final = AccountAnswer()


@dataclass(slots=True)
class Signals:
    """Everything one request says about consent.

    Attributes:
        act: The choice made in this request, the strongest signal there is.
        own: Our consent cookies.
        managers: The consent managers' cookies.
        header: The application header.
        is_cross_site: A header's grant is not believed then.
        has_gpc: `Sec-GPC: 1`, if it is honoured.
        has_dnt: `DNT: 1`, if it is honoured.
        app: The app's stored answer.
        account: The ledger's.
        withdrawn_at: When this process saw the visitor of the ID cookie deny; None if it did not.
        default: What holds if nothing of all that speaks.
    """

    own: OwnCookies
    act: Choice | None = None
    managers: ManagersSaid = NO_MANAGERS
    header: Said = Said.NOTHING
    is_cross_site: bool = False
    has_gpc: bool = False
    has_dnt: bool = False
    app: AppAnswer = AppAnswer()
    account: AccountAnswer = NO_ACCOUNT
    withdrawn_at: float | None = None
    default: Default = Default.OPT_IN


@dataclass(frozen=True, slots=True)
class ConsentPolicy:
    """The rules of one deployment (see `Settings`).

    Attributes:
        version: The notice that counts.
        max_age: Seconds that a grant made with us counts.
        managers: Names of the consent managers that are read.
    """

    version: PolicyVersion
    max_age: float
    managers: frozenset[str] = frozenset()
    _granted_by: Mapping[str, Decision] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Made once: a decision costs more than everything else that a known cookie does.
        decisions = {
            name: Decision(State.GRANTED, Reason.MANAGER_GRANTED, MANAGER + name, _EXPLICIT)
            for name in self.managers
        }
        object.__setattr__(self, "_granted_by", decisions)

    def decide(self, signals: Signals, now: float) -> Decision:
        """Answer for one request. The first rule that knows wins."""
        if signals.act is not None:
            return _GRANTED_NOW if signals.act.is_granted else _DENIED_NOW
        own = signals.own.choice
        if own is not None and own.mirrored and not self._may_speak(own, signals.managers):
            own = None
        return (
            self._explicit_denial(signals, own, now)
            or self._browser_denial(signals, own, now)
            or self._grant(signals, own, now)
            or self._stale_grant(signals, own)
            or _by_default(signals)
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

    def _may_speak(self, mirror: Choice, managers: ManagersSaid) -> bool:
        """Whether a mirror speaks: only while a manager's own cookie is absent.

        Managers that the site has given up can still have been told no, until another one's
        cookie says what is chosen now.
        """
        configured = self.managers.intersection(mirror.mirrored)
        if configured and mirror.is_granted:
            return configured.isdisjoint(managers.present)
        if configured:
            return not configured.issubset(managers.present)  # one of them may still say no
        return not mirror.is_granted and not managers.present

    def _explicit_denial(self, signals: Signals, own: Choice | None, now: float) -> Decision | None:
        withdrawn_at = signals.withdrawn_at
        if withdrawn_at is not None and not self._is_newer(signals, own, withdrawn_at, now):
            return _WITHDRAWN  # these cookies are from before; the browser has others by now
        if own is not None and not own.is_granted and not self._is_overruled(own, signals, now):
            is_same_notice = own.version == self.version.name
            is_settled = is_same_notice and self._is_fresh(own.at, now)
            return _COOKIE_DENIED if is_settled else _COOKIE_DENIED_LONG_AGO
        if signals.own.is_denied_by_script:
            return _SCRIPT_DENIED
        if signals.header is Said.DENIED:
            return _HEADER_DENIED
        if signals.managers.said is Said.DENIED:
            source = MANAGER + signals.managers.name
            return Decision(State.DENIED, Reason.MANAGER_DENIED, source)
        return _stored_denial(signals)

    def _is_newer(self, signals: Signals, own: Choice | None, at: float, now: float) -> bool:
        """Whether a choice is known that was made after `at`."""
        managers = signals.managers
        return (own is not None and own.at > at) or (
            self._is_managers_grant(managers, now) and managers.at is not None and managers.at > at
        )

    def _is_overruled(self, own: Choice, signals: Signals, now: float) -> bool:
        """Whether a consent manager was told yes after we were told no (conflict c).

        A mirror that speaks has no manager to compare with; a day-precise time is the day's
        beginning, so it never beats an exact one of the same day. What stands in for a choice
        that we could not read was not made with us, and rules over nobody's answer.
        """
        managers = signals.managers
        if own.mirrored or not self._is_managers_grant(managers, now):
            return False
        # Ours is cut to the second it was made in; a time that is still to come proves nothing.
        is_newer = managers.at is not None and own.at + 1 <= managers.at <= now + MAX_SKEW_SECONDS
        return is_newer or own.source == "unreadable"

    def _browser_denial(self, signals: Signals, own: Choice | None, now: float) -> Decision | None:
        if signals.has_gpc and not (
            own is not None and own.source == "gpc-override" and self._is_counting(own, now)
        ):
            return _GPC
        if signals.has_dnt:
            return _DNT
        # An answer that could not be read may have been a denial: nothing below may grant.
        if signals.managers.said is Said.UNREADABLE or _is_from_the_future(signals.managers, now):
            is_opt_out = signals.default is Default.OPT_OUT
            state = State.DENIED if is_opt_out else State.UNKNOWN
            source = MANAGER + signals.managers.name
            return Decision(state, Reason.MANAGER_UNREADABLE, source, needs_prompt=True)
        return _APP_UNREADABLE if signals.app.said is Said.UNREADABLE else None

    def _grant(self, signals: Signals, own: Choice | None, now: float) -> Decision | None:
        account, app, managers = signals.account, signals.app, signals.managers
        is_current = account.version == self.version.name
        if account.said is Said.GRANTED and is_current and self._counts(account.at, now):
            return _ACCOUNT_GRANTED
        if app.said is Said.GRANTED and self._counts(app.at, now):
            return _APP_GRANTED
        if own is not None and self._is_counting(own, now):
            return _COOKIE_GRANTED
        if self._is_managers_grant(managers, now):
            return self._granted_by[managers.name]
        if signals.header is Said.GRANTED and not signals.is_cross_site:
            return _HEADER_GRANTED
        return None

    def _stale_grant(self, signals: Signals, own: Choice | None) -> Decision | None:
        app, managers, is_stale = signals.app, signals.managers, True
        if app.said is Said.GRANTED:
            source, at, is_other = "app", app.at or 0.0, False
        elif own is not None:
            source, at, is_other = "cookie", own.at, own.version != self.version.name
            is_stale = not own.mirrored  # its manager may still hold the grant, unseen here
        elif managers.said in {Said.STALE, Said.GRANTED}:
            source, at, is_other = MANAGER + managers.name, managers.at or 0.0, False
        else:
            return None
        has_changed = is_other or at < self.version.since
        reason = Reason.NOTICE_CHANGED if has_changed else Reason.GRANT_EXPIRED
        return Decision(State.UNKNOWN, reason, source, needs_prompt=True, is_stale=is_stale)

    def _is_counting(self, choice: Choice, now: float) -> bool:
        is_same_notice = choice.version == self.version.name
        return choice.is_granted and is_same_notice and self._counts(choice.at, now)

    def _is_managers_grant(self, managers: ManagersSaid, now: float) -> bool:
        """Whether a manager's grant counts. It asks again itself: only the notice's time and the
        end that its own cookie names (TCF) make it old.
        """
        if managers.said is not Said.GRANTED or _is_from_the_future(managers, now):
            return False
        is_before_notice = managers.at is not None and managers.at < self.version.since
        return not is_before_notice and (managers.until is None or now <= managers.until)

    def _counts(self, at: float | None, now: float) -> bool:
        return at is None or (at >= self.version.since and self._is_fresh(at, now))

    def _is_fresh(self, at: float, now: float) -> bool:
        return -MAX_SKEW_SECONDS <= now - at <= self.max_age


def _is_from_the_future(managers: ManagersSaid, now: float) -> bool:
    """Whether a grant is from further ahead than any browser's clock, so that it cannot be read."""
    is_ahead = managers.at is not None and managers.at - now > MANAGER_SKEW_SECONDS
    return managers.said is Said.GRANTED and is_ahead


def _stored_denial(signals: Signals) -> Decision | None:
    if signals.account.said is Said.DENIED:
        return _ACCOUNT_DENIED
    return _APP_DENIED if signals.app.said is Said.DENIED else None


def _by_default(signals: Signals) -> Decision:
    is_opt_out = signals.default is Default.OPT_OUT
    # Somebody did choose something; not knowing what, an opt-out site must take it as no.
    if signals.own.is_unreadable:
        return _UNREADABLE_DENIED if is_opt_out else _UNREADABLE
    if signals.default is Default.DENY:
        return _POLICY_DENIED
    if signals.header is Said.UNREADABLE:
        return _HEADER_UNREADABLE if is_opt_out else _NO_CHOICE
    if signals.default is Default.COOKIELESS:
        # The ledger cannot be asked about who is only counted: a user may have refused there.
        return _NO_CHOICE if signals.account.said is Said.UNREADABLE else _COOKIELESS
    return _OPT_OUT_DEFAULT if is_opt_out else _NO_CHOICE


_EXPLICIT = Kind.EXPLICIT
DISABLED = Decision(State.DENIED, Reason.DISABLED, "settings")
_GRANTED_NOW = Decision(State.GRANTED, Reason.GRANTED_NOW, "request", _EXPLICIT)
_DENIED_NOW = Decision(State.DENIED, Reason.DENIED_NOW, "request")
_WITHDRAWN = Decision(State.DENIED, Reason.WITHDRAWN, "process")
_COOKIE_DENIED = Decision(State.DENIED, Reason.COOKIE_DENIED, "cookie")
_COOKIE_DENIED_LONG_AGO = Decision(State.DENIED, Reason.COOKIE_DENIED, "cookie", needs_prompt=True)
_SCRIPT_DENIED = Decision(State.DENIED, Reason.SCRIPT_DENIED, "script")
_HEADER_DENIED = Decision(State.DENIED, Reason.HEADER_DENIED, "header")
_ACCOUNT_DENIED = Decision(State.DENIED, Reason.ACCOUNT_DENIED, "account")
_APP_DENIED = Decision(State.DENIED, Reason.APP_DENIED, "app")
_APP_UNREADABLE = Decision(State.UNKNOWN, Reason.APP_UNREADABLE, "app")
_GPC = Decision(State.DENIED, Reason.GPC, "sec-gpc")
_DNT = Decision(State.DENIED, Reason.DNT, "dnt")
_ACCOUNT_GRANTED = Decision(State.GRANTED, Reason.ACCOUNT_GRANTED, "account", _EXPLICIT)
_APP_GRANTED = Decision(State.GRANTED, Reason.APP_GRANTED, "app", _EXPLICIT)
_COOKIE_GRANTED = Decision(State.GRANTED, Reason.COOKIE_GRANTED, "cookie", _EXPLICIT)
_HEADER_GRANTED = Decision(State.GRANTED, Reason.HEADER_GRANTED, "header", _EXPLICIT)
_UNREADABLE = Decision(State.UNKNOWN, Reason.UNREADABLE, "cookie", needs_prompt=True)
_UNREADABLE_DENIED = Decision(State.DENIED, Reason.UNREADABLE, "cookie")
_HEADER_UNREADABLE = Decision(State.DENIED, Reason.UNREADABLE, "header")
_POLICY_DENIED = Decision(State.DENIED, Reason.POLICY_DENIED, "policy")
_COOKIELESS = Decision(
    State.GRANTED, Reason.COOKIELESS, "policy", Kind.COOKIELESS, needs_prompt=True
)
_OPT_OUT_DEFAULT = Decision(State.GRANTED, Reason.OPT_OUT_DEFAULT, "policy", Kind.OPT_OUT_DEFAULT)
_NO_CHOICE = Decision(State.UNKNOWN, Reason.NO_CHOICE, "policy", needs_prompt=True)
