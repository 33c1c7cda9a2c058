"""Read OneTrust's two cookies: the groups, and when the banner was closed.

`OptanonConsent` is there before any choice, with the template's defaults; only
`OptanonAlertBoxClosed` tells that somebody chose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .base import DENIED, NOTHING, STALE, UNREADABLE, Reading, Said
from .dated import read_dated
from .parsing import decode_percent

_CONSENT, _CLOSED = "OptanonConsent", "OptanonAlertBoxClosed"
_GPC, _GROUPS, _AWAITING = "isGpcEnabled", "groups", "AwaitingReconsent"
_WANTED = frozenset({_GPC, _GROUPS, _AWAITING})


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTrust:
    """Read `OptanonConsent` and `OptanonAlertBoxClosed`.

    Under GPC OneTrust itself may leave the group of analytics on; without a choice it is a denial
    here.

    Attributes:
        groups: The site's groups that must all be on; C0002 is "performance" by default.
    """

    name: ClassVar[str] = "onetrust"
    cookies: ClassVar[tuple[str, ...]] = (_CONSENT, _CLOSED)
    groups: tuple[str, ...] = ("C0002",)

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError("groups is empty. Name at least one, such as C0002.")

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what was chosen for the groups; see `Reader`."""
        if _CONSENT not in cookies:
            return UNREADABLE
        fields, closed = _read_fields(cookies[_CONSENT]), cookies.get(_CLOSED)
        if fields is None:
            return UNREADABLE
        if closed is None:
            return DENIED if fields.get(_GPC) == "1" else NOTHING
        reading = self._read_groups(fields.get(_GROUPS, ""), decode_percent(closed))
        # Only a yes grows old: whoever refused is asked again, and has refused until then.
        if reading.said is Said.GRANTED and fields.get(_AWAITING, "false") != "false":
            return STALE if fields[_AWAITING] == "true" else UNREADABLE
        return reading

    def _read_groups(self, text: str, closed: str) -> Reading:
        items = [item.partition(":") for item in text.split(",")]
        found = [(group, state) for group, _, state in items if group in self.groups]
        states = {state for _, state in found}
        if "0" in states:
            return read_dated(closed, is_granted=False)
        if not text or states - {"1"}:
            return UNREADABLE
        if {group for group, _ in found} != set(self.groups):
            return NOTHING
        return read_dated(closed, is_granted=True)


def _read_fields(text: str) -> dict[str, str] | None:
    """Answer the wanted fields of a form; None if one is told twice, and differently, or is none.

    By hand: `parse_qsl` decodes the dozen others as well.
    """
    fields: dict[str, str] = {}
    for pair in text.split("&"):
        name, separator, value = pair.partition("=")
        if not separator:
            return None  # it may be a damaged AwaitingReconsent, which would withhold a yes
        name = decode_percent(name)
        if name in _WANTED:
            value = decode_percent(value.replace("+", " "))
            if fields.setdefault(name, value) != value:
                return None
    return fields
