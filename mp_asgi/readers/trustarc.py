"""Read TrustArc's cookies: the levels that the visitor allows, told in three ways."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading
from .parsing import decode_percent
from .strictest import strictest

_LEVELS, _HIGHEST = "notice_gdpr_prefs", "notice_preferences"
_PERMIT, _BEHAVIOR = "cmapi_cookie_privacy", "notice_behavior"
_LEVELS_FORM = re.compile(r"([0-9]{1,2}(?:,[0-9]{1,2})*):.*")
_HIGHEST_FORM = re.compile(r"([0-9]{1,2}):.*")
# Written with spaces or with underscores; its levels count from 1, not from 0.
_PERMIT_FORM = re.compile(r"permit[ _]([0-9]{1,2}(?:,[0-9]{1,2})*)(?:[ _]required)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustArc:
    """Read `notice_gdpr_prefs`, `notice_preferences` and `cmapi_cookie_privacy`.

    Where the notice only implies consent (`notice_behavior`), an allowed level is no choice. No
    cookie tells a time.

    Attributes:
        level: The site's level of analytics: 0 required, 1 functional, 2 advertising.
    """

    name: ClassVar[str] = "trustarc"
    cookies: ClassVar[tuple[str, ...]] = (_LEVELS, _HIGHEST, _PERMIT, _BEHAVIOR)
    level: int = 1

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer whether the level is allowed; see `Reader`."""
        values = {name: decode_percent(cookies[name]) for name in self.cookies if name in cookies}
        reading = strictest(
            [read(values[name], self.level) for name, read in _READERS.items() if name in values]
        )
        is_implied = any("implied" in values.get(name, "") for name in (_LEVELS, _BEHAVIOR))
        return NOTHING if is_implied and reading is GRANTED else reading


def _read_levels(text: str, level: int) -> Reading:
    return _read_list(_LEVELS_FORM.fullmatch(text), level)


def _read_permit(text: str, level: int) -> Reading:
    return _read_list(_PERMIT_FORM.fullmatch(text), level + 1)


def _read_highest(text: str, level: int) -> Reading:
    found = _HIGHEST_FORM.fullmatch(text)
    if found is None:
        return UNREADABLE
    # Which of the levels below it are allowed, it does not say.
    return DENIED if int(found[1]) < level else NOTHING


def _read_list(found: re.Match[str] | None, level: int) -> Reading:
    if found is None:
        return UNREADABLE
    return GRANTED if str(level) in found[1].split(",") else DENIED


_READERS = {_LEVELS: _read_levels, _PERMIT: _read_permit, _HIGHEST: _read_highest}
