"""Read Complianz' cookie of one category."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, UNREADABLE, Reading

_CHOICES = {"allow": GRANTED, "deny": DENIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Complianz:
    """Read `cmplz_statistics`: `allow` or `deny`. It tells no time.

    Attributes:
        prefix: What stands before the category; each site of a multisite has its own.
        category: The category of analytics.
    """

    name: ClassVar[str] = "complianz"
    prefix: str = "cmplz_"
    category: str = "statistics"

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer what to look for; see `Reader`."""
        return (self.prefix + self.category,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen; see `Reader`."""
        return _CHOICES.get(cookies[self.prefix + self.category], UNREADABLE)
