"""Track the pages that people open, where the site wants it (setting `track_pageviews`).

Only what worked: a successful HTML document that a browser shows as a page of its own. Not what a
page loads, not what a browser fetches in case somebody clicks. A page that was prerendered and is
shown later is never counted: no request tells of it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .core import refuse
from .head import RequestHead
from .route import find_route
from .tracker import Tracker
from .wire import PAGE_VIEW

ROUTE_PROPERTY: Final = "current_url_route"

# Docs: server-side-best-practices, "only on successful responses"; 204 and 205 show nothing new.
_OK: Final = frozenset(range(200, 300)) - {204, 205}
_UNCHANGED: Final = 304  # the page that is shown is in the browser
_HTML: Final = ([b"text/html"], [b"application/xhtml+xml"])
_PURPOSES: Final = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
_AHEAD: Final = re.compile(rb"prefetch|prerender|preview", re.IGNORECASE)
# Where there is no `Sec-Fetch-Mode`: what becomes a part of the page that is there already.
_OF_SCRIPTS: Final = (b"hx-request", b"turbo-frame", b"x-pjax")


def see_page(
    tracker: Tracker,
    connection: Mapping[str, Any],
    method: str,
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
) -> str:
    """Track a page view if this response shows a page. Never raises.

    Args:
        tracker: Of the request; it is opened only for a page.
        connection: ASGI scope or WSGI environ, for the framework's name of the route.
        method: In capitals.
        status: Of the response.
        headers: Of the response, names in any case.

    Returns:
        The page view's `$insert_id`; empty without one.
    """
    try:
        if method != "GET" or not _is_page(status, headers):
            return ""
        exchange = tracker.open()
        if is_opened_by_person(exchange.head) and not exchange.has_tracked(PAGE_VIEW):
            route = find_route(connection)
            return tracker.track_pageview({ROUTE_PROPERTY: route} if route else None) or ""
    except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
        refuse(tracker.core, error, "a page view")
    return ""


def is_opened_by_person(head: RequestHead) -> bool:
    """Whether a page is shown to somebody now, as far as the browser says."""
    purposes = (head.header(name) or b"" for name in _PURPOSES)
    is_ahead = any(map(_AHEAD.search, purposes))
    return head.is_navigation() and not is_ahead and not _is_of_script(head)


def _is_page(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    if status != _UNCHANGED and status not in _OK:
        return False
    types = []
    for name, value in headers:
        match name.lower():
            case b"content-type":
                types.append(_read_token(value))
            case b"content-disposition" if _read_token(value) == b"attachment":
                return False
    # What has not changed need not say of what type it is (RFC 9110 section 15.4.5).
    return types in _HTML or (status == _UNCHANGED and not types)


def _is_of_script(head: RequestHead) -> bool:
    # An Android web view names its app in this one, with pages, too.
    is_ajax = (head.header(b"x-requested-with") or b"").lower() == b"xmlhttprequest"
    return is_ajax or any(head.header(name) is not None for name in _OF_SCRIPTS)


def _read_token(value: bytes) -> bytes:
    return value.partition(b";")[0].strip().lower()
