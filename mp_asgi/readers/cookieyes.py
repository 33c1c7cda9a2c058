"""Read CookieYes' cookie, which is there before any choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading
from .parsing import decode_percent

_COOKIE = "cookieyes-consent"
_CHOICES = {"yes": GRANTED, "no": DENIED}
_NO_ACTION = frozenset({"", "no"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieYes:
    """Read `cookieyes-consent`, pairs such as `analytics:yes`. It tells no time.

    Attributes:
        category: The site's slug of analytics.
    """

    name: ClassVar[str] = "cookieyes"
    cookies: ClassVar[tuple[str, ...]] = (_COOKIE,)
    category: str = "analytics"

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the category; see `Reader`."""
        text = cookies[_COOKIE]
        pairs = _read_pairs(decode_percent(text))
        action = pairs.get("action")
        if action in _NO_ACTION:
            return NOTHING
        if action != "yes":
            return UNREADABLE
        choice = pairs.get(self.category)
        return NOTHING if choice is None else _CHOICES.get(choice, UNREADABLE)


def _read_pairs(text: str) -> dict[str, str]:
    """Answer the pairs; none if one is told twice, and differently, or is no pair."""
    pairs: dict[str, str] = {}
    for item in text.split(","):
        key, separator, value = item.partition(":")
        if not separator or pairs.setdefault(key, value) != value:
            return {}
    return pairs
