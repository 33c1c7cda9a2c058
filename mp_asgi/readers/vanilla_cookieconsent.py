"""Read vanilla-cookieconsent's cookie, of version 3 and of version 2."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .base import STALE, UNREADABLE, Reading
from .dated import read_dated
from .parsing import decode_percent, parse_json_object

# The last change of mind first; version 3, then version 2.
_TIMES = ("lastConsentTimestamp", "consentTimestamp", "last_consent_update", "consent_date")


@dataclass(frozen=True, slots=True, kw_only=True)
class VanillaCookieConsent:
    """Read `cc_cookie`, which is there only after a choice.

    Attributes:
        cookie: Its name.
        category: The site's category of analytics.
        service: Our name among the category's services, which must be accepted as soon as the
            category lists any. Empty for a site whose lists do not have us.
        revision: The site's number of the notice; who chose under a lower one is asked again.
    """

    name: ClassVar[str] = "vanilla-cookieconsent"
    cookie: str = "cc_cookie"
    category: str = "analytics"
    service: str = "mixpanel"
    revision: int = 0

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer what to look for; see `Reader`."""
        return (self.cookie,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the category and the service; see `Reader`."""
        text = cookies[self.cookie]
        try:
            # Version 2 writes JSON as it is.
            said = parse_json_object(text if text.startswith("{") else decode_percent(text))
            is_granted = self._is_accepted(said)
        except ValueError:
            return UNREADABLE
        revision = said.get("revision", 0)
        if type(revision) is not int:
            return UNREADABLE
        if is_granted and revision < self.revision:
            return STALE
        told = next((said[key] for key in _TIMES if said.get(key) is not None), None)
        return read_dated(told, is_granted=is_granted)

    def _is_accepted(self, said: dict[str, Any]) -> bool:
        categories, by_category = said.get("categories"), said.get("services", {})
        services = by_category.get(self.category, []) if isinstance(by_category, dict) else None
        if not isinstance(categories, list) or not isinstance(services, list):
            raise ValueError("a list is missing")  # noqa: TRY004  # one kind of unreadable
        if self.category not in categories:
            return False
        return not services or not self.service or self.service in services
