"""Read the opt-out cookie of PostHog's library for browsers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, UNREADABLE, Reading
from .strictest import strictest

_PREFIX = "__ph_opt_in_out_"
_CHOICES = {"1": GRANTED, "0": DENIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostHog:
    """Read the project's opt-in or opt-out. It tells no time.

    Attributes:
        token: The project's key; without it all of the site's projects are read, and each must
            grant.
    """

    name: ClassVar[str] = "posthog-js"
    token: str = ""

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer the names; see `Reader`."""
        return (_PREFIX + (self.token or "*"),)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen; see `Reader`."""
        return strictest(
            [
                _CHOICES.get(value, UNREADABLE)
                for name, value in cookies.items()
                if name == _PREFIX + self.token or (not self.token and name.startswith(_PREFIX))
            ]
        )
