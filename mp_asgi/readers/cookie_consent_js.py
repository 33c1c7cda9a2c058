"""Read cookie-consent-js' cookie."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, UNREADABLE, Reading

_CHOICES = {"true": GRANTED, "false": DENIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieConsentJs:
    """Read `cookie-consent-tracking-allowed`: `true` or `false`. It tells no time.

    Attributes:
        cookie: Its name.
    """

    name: ClassVar[str] = "cookie-consent-js"
    cookie: str = "cookie-consent-tracking-allowed"

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer what to look for; see `Reader`."""
        return (self.cookie,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen; see `Reader`."""
        return _CHOICES.get(cookies[self.cookie], UNREADABLE)
