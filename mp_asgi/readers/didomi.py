"""Read Didomi's token: a site's own list of vendors and purposes, enabled and disabled."""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .base import NOTHING, UNREADABLE, Reading
from .dated import read_dated
from .parsing import decode_percent, parse_json_object
from .strictest import strictest

_BINARY_COOKIE = "didomi_dcs"  # takes the token's place where a site turned it on


@dataclass(frozen=True, slots=True, kw_only=True)
class Didomi:
    """Read `didomi_token`. The binary form that may replace it is never a grant.

    Attributes:
        cookie: The token's name.
        vendor: Our id among the site's vendors.
        purpose: The site's id of analytics; where it is named, it must be enabled, and the
            vendor must only not be disabled.
    """

    name: ClassVar[str] = "didomi"
    cookie: str = "didomi_token"
    vendor: str = "c:mixpanel"
    purpose: str = ""

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer the names; see `Reader`."""
        return (self.cookie, _BINARY_COOKIE)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what the token says; see `Reader`."""
        readings = [UNREADABLE] if _BINARY_COOKIE in cookies else []
        if self.cookie in cookies:
            readings.append(self._read_token(cookies[self.cookie]))
        return strictest(readings)

    def _read_token(self, text: str) -> Reading:
        try:
            token = parse_json_object(b64decode(decode_percent(text), validate=True).decode())
            vendors, no_vendors = _read_lists(token, "vendors")
            purposes, no_purposes = _read_lists(token, "purposes")
        except ValueError:
            return UNREADABLE
        updated = token.get("updated")
        if self.vendor in no_vendors or self.purpose in no_purposes:
            return read_dated(updated, is_granted=False)
        is_enabled = self.purpose in purposes if self.purpose else self.vendor in vendors
        return read_dated(updated, is_granted=True) if is_enabled else NOTHING


def _read_lists(token: dict[str, Any], key: str) -> tuple[list[Any], list[Any]]:
    """Answer what is enabled and what is disabled. Before a choice the key is missing."""
    said = token.get(key, {})
    if not isinstance(said, dict):
        raise ValueError(f"{key} is no object")  # noqa: TRY004  # one kind of unreadable
    enabled, disabled = said.get("enabled", []), said.get("disabled", [])
    if not isinstance(enabled, list) or not isinstance(disabled, list):
        raise ValueError(f"{key} holds no lists")  # noqa: TRY004
    return enabled, disabled
