"""Read the opt-out cookies of Mixpanel's own library for browsers.

By default it keeps the choice in localStorage, where no server sees it: the page must ask for
`opt_out_tracking_persistence_type: "cookie"`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading

_LEGACY = "mp_optout"
_CHOICES = {"1": GRANTED, "0": DENIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class MixpanelBrowser:
    """Read the project's opt-in or opt-out. It tells no time.

    Attributes:
        token: The project's token; while it is not known, only the opt-out of old versions of
            the library, `mp_optout`, is read.
        prefix: The library's `opt_out_tracking_cookie_prefix`.
    """

    name: ClassVar[str] = "mixpanel-browser"
    token: str = ""
    prefix: str = "__mp_opt_in_out_"

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer the names; see `Reader`."""
        return (self.prefix + self.token, _LEGACY) if self.token else (_LEGACY,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen; see `Reader`."""
        if cookies.get(_LEGACY):
            # Any value: the library only asks whether there is one.
            return DENIED
        choice = cookies.get(self.prefix + self.token) if self.token else None
        return NOTHING if choice is None else _CHOICES.get(choice, UNREADABLE)
