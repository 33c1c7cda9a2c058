"""Decide which cookies a response carries, and why each of them may.

RULES section 1, rule 7: acts always; renewals only where no faster answer can have overtaken
this one.
"""

from .consent.choice import Choice
from .consent.hearing import Hearing
from .consent.policy import Reason, State
from .core import Core
from .head import RequestHead
from .identity import Visitor
from .jar import SCRIPT_COOKIE, Jar
from .response import CookiePlan
from .settings import COOKIE_MAX_AGE
from .visit import Visit, Write


def make_plan(
    core: Core,
    head: RequestHead,
    jar: Jar,
    *,
    hearing: Hearing,
    visit: Visit,
    is_secure: bool,
) -> CookiePlan:
    """Answer which cookies a response sets, renews and deletes."""
    return _Planner(core, head, jar, hearing=hearing, visit=visit, is_secure=is_secure).make()


class _Planner:
    __slots__ = ("_core", "_head", "_hearing", "_is_secure", "_jar", "_now", "_visit")

    def __init__(
        self,
        core: Core,
        head: RequestHead,
        jar: Jar,
        *,
        hearing: Hearing,
        visit: Visit,
        is_secure: bool,
    ) -> None:
        self._core = core
        self._head = head
        self._jar = jar
        self._hearing = hearing
        self._visit = visit
        self._is_secure = is_secure
        self._now = int(core.clock())

    def make(self) -> CookiePlan:
        plan = CookiePlan()
        self._plan_id(plan)
        self._plan_consent(plan)
        return plan

    def _plan_id(self, plan: CookiePlan) -> None:
        visit, decision = self._visit, self._hearing.decision
        cookies = plan.acts if visit.write is Write.ACT else plan.others
        if decision.is_granted and visit.visitor is not None:
            must_renew = not self._jar.is_visitor_current and self._may_maintain()
            if self._may_write(visit.write) or must_renew:
                cookies.extend(self._render_id(visit.visitor))
        elif decision.state is State.DENIED or decision.is_stale:
            style = self._core.id_style
            cookies.extend(
                style.render_deletion(name, is_secure=self._is_secure)
                for name in self._jar.id_names
            )

    def _render_id(self, visitor: Visitor) -> list[bytes]:
        core = self._core
        keeps_user = core.settings.identify_from is None
        token = core.id_signer.sign(visitor.render(keeps_user=keeps_user))
        # Counted from the first issue, never slid: 13 months are 13 months.
        max_age = min(COOKIE_MAX_AGE, visitor.issued + COOKIE_MAX_AGE - self._now)
        return [core.id_style.render(token, max_age, is_secure=self._is_secure)]

    def _plan_consent(self, plan: CookiePlan) -> None:
        hearing = self._hearing
        own, act, decision = hearing.own, hearing.act, hearing.decision
        if act is not None and hearing.is_recorded:
            plan.acts.append(self._render_choice(act))
            if act.is_granted and own.is_denied_by_script:
                style = self._core.script_style
                plan.acts.append(style.render_deletion(SCRIPT_COOKIE, is_secure=self._is_secure))
        elif decision.reason is Reason.UNREADABLE and own.is_unreadable:
            plan.others.append(self._replace_unreadable(is_denied=decision.state is State.DENIED))
        elif own.choice is not None and not own.is_current and self._may_maintain():
            plan.others.append(self._render_choice(own.choice))

    def _replace_unreadable(self, *, is_denied: bool) -> bytes:
        if is_denied:
            return self._render_choice(
                Choice(
                    is_granted=False,
                    version=self._core.policy.version.name,
                    at=self._now,
                    revision=1,
                    source="unreadable",
                )
            )
        style = self._core.consent_style
        return style.render_deletion(
            style.wire_name(is_secure=self._is_secure), is_secure=self._is_secure
        )

    def _render_choice(self, choice: Choice) -> bytes:
        token = self._core.consent_signer.sign(choice.render())
        max_age = max(1, min(COOKIE_MAX_AGE, choice.at + COOKIE_MAX_AGE - self._now))
        return self._core.consent_style.render(token, max_age, is_secure=self._is_secure)

    def _may_write(self, write: Write) -> bool:
        return write >= Write.PASSIVE or (write is Write.LATE and self._head.is_quick(self._now))

    def _may_maintain(self) -> bool:
        """A top-level navigation answered within 2 s, and no stop mark on the ID."""
        visitor = self._jar.visitor
        return (
            self._head.is_navigation()
            and self._head.is_quick(self._now)
            and not (
                visitor is not None
                and self._core.sink.is_stopped(self._core.keys.device_key(visitor.device_id))
            )
        )
