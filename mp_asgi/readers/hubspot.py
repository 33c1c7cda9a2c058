"""Read HubSpot's cookies: a choice by category, and two ways to opt out of everything."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading
from .parsing import decode_percent
from .strictest import strictest

_CATEGORIES = "__hs_cookie_cat_pref"
_OPT_OUTS = ("__hs_opt_out", "__hs_do_not_track")
_ITEM = re.compile(r"([0-9]{1,3}):(true|false)")
_SEPARATOR = re.compile("[,_]")
_OPTED_OUT = {"yes": DENIED, "no": NOTHING}  # "no" says nothing about a category
_CHOICES = {"true": GRANTED, "false": DENIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSpot:
    """Read `__hs_cookie_cat_pref`, `__hs_opt_out` and `__hs_do_not_track`. None tells a time.

    Attributes:
        category: 1 is analytics, 2 advertising, 3 functionality.
    """

    name: ClassVar[str] = "hubspot"
    cookies: ClassVar[tuple[str, ...]] = (_CATEGORIES, *_OPT_OUTS)
    category: int = 1

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the category; see `Reader`."""
        readings = [
            _OPTED_OUT.get(cookies[name], UNREADABLE) for name in _OPT_OUTS if name in cookies
        ]
        if _CATEGORIES in cookies:
            readings.append(self._read_categories(decode_percent(cookies[_CATEGORIES])))
        return strictest(readings)

    def _read_categories(self, text: str) -> Reading:
        items = [_ITEM.fullmatch(item) for item in _SEPARATOR.split(text)]
        return strictest(
            [
                UNREADABLE if item is None else _CHOICES[item[2]]
                for item in items
                if item is None or int(item[1]) == self.category
            ]
        )
