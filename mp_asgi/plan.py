"""Decide which cookies a response carries, and why each of them may.

RULES section 1, rule 7: acts always; renewals only where no faster answer can have overtaken
this one.
"""

from typing import Final

from .consent.choice import Choice, mirror_source
from .consent.policy import Decision, Reason, State
from .context import RequestContext
from .core import Core
from .identity import Visitor
from .jar import SCRIPT_COOKIE, Jar
from .page_side import PageSide
from .readers import Said
from .response import CookiePlan
from .settings import COOKIE_MAX_AGE
from .visit import Write

_BY_MANAGER: Final = frozenset({Reason.MANAGER_GRANTED, Reason.MANAGER_DENIED})


class Outcome:
    """What a request came to when its response started.

    Attributes:
        decision: Final.
        act: The choice made in this request, if the consent cookie must learn of it.
        visitor: Who it was, if anybody asked.
        write: Why the ID cookie must be written or deleted.
    """

    __slots__ = ("act", "decision", "visitor", "write")

    def __init__(
        self, decision: Decision, act: Choice | None, visitor: Visitor | None, write: Write
    ) -> None:
        self.decision = decision
        self.act = act
        self.visitor = visitor
        self.write = write


class Planner:
    """Make the plan of one response.

    Args:
        core: The rules of the process.
        context: When the request came, to which host, and whether a person opened a page.
        jar: Our cookies as they came.
    """

    __slots__ = ("_context", "_core", "_head", "_is_quick", "_is_secure", "_jar", "_now")

    def __init__(self, core: Core, context: RequestContext, jar: Jar) -> None:
        self._core = core
        self._context = context
        self._head = head = context.head
        self._jar = jar
        self._is_secure = context.is_secure
        now = core.clock()
        self._now = int(now)
        self._is_quick = head.is_quick(now)

    def make(self, outcome: Outcome) -> CookiePlan:
        """Answer which cookies to set, to renew and to delete."""
        plan = CookiePlan()
        if outcome.decision.reason is Reason.WITHDRAWN:
            return plan  # cookies of before a denial: a faster response has written newer ones
        cookies = plan.acts if outcome.write is Write.ACT else plan.others
        if outcome.decision.is_granted or outcome.decision.reason is Reason.ACCOUNT_DENIED:
            self._plan_visitor(outcome, plan, cookies)
        elif outcome.write is not Write.NOTHING:
            style, is_secure = self._core.id_style, self._is_secure
            cookies.extend(
                style.render_deletion(name, is_secure=is_secure) for name in self._jar.id_names
            )
        self._plan_consent(outcome, plan)
        self._plan_page(outcome, plan)
        return plan

    def _plan_page(self, outcome: Outcome, plan: CookiePlan) -> None:
        core, decision = self._core, outcome.decision
        if core.browser is None or core.page_ids is None:
            return
        page = PageSide(core.browser, core.page_ids, self._context, self._may_maintain)
        page.follow_decision(decision, outcome.act, plan)
        visitor, known = outcome.visitor, self._jar.visitor
        if not core.settings.share_id or not decision.is_granted or visitor is None:
            return
        if plan.has_id or (known is not None and known.device_id == visitor.device_id):
            page.share(visitor, core.mode, plan)

    def _plan_visitor(self, outcome: Outcome, plan: CookiePlan, cookies: list[bytes]) -> None:
        visitor, write = outcome.visitor, outcome.write
        if visitor is None:
            return
        is_due = write >= Write.PASSIVE
        is_due = is_due or (write is Write.LATE and self._is_quick)
        if is_due or (not self._jar.is_visitor_current and self._may_maintain()):
            cookies.append(self._render_id(visitor))
            plan.has_id = True

    def _render_id(self, visitor: Visitor) -> bytes:
        core = self._core
        keeps_user = core.settings.identify_from is None
        token = core.id_signer.sign(visitor.render(keeps_user=keeps_user))
        # Counted from the first issue, never slid: 13 months are 13 months.
        max_age = min(COOKIE_MAX_AGE, visitor.issued + COOKIE_MAX_AGE - self._now)
        return core.id_style.render(token, max_age, is_secure=self._is_secure)

    def _plan_consent(self, outcome: Outcome, plan: CookiePlan) -> None:
        own, act, decision = self._jar.own, outcome.act, outcome.decision
        if act is not None:
            plan.acts.append(self._render_choice(act))
            if act.is_granted and own.is_denied_by_script:
                style = self._core.script_style
                plan.acts.append(style.render_deletion(SCRIPT_COOKIE, is_secure=self._is_secure))
        elif decision.reason is Reason.UNREADABLE and own.is_unreadable:
            plan.others.append(self._replace_unreadable(is_denied=decision.state is State.DENIED))
        elif self._jar.managers.present:
            self._plan_mirror(decision, plan)
        elif own.choice is not None and not own.is_current and self._may_maintain():
            plan.others.append(self._render_choice(own.choice))

    def _replace_unreadable(self, *, is_denied: bool) -> bytes:
        """Under opt-out somebody's unreadable choice becomes a denial; else it goes away."""
        if is_denied:
            version = self._core.policy.version.name
            denial = Choice(False, version, self._now, revision=1, source="unreadable")
            return self._render_choice(denial)
        return self._delete_choice()

    def _plan_mirror(self, decision: Decision, plan: CookiePlan) -> None:
        """Keep what the consent manager says for requests on which its cookie is missing.

        Some are SameSite=Strict and never come with arrivals from other sites (RULES section 2,
        rule 1). A manager that took its cookie back takes the mirror with it.
        """
        own = self._jar.own.choice
        if decision.reason in _BY_MANAGER:
            mirror = self._mirror(decision, own)
            if mirror == own:
                self._jar.rest(mirror.at + self._core.policy.max_age / 2)
            elif self._may_mirror(mirror):
                plan.others.append(self._render_choice(mirror))
        elif own is not None and own.mirrored and self._is_over(own, decision):
            if self._may_maintain():
                plan.others.append(self._delete_choice())
        elif own is not None and not self._jar.own.is_current and self._may_maintain():
            plan.others.append(self._render_choice(own))

    def _is_over(self, mirror: Choice, decision: Decision) -> bool:
        """Whether the managers that are there have taken back what the mirror says."""
        managers = self._jar.managers
        if mirror.is_granted:
            # What asks again or cannot be read is no grant any more.
            is_there = not set(mirror.mirrored).isdisjoint(managers.present)
            return is_there and (decision.is_stale or managers.said is not Said.GRANTED)
        is_there = set(mirror.mirrored) <= set(managers.present)
        return is_there and managers.said is Said.NOTHING

    def _mirror(self, decision: Decision, own: Choice | None) -> Choice:
        """Answer the mirror of the managers that decided: the one that is there, if it still is."""
        managers, policy = self._jar.managers, self._core.policy
        told_at, source = managers.at or 0.0, mirror_source(self._find_mirrored(decision, own))
        same = (decision.is_granted, policy.version.name, source)
        half = policy.max_age / 2
        # A mirror counts for so long, but never longer than what it mirrors.
        latest = self._now
        if managers.until is not None:
            latest = min(latest, int(managers.until - policy.max_age))
        if (
            own is not None
            and (own.is_granted, own.version, own.source) == same
            # A browser's clock ahead of ours tells a time that nothing we write can reach.
            and (own.at >= min(int(told_at), latest) or told_at > self._now)
            and own.at <= latest
            and (self._now - own.at < half or own.at == latest)
            and self._jar.own.is_current
        ):
            return own
        at = int(told_at) if 0 <= self._now - told_at < half else self._now
        revision = (own.revision if own is not None else 0) + 1
        return Choice(decision.is_granted, policy.version.name, min(at, latest), revision, source)

    def _find_mirrored(self, decision: Decision, own: Choice | None) -> list[str]:
        """Answer the managers to mirror: those that decided, and who else had refused before."""
        managers = self._jar.managers
        names = list(managers.names)
        if own is not None and not own.is_granted and not decision.is_granted:
            absent = [name for name in own.mirrored if name not in managers.present]
            names += [name for name in absent if name in self._core.policy.managers]
        return sorted(names)

    def _may_mirror(self, mirror: Choice) -> bool:
        if mirror.is_granted:
            return self._may_maintain()
        # A denial brings back no ID, so a stop mark on one is no reason to wait.
        return self._is_quick_navigation()

    # --- our consent cookie -------------------------------------------------------------------

    def _delete_choice(self) -> bytes:
        style = self._core.consent_style
        wire_name = style.wire_name(is_secure=self._is_secure)
        return style.render_deletion(wire_name, is_secure=self._is_secure)

    def _render_choice(self, choice: Choice) -> bytes:
        token = self._core.consent_signer.sign(choice.render())
        max_age = max(1, min(COOKIE_MAX_AGE, choice.at + COOKIE_MAX_AGE - self._now))
        return self._core.consent_style.render(token, max_age, is_secure=self._is_secure)

    def _may_maintain(self) -> bool:
        """A top-level navigation answered within 2 s, and no stop mark on the ID."""
        visitor, core = self._jar.visitor, self._core
        if not self._is_quick_navigation():
            return False
        if visitor is None:
            return True
        return core.keys.device_key(visitor.device_id) not in core.stops.at

    def _is_quick_navigation(self) -> bool:
        return self._is_quick and self._head.is_navigation()
