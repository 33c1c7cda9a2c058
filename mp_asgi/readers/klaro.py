"""Read Klaro's cookie: a yes or no for each service of the site."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, GRANTED, NOTHING, UNREADABLE, Reading
from .parsing import decode_percent, parse_json_object


@dataclass(frozen=True, slots=True, kw_only=True)
class Klaro:
    """Read `klaro`. It tells no time, and with `storageMethod: "localStorage"` it is not there.

    Attributes:
        cookie: Its name, the configuration's `storageName`.
        service: Our name among the configuration's `services`. A purpose is no service.
    """

    name: ClassVar[str] = "klaro"
    cookie: str = "klaro"
    service: str = "mixpanel"

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer what to look for; see `Reader`."""
        return (self.cookie,)

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the service; see `Reader`."""
        try:
            choices = parse_json_object(decode_percent(cookies[self.cookie]))
        except ValueError:
            return UNREADABLE
        if self.service not in choices:
            return NOTHING
        choice = choices[self.service]
        if not isinstance(choice, bool):
            return UNREADABLE
        return GRANTED if choice else DENIED
