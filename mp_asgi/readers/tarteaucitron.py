"""Read tarteaucitron's cookie, which is there before any choice."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading

_ITEMS = re.compile("(?:![^!=]+=(?:true|false|wait))*")
_CHOICES = {"true": GRANTED, "false": DENIED, "wait": NOTHING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tarteaucitron:
    """Read `tarteaucitron`, items such as `!mixpanel=true`. It tells no time.

    Attributes:
        cookie: Its name, the parameter `cookieName`.
        service: Our key among its services; `mixpanel` is built in.
    """

    name: ClassVar[str] = "tarteaucitron"
    cookie: str = "tarteaucitron"
    service: str = "mixpanel"

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer what to look for; see `Reader`."""
        return (self.cookie,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the service; see `Reader`."""
        text = cookies[self.cookie]
        if not _ITEMS.fullmatch(text):
            return UNREADABLE
        start = f"{self.service}="
        choices = {item.removeprefix(start) for item in text.split("!") if item.startswith(start)}
        if len(choices) > 1:
            return UNREADABLE
        return _CHOICES[choices.pop()] if choices else NOTHING
