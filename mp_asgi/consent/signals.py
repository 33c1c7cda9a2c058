"""Read what a request says about consent. Every reader answers; none decides, none raises."""

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from mp_asgi.head import RequestHead
from mp_asgi.readers import Said

from .choice import Choice

MAX_HEADER_BYTES = 256  # reference/consent.md section 2.1
PURPOSE = b"analytics"

_PURPOSE = re.compile(rb"[A-Za-z0-9_\-]+")
_DEFAULT_PORTS = (None, 80, 443)
_OWN_SITES = frozenset({b"same-origin", b"same-site", b"none"})


class OwnCookies(NamedTuple):
    """What our consent cookies of one request say together.

    Attributes:
        choice: The one choice that verified; a denial if any copy denies.
        is_unreadable: A cookie was there, and none of its copies could be believed.
        is_current: The newest key signed it.
        is_denied_by_script: `mp_choice=denied` was there.
    """

    choice: Choice | None = None
    is_unreadable: bool = False
    is_current: bool = True
    is_denied_by_script: bool = False


NO_COOKIES = OwnCookies()


def read_consent_header(value: bytes | None) -> Said:
    """Read `granted`, `denied` or a list with `analytics=granted|denied` (RULES section 2, 1).

    Any denial wins, in any case; a grant is the exact word; anything else makes the header
    unreadable.
    """
    if value is None:
        return Said.NOTHING
    if len(value) > MAX_HEADER_BYTES:
        return Said.UNREADABLE
    first, *others = value.split(b",")
    # A space after a comma is how lists are written; anywhere else it is no exact word.
    said = {_read_consent_item(item) for item in (first, *(item.lstrip(b" \t") for item in others))}
    for strongest in (Said.DENIED, Said.UNREADABLE, Said.GRANTED):
        if strongest in said:
            return strongest
    return Said.NOTHING


def _read_consent_item(item: bytes) -> Said:
    purpose, separator, state = item.rpartition(b"=")
    if state.strip(b" \t").lower() == b"denied":
        said, purpose = Said.DENIED, purpose.strip(b" \t").lower()
    elif state == b"granted":
        said = Said.GRANTED
    else:
        return Said.UNREADABLE
    if separator and not _PURPOSE.fullmatch(purpose):
        return Said.UNREADABLE
    return said if not separator or purpose == PURPOSE else Said.NOTHING


def has_one(value: bytes | None) -> bool:
    """Whether a header is exactly `1`; of several, joined or not, one is enough (W3C GPC)."""
    return value is not None and b"1" in [item.strip(b" \t") for item in value.split(b",")]


def is_cross_site(read_header: Callable[[bytes], bytes | None]) -> bool:
    """Whether another site made the browser send this request (RULES section 2, 1).

    `Sec-Fetch-Site` speaks if it can be read; else an `Origin` that is not our `Host`. A client
    that sends neither is no browser that could be abused.
    """
    fetch_site = read_header(b"sec-fetch-site")
    if fetch_site is not None:
        sites = {item.strip(b" \t").lower() for item in fetch_site.split(b",")}
        if b"cross-site" in sites:
            return True
        if sites <= _OWN_SITES:
            return False
    origin = read_header(b"origin")
    if origin is None:
        return fetch_site is not None
    here = _host_and_port(b"//" + (read_header(b"host") or b""))
    return here is None or _host_and_port(origin) != here


def has_withheld_cookies(head: RequestHead, samesite: str) -> bool:
    """Whether the browser kept our cookies to itself: then their absence says nothing.

    From another site, SameSite=Lax lets them travel only when a person follows a link (a GET,
    which has no Origin), SameSite=Strict never (rfc6265bis 5.6.7).
    """
    if samesite == "None" or not is_cross_site(head.header):
        return False
    is_link = head.is_navigation() and head.header(b"origin") is None
    return samesite == "Strict" or not is_link


def _host_and_port(url: bytes) -> tuple[str, int | None] | None:
    try:
        parts = urlsplit(url.decode("ascii"))
        # The scheme is left out: behind a proxy that ends TLS we see http where they see https.
        port = None if parts.port in _DEFAULT_PORTS else parts.port
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname else None
