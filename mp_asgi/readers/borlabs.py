"""Read Borlabs Cookie's cookie: the services consented to, by group."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading
from .parsing import decode_percent, parse_json_object


@dataclass(frozen=True, slots=True, kw_only=True)
class Borlabs:
    """Read `borlabs-cookie` of versions 2 and 3. It tells no time.

    Attributes:
        cookie: Its name.
        group: The group that must have a service consented to.
    """

    name: ClassVar[str] = "borlabs"
    cookie: str = "borlabs-cookie"
    group: str = "statistics"

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer the names; see `Reader`."""
        return (self.cookie,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the group; see `Reader`."""
        try:
            consents = parse_json_object(decode_percent(cookies[self.cookie])).get("consents", {})
        except ValueError:
            return UNREADABLE
        if not isinstance(consents, dict):
            return UNREADABLE
        if not consents:
            return NOTHING
        services = consents.get(self.group, [])
        if not isinstance(services, list):
            return UNREADABLE
        return GRANTED if services else DENIED
