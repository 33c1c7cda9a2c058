"""Read Axeptio's cookie: each vendor by name, and whether the visitor was through with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import NOTHING, UNREADABLE, Reading
from .dated import read_dated
from .parsing import decode_percent, parse_json_object


@dataclass(frozen=True, slots=True, kw_only=True)
class Axeptio:
    """Read `axeptio_cookies`, which is there before any choice.

    Attributes:
        cookie: Its name.
        vendor: Our name among the site's vendors.
    """

    name: ClassVar[str] = "axeptio"
    cookie: str = "axeptio_cookies"
    vendor: str = "mixpanel"

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer the names; see `Reader`."""
        return (self.cookie,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the vendor; see `Reader`."""
        try:
            said = parse_json_object(decode_percent(cookies[self.cookie]))
        except ValueError:
            return UNREADABLE
        is_completed, choice = said.get("$$completed", False), said.get(self.vendor)
        if not isinstance(is_completed, bool) or not isinstance(choice, bool | None):
            return UNREADABLE
        if not is_completed or choice is None:
            return NOTHING
        return read_dated(said.get("$$date"), is_granted=choice)
