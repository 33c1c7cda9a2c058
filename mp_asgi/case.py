"""Follow how the decision and the visitor of one request change: by acts and by late answers.

Opened by the first of them; a request that only tracks has none. It knows nothing of what was
tracked: the exchange does, and asks under the lock.
"""

from .consent.hearing import Hearing
from .consent.policy import DISABLED, AppAnswer, Decision, Reason, State
from .consent.signals import Said, is_cross_site
from .core import Core
from .head import RequestHead
from .identity import Anonymous, IdentityMode, Visitor
from .jar import Jar
from .late import ask_consent, ask_user
from .plan import Outcome, Planner
from .response import CookiePlan
from .visit import Visit, Write


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
                own=self._jar.own,
                withdrawn_at=self._jar.withdrawn_at,
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

    def record(self, *, is_granted: bool) -> None:
        """Take the visitor's choice."""
        hearing = self.hear()
        hearing.record(is_granted=is_granted, now=self._core.clock())
        self.decision = hearing.decision

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
        found = {keys.device_key(item.device_id) for item in visitors}
        found |= {keys.user_key(user) for user in users if user is not None}
        now = self._core.clock()
        self._core.stops.add(found, now, is_act=self.has_acted)
        if self._jar.verified:
            self._jar.stop(now if self.has_acted else self._jar.withdrawn_at)
        if found:
            self._core.sink.stop(sorted(found), now)

    def is_stopping(self) -> bool:
        """Whether a denial found somebody whose events may still wait."""
        is_denied = self.decision.state is State.DENIED and self.decision is not DISABLED
        # Cookies of before a withdrawal were stopped then; what came later is another visitor's.
        is_news = self.decision.reason is not Reason.WITHDRAWN
        return is_denied and is_news and (self.has_acted or bool(self._jar.verified))

    # --- identity -----------------------------------------------------------------------------

    def open_visit(self) -> Visit:
        """Answer the identity side."""
        if self.visit is None:
            self.visit = Visit(self._core, self._jar, self.visitor)
        return self.visit

    def current(self) -> Visitor:
        """Answer who this is: as the cookie says, or newly minted."""
        self.visitor = visitor = self.open_visit().current()
        return visitor

    def leave_unmarked(self) -> Visitor:
        """Take a device of its own for a user whose mark no response could carry."""
        self.visitor = visitor = self.open_visit().leave_unmarked()
        return visitor

    def identify(self, user_id: str) -> None:
        """Note who the app says it is, granted or not."""
        visit = self.open_visit()
        visit.is_identified = True
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
        is_over = self.decision.state is State.DENIED or self.decision.is_stale
        is_deleted = is_over and bool(self._jar.id_names)
        self.visitor = None
        if self.visit is not None or is_deleted:
            write = Write.PASSIVE if is_deleted else Write.NOTHING
            self.open_visit().end(Write.ACT if self.has_acted else write)

    def plan(self, *, is_secure: bool) -> CookiePlan | None:
        """Answer the cookies of the response, None without any."""
        visit, hearing = self.visit, self.hearing
        write = visit.write if visit is not None else Write.NOTHING
        act = hearing.act if hearing is not None and hearing.is_recorded else None
        if act is None and write is Write.NOTHING and not self._jar.needs_care:
            return None
        planner = Planner(self._core, self._head, self._jar, is_secure=is_secure)
        return planner.make(Outcome(self.decision, act, self.visitor, write))
