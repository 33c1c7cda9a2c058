"""Read the cookie of Osano's open-source cookieconsent. The hosted Osano's is encrypted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading

# Who dismissed a banner that only informs has chosen nothing.
_CHOICES = {"allow": GRANTED, "deny": DENIED, "dismiss": NOTHING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Osano:
    """Read `cookieconsent_status`. It tells no time.

    Attributes:
        cookie: Its name.
    """

    name: ClassVar[str] = "osano-cookieconsent-oss"
    cookie: str = "cookieconsent_status"

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer what to look for; see `Reader`."""
        return (self.cookie,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen; see `Reader`."""
        return _CHOICES.get(cookies[self.cookie], UNREADABLE)
