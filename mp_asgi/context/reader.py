"""Render where an event happened, with the names and values of mixpanel-browser 2.83, so that the
reports of server and page do not split.
"""

import json
from typing import Final

from mp_asgi.head import TrustedProxies
from mp_asgi.properties import Properties, fit_text
from mp_asgi.settings import Settings

from .address import render_address
from .agent import AgentReader
from .bots import BotFinder
from .campaign import CAMPAIGN_NAMES, read_campaign, read_clicks, read_search
from .request import RequestContext
from .url import Url, read_own_url, read_referrer

MAX_FIRST_TOUCH_BYTES: Final = 1_000  # RULES section 1, rule 8: it may ride in the ID cookie

_DIRECT: Final = "$direct"  # what mixpanel-browser says of a visitor who typed the address


class ContextReader:
    """Read what requests tell about their events. Safe in several threads.

    Args:
        settings: Say what may be read, and how much of it may leave.
        proxies: Whose words about a visitor's address are believed.
    """

    __slots__ = ("_agents", "_bots", "_proxies", "_settings")

    def __init__(self, settings: Settings, proxies: TrustedProxies) -> None:
        self._settings = settings
        self._proxies = proxies
        self._agents = AgentReader()
        self._bots = BotFinder()

    def event_properties(self, context: RequestContext, *, is_cookieless: bool) -> Properties:
        """Answer what a request says of its events; empty when switched off.

        Args:
            context: The request.
            is_cookieless: Leave out whatever tells one visitor from another: every query with
                its campaign and click IDs, and the raw user agent.
        """
        if not self._settings.context:
            return {}
        page, referrer = _find_page(context)
        agent = self._agents.properties(_read_agent(context))
        if is_cookieless:
            page, referrer = page.keep(()), referrer and referrer.keep(())
            agent.pop("$user_agent", None)
        address = fit_text(page.keep(self._settings.url_parameters).render())
        properties: Properties = {"$current_url": address} if address else {}
        if referrer is not None:
            properties |= _describe_referrer(referrer, "$")
            if referrer.host != page.host:  # what is sought on the site itself is nobody's keyword
                properties |= read_search(referrer)
        return properties | read_campaign(page) | read_clicks(page) | agent

    def page_properties(
        self, context: RequestContext, *, is_cookieless: bool = False
    ) -> Properties:
        """Answer what a request says of a page view, whether other context is wanted or not.

        Args:
            context: The request.
            is_cookieless: Leave out the query.
        """
        page, _ = _find_page(context)
        names = () if is_cookieless else self._settings.url_parameters
        properties = {
            "current_domain": page.render_hostname(),
            "current_url_path": page.path,
            "current_url_protocol": f"{page.scheme}:",
            "current_url_search": page.keep(names).render_search(),
        }
        return {name: fit_text(value) for name, value in properties.items() if value}

    def first_touch(self, context: RequestContext) -> Properties:
        """Answer how a visitor was found, for `$set_once` on their profile: at most
        `MAX_FIRST_TOUCH_BYTES` as compact JSON, else without its longest values.

        A campaign is told whole, with null for what it does not say: a later one must not fill
        its gaps.
        """
        page, referrer = _find_page(context)
        touch: Properties = {}
        if referrer is not None:
            touch = _describe_referrer(referrer, "$initial_")
        elif _is_page(context) and not context.head.header(b"referer"):
            touch = {"$initial_referrer": _DIRECT, "$initial_referring_domain": _DIRECT}
        if campaign := read_campaign(page):
            touch |= {f"initial_{name}": campaign.get(name) for name in CAMPAIGN_NAMES}
        return _shorten(touch)

    def address(self, context: RequestContext) -> str:
        """Answer what Mixpanel may place the visitor by; empty when off, or if it is unknown."""
        policy = self._settings.ip
        if policy == "off":
            return ""
        address = self._proxies.find_client(context.head)
        return render_address(address, is_coarse=policy == "coarse")

    def is_bot(self, context: RequestContext) -> bool:
        """Whether a bot asked, and bots are left out."""
        return self._settings.exclude_bots and self._bots.is_bot(_read_agent(context))


def _find_page(context: RequestContext) -> tuple[Url, Url | None]:
    """Answer the page on which a request's events happen, and what led there, if it is known.

    mixpanel-browser's `$current_url` is the page's. So what a page asks for by itself, or posts,
    happens on that page, which is its Referer; what had led there is in no header then. The
    Referer of another host names no page of ours, and may be cut to its host.
    """
    own, referrer = read_own_url(context), read_referrer(context)
    if referrer is None or _is_page(context) or referrer.host != own.host:
        return own, referrer
    return referrer, None


def _is_page(context: RequestContext) -> bool:
    # A form that is posted is a navigation, too, and happens on the page that it is on.
    return context.place.method == "GET" and context.head.is_navigation()


def _describe_referrer(referrer: Url, prefix: str) -> Properties:
    return {
        f"{prefix}referrer": fit_text(referrer.keep(()).render()),
        f"{prefix}referring_domain": fit_text(referrer.host),
    }


def _read_agent(context: RequestContext) -> str:
    return (context.head.header(b"user-agent") or b"").decode("utf-8", "replace")


def _shorten(touch: Properties) -> Properties:
    while _measure(touch) > MAX_FIRST_TOUCH_BYTES:
        longest = max(touch, key=lambda name: _measure(touch[name]))
        if longest.startswith("$"):
            del touch[longest]
        else:
            touch[longest] = None
    return touch


def _measure(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":")))
