"""Say what lets a job track somebody: what the app knows, what the ledger holds, or what a token
carries out of their own request.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

from .consent.policy import (
    DISABLED,
    NO_ACCOUNT,
    AccountAnswer,
    AppAnswer,
    Decision,
    Reason,
    Signals,
    State,
)
from .consent.signals import NO_COOKIES
from .core import Core
from .errors import InvalidEvent
from .events import ActState, Standing
from .identity import Visitor
from .late import read_answer
from .readers import Said
from .tokens import JobToken

NO_CONSENT: Final = "no_consent"

LookUp = Callable[[Collection[bytes]], Mapping[bytes, Standing]]
"""Answers where subjects stand in the ledger; those without a record are absent. May block."""


class Mandate(NamedTuple):
    """What lets a job track, as it was given.

    Attributes:
        decision: Granted or not.
        at: Seconds since the epoch: what is withdrawn after it, ends it for good. It ends by
            itself as soon as the outbox may have forgotten that.
        agreed_at: When the person agreed, as far as that is told; 0 if it is not.
        until: Seconds since the epoch; after that it does not count.
        why_not: The counter's label where it never counts.
    """

    decision: Decision
    at: float
    agreed_at: float = 0.0
    until: float = math.inf
    why_not: str = ""

    def find_refusal(self, core: Core, visitor: Visitor) -> str:
        """Answer the label of what forbids to track now; empty if nothing does. Under the lock."""
        if self.why_not:
            return self.why_not
        # What it tracks counts as old as it is. Of that age stop marks are deleted: it would meet
        # none.
        if core.clock() > min(self.until, self.at + core.settings.outbox_max_age):
            return "token_expired"
        keys = _keys_of(core, visitor)
        is_over = self._is_withdrawn(core, visitor, keys) or not self._is_allowed(core, keys)
        return Reason.WITHDRAWN.value if is_over else ""

    def _is_withdrawn(self, core: Core, visitor: Visitor, keys: Collection[bytes]) -> bool:
        """Whether this process saw a denial that the mandate does not survive."""
        stops = core.stops
        if any(stops.at.get(key, stops.forgotten_until) >= self.at for key in keys):
            return True
        if core.keys.device_key(visitor.device_id) in stops.at:
            return True  # a denied device is over
        # What the app says without a time proves nothing against what the person did here.
        acts = [stops.withdrawn_at(key) for key in keys]
        return any(at is not None and at >= self.agreed_at for at in acts)

    def _is_allowed(self, core: Core, keys: Collection[bytes]) -> bool:
        """Whether the ledger lets it pass, as far as it is known here; the sender asks it again."""
        if core.accounts is None:
            return True
        known = [core.accounts.get(key) for key in keys]
        return all(standing is None or standing.allows(self.at) for standing in known)


def refuse_all(core: Core, why_not: str) -> Mandate:
    """Answer what lets nothing pass, and says why."""
    nothing = Decision(State.UNKNOWN, Reason.NO_CHOICE, "process")
    return Mandate(nothing, core.clock(), why_not=why_not)


def trust_app(core: Core, visitor: Visitor, app: AppAnswer, look_up: LookUp | None) -> Mandate:
    """Answer what lets a job track that says itself what it knows.

    The rules are the requests': a denial in the ledger wins, a grant has an age and a notice.

    Args:
        core: The rules of the process.
        visitor: Who it is about.
        app: What the app knows of their choice.
        look_up: Asks the ledger for what this process does not remember; None where nobody may
            wait for it.
    """
    now = core.clock()
    known = _find_standings(core, visitor, look_up)
    signals = Signals(own=NO_COOKIES, app=app, account=_read_account(core, visitor, known))
    decision = core.policy.decide(signals, now) if core.settings.enabled else DISABLED
    agreed_at = max([app.at or 0.0, *(standing.at for standing in known.values())])
    return Mandate(decision, now, agreed_at, why_not=_label(decision))


def trust_token(core: Core, token: JobToken) -> Mandate:
    """Answer what lets a job track that has a token of the person's request."""
    if not core.settings.enabled:
        return refuse_all(core, _label(DISABLED))
    version = core.policy.version
    is_current = token.version == version.name and token.made_at >= version.since
    decision = Decision(State.GRANTED, Reason.JOB_GRANTED, "token", token.kind)
    return Mandate(decision, token.made_at, token.made_at, token.until if is_current else 0.0)


def read_consent(consent: object) -> AppAnswer:
    """Answer what an app says of somebody's choice.

    Raises:
        InvalidEvent: `invalid_consent`.
    """
    try:
        return read_answer(consent)
    except TypeError as error:
        raise InvalidEvent("invalid_consent", f"This is no consent: {error}.") from error


def _find_standings(
    core: Core, visitor: Visitor, look_up: LookUp | None
) -> Mapping[bytes, Standing]:
    if core.accounts is None:
        return {}
    keys = _keys_of(core, visitor)
    with core.lock:
        found = {key: core.accounts.get(key) for key in keys}
    known = {key: standing for key, standing in found.items() if standing is not None}
    missing = [key for key in keys if key not in known]
    return known if look_up is None or not missing else {**look_up(missing), **known}


def _read_account(core: Core, visitor: Visitor, known: Mapping[bytes, Standing]) -> AccountAnswer:
    """Answer what the ledger says: any denial, else a grant that speaks for this person."""
    if any(standing.is_denied for standing in known.values()):
        return AccountAnswer(Said.DENIED)
    keys = core.keys
    granting = [keys.user_key(visitor.user_id)] if core.has_account_grants else []
    for key in (*granting, keys.device_key(visitor.device_id)):
        standing = known.get(key)
        if standing is not None and standing.state is ActState.GRANTED:
            return AccountAnswer(Said.GRANTED, standing.at, standing.version)
    return NO_ACCOUNT


def _keys_of(core: Core, visitor: Visitor) -> list[bytes]:
    keys = core.keys
    both = keys.device_key(visitor.device_id), keys.user_key(visitor.user_id)
    return [key for key in both if key]


def _label(decision: Decision) -> str:
    if decision.is_granted:
        return ""
    return NO_CONSENT if decision.reason is Reason.NO_CHOICE else decision.reason.value
