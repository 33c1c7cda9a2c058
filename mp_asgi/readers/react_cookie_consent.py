"""Read react-cookie-consent's cookie, which has the name of Cookiebot's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, UNREADABLE, Reading

_CHOICES = {"true": GRANTED, "false": DENIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactCookieConsent:
    """Read `true` or `false`. It tells no time.

    Attributes:
        cookie: The property `cookieName` of the component.
    """

    name: ClassVar[str] = "react-cookie-consent"
    cookie: str = "CookieConsent"

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer the names; see `Reader`."""
        return (self.cookie,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen; see `Reader`."""
        return _CHOICES.get(cookies[self.cookie], UNREADABLE)
