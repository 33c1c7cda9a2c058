"""Read the US Privacy string: an opt-out of sale denies, nothing in it ever grants.

IAB Tech Lab, "US Privacy String", version 1 (deprecated, still written).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, NOTHING, UNREADABLE, Reading
from .parsing import decode_percent, parse_json_object

_VERSION_1 = re.compile("1[YNyn-]{3}")
_OPT_OUT_OF_SALE = 2  # the third character


@dataclass(frozen=True, slots=True, kw_only=True)
class UsPrivacy:
    """Read `usprivacy`, also as iubenda writes it: JSON with the string as `uspString`."""

    name: ClassVar[str] = "usprivacy"
    cookies: ClassVar[tuple[str, ...]] = ("usprivacy",)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what the string says; see `Reader`."""
        text = decode_percent(cookies["usprivacy"])
        if not text.startswith("{"):
            return read_us_privacy(text)
        try:
            said = parse_json_object(text).get("uspString")
        except ValueError:
            return UNREADABLE
        return read_us_privacy(said) if isinstance(said, str) else UNREADABLE


def read_us_privacy(text: str) -> Reading:
    """Answer what one string of four characters says."""
    if not _VERSION_1.fullmatch(text):
        return UNREADABLE
    return DENIED if text[_OPT_OUT_OF_SALE] in "Yy" else NOTHING
