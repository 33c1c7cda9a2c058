"""Read Shopify's cookie of its customer privacy banner."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading
from .parsing import decode_percent, parse_json_object
from .strictest import strictest

_COOKIE = "_tracking_consent"
_CHOICES = {"1": GRANTED, "0": DENIED, "": NOTHING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shopify:
    """Read `_tracking_consent`, which is there before any choice. It tells no time."""

    name: ClassVar[str] = "shopify"
    cookies: ClassVar[tuple[str, ...]] = (_COOKIE,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for analytics; see `Reader`."""
        try:
            consent = _read_object(parse_json_object(decode_percent(cookies[_COOKIE])), "con")
            choice = _read_object(consent, "CMP").get("a", "")
        except ValueError:
            return UNREADABLE
        # Version 1 kept its choice as GDPR; only its empty value is documented.
        older = UNREADABLE if consent.get("GDPR") else NOTHING
        known = _CHOICES.get(choice, UNREADABLE) if isinstance(choice, str) else UNREADABLE
        return strictest((known, older))


def _read_object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    child = parent.get(key, {})
    if not isinstance(child, dict):
        raise ValueError(f"{key} is no object")  # noqa: TRY004  # one kind of unreadable
    return child
