"""Read django-cookie-consent's cookie: for each group a version or a refusal.

The version is the creation time of the group's newest cookie when the visitor accepted, so it
is not the time of the choice (cookie_consent/processor.py and util.py of 1.0.0).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, STALE, UNREADABLE, Reading
from .parsing import parse_iso_time
from .strictest import strictest

_DECLINED = "-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class DjangoCookieConsent:
    """Read `cookie_consent`. It tells no time.

    Attributes:
        cookie: Its name, the setting `COOKIE_CONSENT_NAME`.
        group: The variable name of the group of analytics.
        since: ISO time; who accepted an older version of the group is asked again. Empty for
            never.
    """

    name: ClassVar[str] = "django-cookie-consent"
    cookie: str = "cookie_consent"
    group: str = "analytics"
    since: str = ""
    _since: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        since = parse_iso_time(self.since) if self.since else 0.0
        if since is None:
            raise ValueError(
                f"since is {self.since!r}. Use an ISO time as 2026-11-21T10:00:00+00:00."
            )
        object.__setattr__(self, "_since", since)

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer the names; see `Reader`."""
        return (self.cookie,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the group; see `Reader`."""
        # Python quotes a cookie value that has `=` in it.
        items = cookies[self.cookie].removeprefix('"').removesuffix('"').split("|")
        return strictest([self._read_item(item) for item in items])

    def _read_item(self, item: str) -> Reading:
        group, separator, version = item.partition("=")
        if not separator:
            return UNREADABLE
        if group != self.group:
            return NOTHING
        if version == _DECLINED:
            return DENIED
        at = parse_iso_time(version)
        if at is None:
            return UNREADABLE
        return STALE if at < self._since else GRANTED
