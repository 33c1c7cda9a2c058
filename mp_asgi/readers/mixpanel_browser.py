"""Read the opt-out cookies of Mixpanel's own library for browsers.

By default it keeps the choice in localStorage, where no server sees it: the page must ask for
`opt_out_tracking_persistence_type: "cookie"`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading

_LEGACY = "mp_optout"
_OPTED_IN, OPTED_OUT = "1", "0"
_CHOICES = {_OPTED_IN: GRANTED, OPTED_OUT: DENIED}
#: Behind the cookie's name: beside an opt-out that we wrote ourselves, for what a browser's signal
#: or a manager said. Read back as the page's own, it would never end.
OURS = "_mp_asgi"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixpanelBrowser:
    """Read the project's opt-in or opt-out. It tells no time.

    Attributes:
        token: The project's token; while it is not known, only the opt-out of old versions of
            the library, `mp_optout`, is read.
        prefix: The library's `opt_out_tracking_cookie_prefix`.
        only_denials: Whether an opt-in says nothing, for a site that asks by other means.
    """

    name: ClassVar[str] = "mixpanel-browser"
    token: str = ""
    prefix: str = "__mp_opt_in_out_"
    only_denials: bool = False

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer the names; see `Reader`."""
        name = self.prefix + self.token
        return (name, name + OURS, _LEGACY) if self.token else (_LEGACY,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen; see `Reader`."""
        if cookies.get(_LEGACY):
            # Any value: the library only asks whether there is one.
            return DENIED
        name = self.prefix + self.token
        choice = cookies.get(name) if self.token else None
        if choice is None or (self.only_denials and choice == _OPTED_IN):
            return NOTHING
        if choice == OPTED_OUT and name + OURS in cookies:
            return NOTHING
        return _CHOICES.get(choice, UNREADABLE)
