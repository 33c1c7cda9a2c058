"""Write down for the ledger what a request came to: who chose what, on which grounds.

Pure; what it answers goes to the sink. Without a ledger nobody asks.
"""

from collections.abc import Iterable
from typing import Final

from .consent.choice import Choice
from .consent.policy import MANAGER, Decision, Kind, Reason, Signals, State
from .consent.signals import OwnCookies
from .core import Core
from .events import UNTOLD, Act, ActState, Asked, Subject
from .head import RequestHead

#: Denials that a person or their browser said, as opposed to those that follow from our rules.
_REFUSALS: Final = {
    Reason.DENIED_NOW: "own",
    Reason.SCRIPT_DENIED: "script",
    Reason.HEADER_DENIED: "header",
    Reason.APP_DENIED: "app",
    Reason.GPC: "sec-gpc",
    Reason.DNT: "dnt",
}
_GRANTS: Final = {
    Reason.COOKIE_GRANTED: "own",
    Reason.HEADER_GRANTED: "header",
    Reason.APP_GRANTED: "app",
}
CONSENT: Final = "consent"  # GDPR Art. 6(1)(a); a default needs none, and is not recorded


class Grounds:
    """The grounds of one request's decision, ready to be filed under any subject.

    Args:
        core: The rules.
        head: The request, for the region and what held without a choice.
        decision: What it came to.
        signals: What everybody said.
        at: Seconds since the epoch of the choice.
        asked: How the visitor came to it, if they chose in this request.
    """

    def __init__(
        self,
        core: Core,
        head: RequestHead,
        decision: Decision,
        signals: Signals,
        *,
        at: float,
        asked: Asked = UNTOLD,
    ) -> None:
        self._core = core
        self._head = head
        self._decision = decision
        self._signals = signals
        granted_at = read_granted_at(decision.reason, signals) if signals.act is None else None
        # A denial, and a grant of which nobody can tell, count from now.
        self._at = at if granted_at is None else min(granted_at, at)
        self._notice = asked.notice
        act = signals.act
        self._source = _read_source(decision, signals.own) if act is None else _read_act(act, asked)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether somebody chose: a default is nobody's choice."""
        return bool(self._source)

    def of_devices(self, keys: Iterable[bytes]) -> list[Act]:
        """Answer the acts of these devices."""
        is_granted = self._decision.is_granted
        state = ActState.GRANTED if is_granted else ActState.DENIED
        return [self._act(key, Subject.DEVICE, state) for key in keys]

    def of_users(self, keys: Iterable[bytes]) -> list[Act]:
        """Answer the acts of these users: a grant goes to the account only where the notice says
        so, else it ends what the account denied (RULES section 2, rule 1).
        """
        state = _user_state(self._decision, self._core)
        return [self._act(key, Subject.USER, state) for key in keys]

    def _act(self, key: bytes, subject: Subject, state: ActState) -> Act:
        core, is_granted = self._core, self._decision.is_granted
        is_manager = self._decision.source.startswith(MANAGER)
        return Act(
            key=key,
            subject=subject,
            state=state,
            at=self._at,
            version=core.policy.version.name,
            notice=self._notice,
            basis=CONSENT if is_granted else "",
            model=self._signals.default.value,
            region=core.defaults.country(self._head),
            source=self._source,
            is_act=self._signals.act is not None,
            evidence=self._signals.managers.evidence() if is_manager else "",
        )


def read_granted_at(reason: Reason, signals: Signals) -> float | None:
    """Answer when the visitor agreed, in seconds since the epoch; None if nobody can tell."""
    act, own = signals.act, signals.own.choice
    match reason:
        case Reason.GRANTED_NOW if act is not None:
            return act.at
        case Reason.COOKIE_GRANTED if own is not None:
            return own.at
        case Reason.MANAGER_GRANTED:
            return _read_managers_time(signals)
        case Reason.APP_GRANTED:
            return signals.app.at
        case Reason.ACCOUNT_GRANTED:
            return signals.account.at
        case _:
            return None


def _read_managers_time(signals: Signals) -> float | None:
    """Answer when a manager was told yes; if it does not tell, when we first heard so."""
    own, managers = signals.own.choice, signals.managers
    if managers.at is not None or own is None or not own.is_granted:
        return managers.at
    return own.at if {*managers.names}.issubset(own.mirrored) else None


def _read_act(act: Choice, asked: Asked) -> str:
    # An override beats the browser's signal wherever the person goes, whoever asked.
    return act.source if act.source == "gpc-override" else asked.source or act.source


def _read_source(decision: Decision, own: OwnCookies) -> str:
    if decision.kind in {Kind.OPT_OUT_DEFAULT, Kind.COOKIELESS}:
        return ""
    if decision.reason in {Reason.MANAGER_GRANTED, Reason.MANAGER_DENIED}:
        return decision.source
    if decision.reason is Reason.COOKIE_GRANTED and own.choice is not None and own.choice.mirrored:
        return MANAGER + "+".join(own.choice.mirrored)
    known = _GRANTS if decision.state is State.GRANTED else _REFUSALS
    return known.get(decision.reason, "")


def _user_state(decision: Decision, core: Core) -> ActState:
    if not decision.is_granted:
        return ActState.DENIED
    return ActState.GRANTED if core.has_account_grants else ActState.LIFTED
