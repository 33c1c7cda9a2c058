"""Keep mixpanel-browser's cookies together with ours: what we decided, and who the visitor is.

RULES section 2, rule 3: a denial clears both sides. Our ID counts where the two differ.
"""

from collections.abc import Callable
from typing import Final

from .adopter import PageIds
from .consent.choice import Choice
from .consent.policy import Decision, Kind, Reason, State
from .context import RequestContext
from .cookies import Scanner
from .identity import IdentityMode, Visitor
from .readers.mixpanel_browser import OPTED_OUT
from .response import CookiePlan
from .sharing import BrowserCookies, find_browser_ids

MAX_COPIES: Final = 2  # of a cookie that we can replace: its domain's and this host's


class PageSide:
    """Plan the page's cookies of one response.

    Args:
        browser: Writes them.
        page_ids: Reads those that came.
        context: Of the request.
        may_maintain: Answers whether this response may renew what no act asks for.
    """

    __slots__ = ("_browser", "_header", "_host", "_is_secure", "_may_maintain", "_page_ids")

    def __init__(
        self,
        browser: BrowserCookies,
        page_ids: PageIds,
        context: RequestContext,
        may_maintain: Callable[[], bool],
    ) -> None:
        self._browser = browser
        self._page_ids = page_ids
        self._header = context.head.cookie
        self._host = (context.head.header(b"host") or b"").decode("latin-1")
        self._is_secure = context.is_secure
        self._may_maintain = may_maintain

    def follow_decision(self, decision: Decision, act: Choice | None, plan: CookiePlan) -> None:
        """Tell the page what was decided."""
        if act is not None:
            plan.acts += self._render_opt_in() if act.is_granted else self._render_opt_out()
        if decision.state is State.DENIED and decision.reason is not Reason.ACCOUNT_DENIED:
            self._follow_denial(plan, is_act=act is not None)
        elif decision.is_stale:
            self._follow_end(plan)
        elif decision.is_granted and decision.kind is not Kind.COOKIELESS and act is None:
            self._follow_grant(plan, is_explicit=decision.kind is Kind.EXPLICIT)

    def share(self, visitor: Visitor, mode: IdentityMode, plan: CookiePlan) -> None:
        """Hand our ID to the page: with our own cookie, or where the page goes on with another.

        A page that keeps it in localStorage shows no cookie: it is not told again and again.
        """
        page_ids = self._page_ids.device_ids(self._header)
        # A third copy lies where we cannot reach it.
        is_known = len(page_ids) > MAX_COPIES or set(page_ids) == {visitor.device_id}
        is_due = plan.has_id or (bool(page_ids) and self._may_maintain())
        if is_known or not is_due:
            return
        cookies = plan.acts if plan.acts else plan.others
        ids = find_browser_ids(visitor, mode)
        cookies += self._browser.render_id(ids, self._host, is_secure=self._is_secure)

    def _follow_denial(self, plan: CookiePlan, *, is_act: bool) -> None:
        if is_act:
            plan.acts += self._render_deletion()
        elif self._has_ids():
            plan.others += self._render_deletion()
            plan.others += self._render_opt_out()

    def _follow_end(self, plan: CookiePlan) -> None:
        """Whoever agreed long ago is asked again; the page must not go on meanwhile."""
        if self._has_ids():
            plan.others += self._render_deletion()
            plan.others += self._render_choice_deletion()

    def _follow_grant(self, plan: CookiePlan, *, is_explicit: bool) -> None:
        """Opt the page in again, once what made us opt it out says so no more. A default is no
        opt-in: then the page only forgets.
        """
        if self._page_ids.is_opted_out_by_us(self._header) and self._may_maintain():
            plan.others += self._render_opt_in() if is_explicit else self._render_choice_deletion()

    def _has_ids(self) -> bool:
        return bool(self._page_ids.device_ids(self._header))

    def _render_opt_in(self) -> list[bytes]:
        return self._browser.render_choice(self._host, is_granted=True, is_secure=self._is_secure)

    def _render_opt_out(self) -> list[bytes]:
        """Opt the page out, unless it did so itself: marked as ours, that would end with what we
        follow.
        """
        said = {value for _, value in Scanner([self._browser.choice_name]).scan(self._header)}
        if OPTED_OUT.encode() in said and not self._page_ids.is_opted_out_by_us(self._header):
            return []
        return self._browser.render_choice(self._host, is_granted=False, is_secure=self._is_secure)

    def _render_deletion(self) -> list[bytes]:
        return self._browser.render_deletion(self._host, is_secure=self._is_secure)

    def _render_choice_deletion(self) -> list[bytes]:
        return self._browser.render_choice_deletion(self._host, is_secure=self._is_secure)
