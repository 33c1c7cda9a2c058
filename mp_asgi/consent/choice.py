"""Carry a visitor's own choice in the consent cookie. No identifier is inside."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

_SOURCES = {name.encode("ascii"): name for name in ("own", "gpc-override", "unreadable")}


class Choice(NamedTuple):
    """What the visitor chose with us (RULES section 2, rule 2).

    Attributes:
        is_granted: Grant or denial.
        version: Name of the notice the visitor saw; empty without one.
        at: Seconds since the epoch of the choice.
        revision: Counts the choices of this browser.
        source: `own`, `gpc-override` (granted in a request that carried GPC) or `unreadable`
            (a denial that stands in for a cookie we could not read).
    """

    is_granted: bool
    version: str
    at: int
    revision: int
    source: str

    def render(self) -> bytes:
        """Render the value to sign."""
        state = "g" if self.is_granted else "d"
        return f"1.{state}.{self.version}.{self.at}.{self.revision}.{self.source}".encode("ascii")

    @classmethod
    def parse(cls, value: bytes) -> "Choice | None":
        """Read an unsigned value; None if we did not write it."""
        try:
            form, state, version, at, revision, source = value.split(b".")
            if form != b"1" or state not in {b"g", b"d"}:
                return None
            name = version.decode("ascii")
            return cls(state == b"g", name, int(at), int(revision), _SOURCES[source])
        except (ValueError, KeyError):
            return None


@dataclass(frozen=True, slots=True)
class StoredConsent:
    """The app's own stored answer about a visitor, as `consent_from` gives it.

    Attributes:
        granted: What the visitor chose.
        at: When, as a datetime (naive: UTC) or seconds since the epoch. Without a time the
            answer counts as current.
    """

    granted: bool
    at: datetime | float | None = None
