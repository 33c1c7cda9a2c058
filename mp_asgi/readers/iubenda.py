"""Read iubenda's cookie: purposes by number, or one consent for all of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .base import NOTHING, UNREADABLE, Reading
from .dated import read_dated
from .parsing import decode_percent, parse_json_object
from .strictest import strictest

_PREFIX = "_iub_cs-"
_NAME = re.compile(_PREFIX + r"\d+")  # others end in -granular, -uspr, ...
_NECESSARY = "1"  # always among the purposes of somebody who was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Iubenda:
    """Read `_iub_cs-SITE`.

    Attributes:
        site: The site's number at iubenda; empty for any, and then all must grant.
        purpose: 4 is measurement.
    """

    name: ClassVar[str] = "iubenda"
    site: str = ""
    purpose: str = "4"

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer what to look for; see `Reader`."""
        return (_PREFIX + (self.site or "*"),)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the purpose; see `Reader`."""
        return strictest(
            [self._read_text(value) for name, value in cookies.items() if _NAME.fullmatch(name)]
        )

    def _read_text(self, text: str) -> Reading:
        try:
            said = parse_json_object(decode_percent(text))
        except ValueError:
            return UNREADABLE
        choice = self._read_choice(said)
        if choice is None:
            return NOTHING
        if not isinstance(choice, bool):
            return UNREADABLE
        return read_dated(said.get("timestamp"), is_granted=choice)

    def _read_choice(self, said: dict[str, Any]) -> object:
        consent, purposes = said.get("consent"), said.get("purposes")
        if consent is False or purposes is None:
            return consent
        if not isinstance(purposes, dict) or not isinstance(consent, bool | None):
            return UNREADABLE
        # What is not listed was not consented to, once anything was asked.
        return purposes.get(self.purpose, False if _NECESSARY in purposes else None)
