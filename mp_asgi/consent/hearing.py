"""Follow what one request says about consent, and the decision as it stands now."""

from collections.abc import Mapping
from dataclasses import replace

from mp_asgi.events import UNTOLD, Asked
from mp_asgi.head import RequestHead
from mp_asgi.readers import Said
from mp_asgi.settings import Settings

from .choice import Choice
from .policy import DISABLED, NO_ACCOUNT, AccountAnswer, AppAnswer, ConsentPolicy, Decision, Signals
from .signals import OwnCookies, has_one, is_cross_site, read_consent_header


class Hearing:
    """The consent side of one request.

    Args:
        settings: What is honoured, and whether anything is.
        policy: The rules.
        head: The request.
        cookies: What its cookies say; the rest is added to it.
        consent_header: Name of the application's header.
        now: Seconds since the epoch.

    Attributes:
        decision: As it stands after everything heard so far.
        is_recorded: A choice was made in this request that the cookie does not hold yet.
        acted_at: When it was made, seconds since the epoch; 0 without one.
        asked: How the visitor came to it.
    """

    __slots__ = (
        "_head",
        "_policy",
        "_settings",
        "_signals",
        "acted_at",
        "asked",
        "decision",
        "is_recorded",
    )

    def __init__(
        self,
        settings: Settings,
        policy: ConsentPolicy,
        head: RequestHead,
        *,
        cookies: Signals,
        consent_header: bytes,
        now: float,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._head = head
        self._signals = cookies
        self.is_recorded = False
        self.acted_at = 0.0
        self.asked = UNTOLD
        if not settings.enabled:
            self.decision: Decision = DISABLED
            return
        if head.signals:
            self._read_headers(head.signals, consent_header)
        self.decision = policy.decide(self._signals, now)

    def _read_headers(self, headers: Mapping[bytes, bytes], consent_header: bytes) -> None:
        signals, settings = self._signals, self._settings
        signals.has_gpc = settings.honor_gpc and has_one(headers.get(b"sec-gpc"))
        signals.has_dnt = settings.honor_dnt and has_one(headers.get(b"dnt"))
        said = read_consent_header(headers.get(consent_header))
        # RULES section 2, 1: a denial always counts; a grant only with a configured header.
        if said is Said.DENIED or (settings.consent_header and said is not Said.NOTHING):
            signals.header = said
            signals.is_cross_site = is_cross_site(self._head.header)

    @property
    def own(self) -> OwnCookies:
        """Our consent cookies as they came."""
        return self._signals.own

    @property
    def signals(self) -> Signals:
        """Everything heard so far."""
        return self._signals

    @property
    def act(self) -> Choice | None:
        """The choice made in this request."""
        return self._signals.act

    def may_grant(self, *, overrides_gpc: bool) -> bool:
        """Whether a grant counts here: the browser's own denial is beaten only on purpose."""
        signals = self._signals
        return not signals.has_dnt and (overrides_gpc or not signals.has_gpc)

    def record(self, *, is_granted: bool, now: float, asked: Asked = UNTOLD) -> None:
        """Take the visitor's choice. Repeating an answer that still counts records nothing."""
        own = self._signals.own.choice
        before = self._signals.act or own
        has_overridden = is_granted and self._signals.has_gpc
        act = Choice(
            is_granted=is_granted,
            version=self._policy.version.name,
            at=int(now if is_granted else self._stamp_denial(now)),
            revision=(before.revision if before else 0) + 1,
            source="gpc-override" if has_overridden else "own",
        )
        if not self.is_recorded and own is not None and self._policy.is_repeated(act, own, now):
            act = own
        else:
            self.is_recorded = True
            self.acted_at, self.asked = now, asked
        self._signals.act = act
        self.decision = self._policy.decide(self._signals, now)

    def _stamp_denial(self, now: float) -> float:
        """Answer a time behind what the manager's cookie claims: it was told yes before."""
        managers = self._signals.managers
        is_ahead = managers.said is Said.GRANTED and managers.at is not None
        return max(now, (managers.at or 0.0) + 1) if is_ahead else now

    def hear_app(self, answer: AppAnswer, now: float) -> None:
        """Take the app's stored answer; a choice made in this request is newer."""
        self._signals.app = answer
        self.decision = self._policy.decide(self._signals, now)

    def decide_for_device(self, now: float) -> Decision:
        """Answer what it would come to if no account spoke."""
        return self._policy.decide(replace(self._signals, account=NO_ACCOUNT), now)

    def hear_account(self, answer: AccountAnswer, now: float) -> None:
        """Take what the ledger says of the user; a choice made in this request is newer."""
        self._signals.account = answer
        self.decision = self._policy.decide(self._signals, now)
