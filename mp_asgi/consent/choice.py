"""Carry a visitor's own choice in the consent cookie. No identifier is inside."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

_SOURCES: Final = frozenset({"own", "gpc-override", "unreadable"})
_MIRROR: Final = "mirror:"
_MIRRORED: Final = re.compile(r"mirror:[A-Za-z0-9_-]{1,64}(\+[A-Za-z0-9_-]{1,64}){0,31}")


class Choice(NamedTuple):
    """What the visitor chose (RULES section 2, rule 2).

    Attributes:
        is_granted: Grant or denial.
        version: Name of the notice the visitor saw; empty without one.
        at: Seconds since the epoch of the choice.
        revision: Counts the choices of this browser.
        source: `own`, `gpc-override` (granted in a request that carried GPC), `unreadable`
            (a denial that stands in for a cookie we could not read) or `mirror:NAME` (what the
            consent manager of that name said, for when its cookie is missing; several names are
            joined by `+`).
    """

    is_granted: bool
    version: str
    at: int
    revision: int
    source: str

    @property
    def mirrored(self) -> tuple[str, ...]:
        """Names of the consent managers that this mirrors; none for a choice made with us."""
        if not self.source.startswith(_MIRROR):
            return ()
        return tuple(self.source.removeprefix(_MIRROR).split("+"))

    def render(self) -> bytes:
        """Render the value to sign."""
        state = "g" if self.is_granted else "d"
        return f"1.{state}.{self.version}.{self.at}.{self.revision}.{self.source}".encode("ascii")

    @classmethod
    def parse(cls, value: bytes) -> "Choice | None":
        """Read an unsigned value; None if we did not write it."""
        try:
            form, state, version, at, revision, source = value.decode("ascii").split(".")
            if form != "1" or state not in {"g", "d"} or not _is_source(source):
                return None
            return cls(state == "g", version, int(at), int(revision), source)
        except ValueError:
            return None


def mirror_source(managers: Iterable[str]) -> str:
    """Answer the source of a choice that mirrors these consent managers'."""
    return _MIRROR + "+".join(managers)


def _is_source(source: str) -> bool:
    return source in _SOURCES or _MIRRORED.fullmatch(source) is not None


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
