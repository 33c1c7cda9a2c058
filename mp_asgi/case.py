"""Follow how the decision and the visitor of one request change: by acts and by late answers.

Opened by the first of them; a request that only tracks has none. It knows nothing of what was
tracked: the exchange does, and asks under the lock.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from .accounts import Accounts
from .consent.hearing import Hearing
from .consent.policy import (
    DISABLED,
    NO_ACCOUNT,
    AccountAnswer,
    AppAnswer,
    Decision,
    Default,
    Kind,
    Reason,
    State,
)
from .consent.signals import is_cross_site
from .context import RequestContext
from .core import Core
from .events import Act, ActState, Asked
from .grounds import Grounds
from .head import RequestHead
from .identity import Anonymous, IdentityMode, Visitor
from .jar import Jar
from .late import ask_consent, ask_user
from .meeting import read_first_touch
from .plan import Outcome, Planner
from .readers import Said
from .response import CookiePlan
from .visit import Visit, Write, find_adopted

_NOT_HEARD_OF: Final = AccountAnswer(Said.UNREADABLE)
_OF_PEOPLE: Final = frozenset({Reason.SCRIPT_DENIED, Reason.GPC, Reason.DNT})


class Case:
    """The hearing and the visit of one request.

    Attributes:
        decision: As it stands after everything heard so far.
        visitor: Who it is, once something needed to know.
        hearing: The consent side; None while nobody acted and nothing speaks but cookies.
        visit: The identity side; None while nothing changed.
    """

    __slots__ = ("_core", "_head", "_jar", "decision", "hearing", "visit", "visitor")

    def __init__(self, core: Core, head: RequestHead, jar: Jar, decision: Decision) -> None:
        self._core = core
        self._head = head
        self._jar = jar
        self.decision = decision
        self.visitor: Visitor | None = None
        self.hearing: Hearing | None = None
        self.visit: Visit | None = None

    @property
    def has_acted(self) -> bool:
        """Whether the visitor chose in this request."""
        return self.hearing is not None and self.hearing.act is not None

    # --- consent ------------------------------------------------------------------------------

    def hear(self) -> Hearing:
        """Answer the consent side, with the headers that speak of it."""
        if self.hearing is None:
            core = self._core
            self.hearing = Hearing(
                core.settings,
                core.policy,
                self._head,
                cookies=self._jar.signals(
                    core.read_default(self._head, has_cookies=self._jar.has_own)
                ),
                consent_header=core.heads.consent_header,
                now=core.clock(),
            )
        return self.hearing

    def may_act(self, *, is_trusted: bool) -> bool:
        """Whether a choice counts here: not where another site made the browser ask for it."""
        if not self._core.settings.enabled:
            return False
        if not is_trusted and is_cross_site(self._head.header):
            self._core.sink.count("cross_site")
            return False
        return True

    def may_grant(self, *, overrides_gpc: bool) -> bool:
        """Whether a grant counts here: the browser's own denial is beaten only on purpose."""
        if self.hear().may_grant(overrides_gpc=overrides_gpc):
            return True
        self._core.sink.count("refused", 1, "grant_without_override")
        return False

    def record(self, *, is_granted: bool, asked: Asked) -> None:
        """Take the visitor's choice."""
        hearing = self.hear()
        hearing.record(is_granted=is_granted, asked=asked, now=self._core.clock())
        self.decision = hearing.decision

    def hear_account(self, user_id: str | None) -> None:
        """Take what the ledger says of the user, as far as this process knows."""
        hearing = self.hear()
        hearing.hear_account(self._read_account(user_id), self._core.clock())
        self.decision = hearing.decision

    def _read_account(self, user_id: str | None) -> AccountAnswer:
        core = self._core
        if core.accounts is None or user_id is None:
            return NO_ACCOUNT
        standing = core.accounts.get(core.keys.user_key(user_id))
        if standing is None:
            return _NOT_HEARD_OF
        if standing.is_denied:
            return AccountAnswer(Said.DENIED, standing.at)
        if core.has_account_grants and standing.state is ActState.GRANTED:
            return AccountAnswer(Said.GRANTED, standing.at, standing.version)
        return NO_ACCOUNT

    def ask_consent(self, connection: object) -> AppAnswer | None:
        """Ask for the app's stored answer (`consent_from`), where it could change something."""
        consent_from = self._core.settings.consent_from
        # A choice made in this request is newer, and a denial needs no second opinion.
        if consent_from is None or self.has_acted or self.decision.state is State.DENIED:
            return None
        return ask_consent(consent_from, connection, self._core.sink)

    def hear_nobody(self) -> None:
        """Miss the app's stored answer: unread, it may be a denial."""
        if self._core.settings.consent_from is not None:
            self.hear_app(AppAnswer(Said.UNREADABLE))

    def hear_app(self, answer: AppAnswer) -> None:
        """Take the app's stored answer; a choice made in this request stays the stronger one."""
        hearing = self.hear()
        hearing.hear_app(answer, self._core.clock())
        self.decision = hearing.decision

    def stop(self, late_user: str | None = None) -> None:
        """Forget this device's and this user's waiting events (RULES section 2, rule 3)."""
        keys = self._core.keys
        visitors = [*self._jar.verified]
        if self.visitor is not None:
            visitors.append(self.visitor)
        users = {late_user}
        if self.visit is not None:
            # Whom a reset or another login left behind may have handed over already.
            visitors += self.visit.left
            users.add(self.visit.user_id)
        users |= {item.user_id for item in visitors}
        devices = {keys.device_key(item.device_id) for item in visitors} - {b""}
        devices |= {keys.device_key(device) for device in self._find_page_devices()}
        accounts = {keys.user_key(user) for user in users if user is not None}
        found = devices | accounts
        # A manager, a gateway and the app's own record know best whom they speak of: theirs stay
        # with the device, or nobody could ever take them back.
        is_ours = self.has_acted or self.decision.reason in _OF_PEOPLE
        self._file(devices, accounts if is_ours else ())
        now = self._core.clock()
        self._core.stops.add(found, now, is_act=self.has_acted)
        if self._jar.verified:
            self._jar.stop(now if self.has_acted else self._jar.withdrawn_at)
        if found:
            self._core.sink.stop(sorted(found), now)

    def stop_counting(self) -> None:
        """Forget at a denial what waits of somebody who was only counted. The ID itself goes on:
        others of their network share it, and only this one refused.
        """
        core, now = self._core, self._core.clock()
        is_denied = self.decision.state is State.DENIED and self.decision is not DISABLED
        if not is_denied or core.settings.cookieless == "off":
            return
        if self.hear().signals.default is not Default.COOKIELESS:
            return
        visitor = core.daily.visitor(self._head, now)
        core.sink.stop([core.keys.device_key(visitor.device_id)], now)

    def is_stopping(self) -> bool:
        """Whether a denial found somebody whose events may still wait."""
        is_denied = self.decision.state is State.DENIED and self.decision is not DISABLED
        # An account's denial leaves the device its own (RULES section 2, rule 1).
        is_denied = is_denied and self.decision.reason is not Reason.ACCOUNT_DENIED
        # Cookies of before a withdrawal were stopped then; what came later is another visitor's.
        is_news = self.decision.reason is not Reason.WITHDRAWN
        has_device = bool(self._jar.verified) or bool(self._find_page_devices())
        return is_denied and is_news and (self.has_acted or has_device)

    def _find_page_devices(self) -> Sequence[str]:
        """Answer whom this browser may have been before it got an ID cookie of ours."""
        adopted = find_adopted(self._core, self._head)
        return () if adopted is None else (adopted.device_id,)

    # --- what the ledger gets -----------------------------------------------------------------

    def file_grant(self, user_id: str | None) -> None:
        """Tell the ledger of a grant made in this request, or read for the first time."""
        core, visitor = self._core, self.visitor
        if core.accounts is None or visitor is None:
            return
        users = {user for user in (user_id, visitor.user_id) if user is not None}
        devices = {core.keys.device_key(visitor.device_id)}
        # Only an act is an answer for the account, too.
        self._file(devices, {core.keys.user_key(user) for user in users if self.has_acted})

    def file_signal(self, late_user: str | None) -> None:
        """Tell the ledger that a known user's browser objects (11 CCR 7025 (c)(1))."""
        user_id = late_user or (self.visit.user_id if self.visit is not None else None)
        if user_id is not None:
            self._file((), {self._core.keys.user_key(user_id)})

    def _file(self, devices: Iterable[bytes], users: Iterable[bytes]) -> None:
        core, accounts = self._core, self._core.accounts
        if accounts is None:
            return
        hearing = self.hear()
        grounds = Grounds(
            core,
            self._head,
            self.decision,
            hearing.signals,
            at=hearing.acted_at or core.clock(),
            asked=hearing.asked,
        )
        if grounds.is_worth_keeping:
            for act in (*grounds.of_devices(devices), *grounds.of_users(users)):
                self._record(act, accounts)

    def _record(self, act: Act, accounts: Accounts) -> None:
        # What is remembered here may be old or missing: an act is compared by the ledger itself.
        if self.has_acted or act.is_news(accounts.get(act.key)):
            accounts.learn({act.key: act.standing()})
            self._core.sink.record(act)

    # --- identity -----------------------------------------------------------------------------

    def open_visit(self) -> Visit:
        """Answer the identity side."""
        if self.visit is None:
            self.visit = Visit(self._core, self._head, self._jar, self.visitor)
        return self.visit

    def current(self) -> Visitor:
        """Answer who this is: as the cookie says, or newly minted."""
        self.visitor = visitor = self.open_visit().current()
        return visitor

    def identify(self, user_id: str, *, is_new: bool) -> None:
        """Note who the app says it is, granted or not."""
        visit = self.open_visit()
        visit.is_identified = True
        visit.is_new_user = is_new or (visit.is_new_user and visit.user_id == user_id)
        visit.user_id = user_id

    def bind(self, user_id: str, write: Write) -> bool:
        """Make the user the visitor's. Return whether the device ID met its first user."""
        visit = self.open_visit()
        is_first = visit.bind(user_id, write)
        self.visitor = visit.current()
        return is_first

    def reset(self, *, new_device: bool | None, is_known: bool) -> None:
        """Forget the user; see `Visit.reset`."""
        visit = self.open_visit()
        visit.is_identified = True
        visit.user_id = None
        visit.reset(new_device=new_device, is_known=is_known)
        self.visitor = visit.visitor

    def ask_user(self, connection: object) -> str | Anonymous | None:
        """Ask the app who this is (`identify_from`), unless it said so itself."""
        identify_from = self._core.settings.identify_from
        is_asked = self.visit is None or not self.visit.is_identified
        if identify_from is None or not is_asked:
            return None
        return ask_user(identify_from, connection, self._core.sink)

    def leave_user(self) -> None:
        """Certainly nobody: in simplified mode a device that met a user gets a new ID."""
        visitor = self.visitor
        is_marked = visitor is not None and visitor.owner_mark
        if is_marked and self._core.mode is IdentityMode.SIMPLIFIED:
            visit = self.open_visit()
            visit.renew(Write.LATE)
            self.visitor = visit.visitor

    # --- what the response carries ------------------------------------------------------------

    def keep_visitor(self) -> Visitor:
        """Mint at the grant and write it with it: the next page's parallel requests share it."""
        visitor, visit = self.current(), self.open_visit()
        if visit.is_unsaved:
            visit.write = Write.ACT
        return visitor

    def give_up_unsaved(self) -> None:
        """Count an ID that no response carried: the next request mints another."""
        if self.visit is not None and self.visit.is_unsaved:
            self.visit.is_unsaved = False
            self._core.sink.count("unpersisted")

    def end_visit(self) -> None:
        """Be nobody any more; a refused or outdated grant deletes the ID cookie."""
        self.visitor = None
        if self.decision.reason is Reason.ACCOUNT_DENIED:
            return  # the device stays its own, and its cookie learns who is there
        is_over = self.decision.state is State.DENIED or self.decision.is_stale
        is_deleted = is_over and bool(self._jar.id_names)
        if self.visit is not None or is_deleted:
            write = Write.PASSIVE if is_deleted else Write.NOTHING
            self.open_visit().end(Write.ACT if self.has_acted else write)

    def plan(self, context: RequestContext | None) -> CookiePlan | None:
        """Answer the cookies of the response, None without any."""
        visit, hearing = self.visit, self.hearing
        write = visit.write if visit is not None else Write.NOTHING
        act = hearing.act if hearing is not None and hearing.is_recorded else None
        is_quiet = act is None and write is Write.NOTHING and not self._jar.needs_care
        if context is None or (is_quiet and self._core.browser is None):
            return None
        if self.decision.is_granted and not self.has_acted and visit is not None:
            self.file_grant(None)  # the first that we hear of a grant made elsewhere
        planner = Planner(self._core, context, self._jar)
        visitor = self._whom_to_write()
        if visitor is not None and not visitor.owner_mark and visit is not None and visit.is_minted:
            # Remembered until the device meets a user.
            visitor = visitor.with_first_touch(read_first_touch(self._core, context))
        return planner.make(Outcome(self.decision, act, visitor, write))

    def _whom_to_write(self) -> Visitor | None:
        """Answer who the ID cookie may name after this response."""
        if self.decision.kind is Kind.COOKIELESS:
            return None
        if self.decision.reason is Reason.ACCOUNT_DENIED and self.visit is not None:
            # Nothing of this user leaves, but whoever is next must not be taken for them.
            is_allowed = self.hear().decide_for_device(self._core.clock()).is_granted
            return self.visit.visitor if is_allowed else None
        return self.visitor
