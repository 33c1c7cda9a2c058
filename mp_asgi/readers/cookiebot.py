"""Read Cookiebot's cookie: an object literal of JavaScript, which is never evaluated here.

Cookiebot's own script takes what it cannot read as consent to everything; this one does not.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, NOTHING, UNREADABLE, Reading
from .dated import read_dated
from .parsing import decode_percent

_COOKIE = "CookieConsent"
_DECLINED = "0"
_NO_BANNER = "-1"  # the stamp where a region needs none: nobody was asked
_CATEGORIES = ("statistics", "preferences", "marketing")
# Keys stand in the order in which they are written; anything else is unreadable. A real stamp
# is base64, long enough not to be a damaged -1. `method` is missing before 2022.
_FORM = re.compile(
    r"\{stamp:'(?P<stamp>-1|[A-Za-z0-9+/=]{12,})',necessary:true"
    r",preferences:(?P<preferences>true|false),statistics:(?P<statistics>true|false)"
    r",marketing:(?P<marketing>true|false)(?:,method:'(?P<method>explicit|implied)')?"
    r",ver:[0-9]{1,4},utc:(?P<utc>[^,']*),region:'[^']*'(?:,iab2:'[^']*')?(?:,gacm:'[^']*')?\}"
)
_UTC = re.compile(r"[0-9]{1,14}")  # milliseconds; 14 digits last to the year 5138


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookiebot:
    """Read `CookieConsent`. react-cookie-consent's cookie has the same name.

    Attributes:
        category: `statistics`, `preferences` or `marketing`.
    """

    name: ClassVar[str] = "cookiebot"
    cookies: ClassVar[tuple[str, ...]] = (_COOKIE,)
    category: str = "statistics"

    def __post_init__(self) -> None:
        if self.category not in _CATEGORIES:
            raise ValueError(f"category is {self.category!r}. Use {', '.join(_CATEGORIES)}.")

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the category; see `Reader`."""
        # Never unquote_plus: the stamp is base64 with a raw +.
        text = decode_percent(cookies[_COOKIE])
        if text == _DECLINED:
            return DENIED
        found = _FORM.fullmatch(text)
        if found is None:
            return UNREADABLE
        if found["stamp"] == _NO_BANNER or found["method"] == "implied":
            return NOTHING
        is_granted = found[self.category] == "true"
        return read_dated(found["utc"], is_granted=is_granted, parse=_parse_utc)


def _parse_utc(told: object) -> float | None:
    return int(told) / 1000 if isinstance(told, str) and _UTC.fullmatch(told) else None
