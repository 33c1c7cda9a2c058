"""Render the cookies of mixpanel-browser, so that a page goes on with our ID and our decision.

They must be the library's own cookies, domain included: two of one name would contradict.
"""

import json
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from .identity import IdentityMode, Visitor
from .readers.mixpanel_browser import OURS

MAX_AGE: Final = 31_536_000  # 365 days, the library's `cookie_expiration`
MAX_HOST: Final = 259  # 253 of a name (RFC 1035 section 2.3.4), a colon and a port

_LABEL: Final = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # `_` works in browsers
_HOST: Final = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)(?::[0-9]{{1,5}})?")
# How the library guesses the registrable domain (2.83.0 and 2.47.0, utils.js, extract_domain).
_TWO_LABELS: Final = re.compile(r"[a-z0-9][a-z0-9-]*\.[a-z]+\Z")
_SHORT_END: Final = re.compile(r"[a-z0-9][a-z0-9-]+\.[a-z.]{2,6}\Z")
_MAX_SHORT: Final = 4  # letters of a top-level domain that may have a second level, as in co.uk

_UNQUOTED: Final = "!*'()"  # what encodeURIComponent leaves and `quote` would not


class BrowserCookies:
    """Render the two cookies of one project's mixpanel-browser.

    Args:
        token: The project's token.

    Attributes:
        id_name: Name of the cookie that holds the IDs.
        choice_name: Name of the cookie that holds opt-in or opt-out.
        mark_name: Name of the cookie that tells an opt-out of ours from the page's own.
    """

    __slots__ = ("choice_name", "id_name", "mark_name")

    def __init__(self, token: str) -> None:
        self.id_name = f"mp_{token}_mixpanel"
        self.choice_name = f"__mp_opt_in_out_{token}"
        self.mark_name = self.choice_name + OURS

    def render_id(self, ids: Mapping[str, str], host: str, *, is_secure: bool) -> list[bytes]:
        """Render the Set-Cookie values that let the page start with these IDs.

        Args:
            ids: See `find_browser_ids`.
            host: The Host header, untrusted.
            is_secure: Whether the request came by https.
        """
        text = json.dumps(dict(ids), ensure_ascii=False, separators=(",", ":"))
        return _replace(self.id_name, quote(text, safe=_UNQUOTED), host, is_secure=is_secure)

    def render_deletion(self, host: str, *, is_secure: bool) -> list[bytes]:
        """Render the Set-Cookie values that delete the ID cookie wherever the library keeps it."""
        domains = dict.fromkeys(("", _guess_domain(host)))
        return [_render(self.id_name, "", domain, is_secure=is_secure) for domain in domains]

    def render_choice(self, host: str, *, is_granted: bool, is_secure: bool) -> list[bytes]:
        """Render the Set-Cookie values that opt the page in or out, for what we decided."""
        choice, mark = ("1", "") if is_granted else ("0", "1")
        return [
            *_replace(self.choice_name, choice, host, is_secure=is_secure),
            _render(self.mark_name, mark, _guess_domain(host), is_secure=is_secure),
        ]

    def render_choice_deletion(self, host: str, *, is_secure: bool) -> list[bytes]:
        """Render the Set-Cookie values that let the page forget its opt-in or opt-out."""
        domain = _guess_domain(host)
        return [
            *_replace(self.choice_name, "", host, is_secure=is_secure),
            _render(self.mark_name, "", domain, is_secure=is_secure),
        ]


def find_browser_ids(visitor: Visitor, mode: IdentityMode) -> dict[str, str]:
    """Answer the super properties that a page starts with. A login is the page's own matter."""
    return {"distinct_id": visitor.anonymous_id(mode), "$device_id": visitor.device_id}


def _replace(name: str, value: str, host: str, *, is_secure: bool) -> list[bytes]:
    """Render the cookie, and the end of a copy for this host only, which could hide it."""
    domain = _guess_domain(host)
    cookies = [_render(name, value, domain, is_secure=is_secure)]
    if domain:
        cookies.append(_render(name, "", "", is_secure=is_secure))
    return cookies


def _render(name: str, value: str, domain: str, *, is_secure: bool) -> bytes:
    """Render a cookie that scripts can read; without a value, its deletion."""
    parts = [f"{name}={value}", f"Max-Age={MAX_AGE if value else 0}", "Path=/"]
    if domain:
        parts.append(f"Domain={domain}")
    if is_secure:
        parts.append("Secure")
    parts.append("SameSite=Lax")
    return "; ".join(parts).encode("ascii")


def _guess_domain(host: str) -> str:
    """Answer the domain of the library's cookies; empty for this host only.

    Where the guess is a public suffix (`x.co.uk`), browsers refuse the library's cookie as ours.
    """
    found = _HOST.fullmatch(host) if len(host) <= MAX_HOST else None
    if found is None:
        return ""
    name = found[1].lower()
    last = name.rpartition(".")[2]
    is_simple = len(last) > _MAX_SHORT or last in {"com", "org"}
    guess = (_TWO_LABELS if is_simple else _SHORT_END).search(name)
    # It begins in the middle of a label where that has a `_`: no browser keeps such a cookie.
    return guess[0] if guess and f".{name}".endswith(f".{guess[0]}") else ""
