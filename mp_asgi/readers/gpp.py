"""Decode GPP strings, and read the opt-outs in them.

IAB Tech Lab, "Global Privacy Platform"; reference/consent.md section 2.4 has the rule. No US
section ever grants: only the section of the European TCF can.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, NamedTuple

from .base import DENIED, NOTHING, UNREADABLE, Reading
from .bits import read_bits
from .gpp_layouts import US_LAYOUTS, VERSION_BITS, UsLayout
from .strictest import strictest
from .tcf import Tcf, TCString, decode_tc_string
from .usprivacy import read_us_privacy

_TCF_EU, _US_PRIVACY = 2, 6  # section ids
_HEADER = "000011000001"  # type 3, version 1
_HEADER_BITS = 24  # with the count of id ranges
_GPC_TYPE = "01"
# Nineteen digits make an id up to 10,945; the ids given out end at 27.
_FIBONACCI = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597, 2584, 4181, 6765)


class OptOut(Enum):
    """What a field of two bits says. The fourth value is not given out."""

    NOT_APPLICABLE = "00"
    OPTED_OUT = "01"
    DID_NOT_OPT_OUT = "10"


_OPT_OUTS = {item.value: item for item in OptOut}


class UsSection(NamedTuple):
    """The opt-outs of one US section.

    Attributes:
        section_id: As registered: 7 to 27.
        name: `usnat`, `usca`, ...
        sale: Of selling personal data.
        sharing: None where the section has no such field, `targeted` likewise.
        targeted: Of targeted advertising.
        gpc: The section's own copy of the signal; None where it carries none.
    """

    section_id: int
    name: str
    version: int
    sale: OptOut
    sharing: OptOut | None
    targeted: OptOut | None
    gpc: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GppString:
    """What is known of one string.

    Attributes:
        section_ids: All of them, also those that are unknown here.
        us: The US sections, in the string's order.
        us_privacy: The section uspv1; empty if there is none.
        tcf: The section tcfeuv2; None if there is none.
    """

    section_ids: tuple[int, ...]
    us: tuple[UsSection, ...] = ()
    us_privacy: str = ""
    tcf: TCString | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpp:
    """Read IAB GPP strings: any opt-out denies, and only a TCF section may grant.

    Attributes:
        cookie: Names of the cookies that may hold one; the standard leaves it to the manager.
        targeted: Whether an opt-out of targeted advertising denies, too.
        tcf: The rule for a TCF section; its cookies are not read.
    """

    name: ClassVar[str] = "iab-gpp"
    cookie: tuple[str, ...] = ("__gpp", "OTGPPConsent", "IABGPP_HDR_GppString")
    targeted: bool = False
    tcf: Tcf = Tcf()

    @property
    def cookies(self) -> tuple[str, ...]:
        """Answer the names; see `Reader`."""
        return self.cookie

    def read(self, cookies: Mapping[str, str]) -> Reading:
        """Answer what the strings say; see `Reader`."""
        return strictest(
            [self.read_string(cookies[name]) for name in self.cookie if name in cookies]
        )

    def read_string(self, text: str) -> Reading:
        """Answer what one string says."""
        try:
            sections = _split(text)
        except (LookupError, ValueError):
            return UNREADABLE
        return strictest([self._read_section(section_id, body) for section_id, body in sections])

    def _read_section(self, section_id: int, body: str) -> Reading:
        if section_id == _TCF_EU:
            return self.tcf.read_string(body)
        if section_id == _US_PRIVACY:
            return read_us_privacy(body)
        if section_id not in US_LAYOUTS:
            return NOTHING
        try:
            section = _read_us(section_id, body)
        except (LookupError, ValueError):
            return UNREADABLE
        said = (section.sale, section.sharing, section.targeted if self.targeted else None)
        return DENIED if section.gpc or OptOut.OPTED_OUT in said else NOTHING


def decode_gpp(text: str) -> GppString | None:
    """Answer what is known of a string; None if it or a known section cannot be decoded."""
    try:
        sections = _split(text)
        us = tuple(_read_us(item, body) for item, body in sections if item in US_LAYOUTS)
    except (LookupError, ValueError):
        return None
    bodies = dict(sections)
    us_privacy = bodies.get(_US_PRIVACY, "")
    tcf = decode_tc_string(bodies[_TCF_EU]) if _TCF_EU in bodies else None
    if (_TCF_EU in bodies and tcf is None) or (
        _US_PRIVACY in bodies and read_us_privacy(us_privacy) is UNREADABLE
    ):
        return None
    return GppString(section_ids=tuple(bodies), us=us, us_privacy=us_privacy, tcf=tcf)


def _split(text: str) -> list[tuple[int, str]]:
    """Answer ids and sections. Raise LookupError or ValueError if they do not match."""
    header, *bodies = text.split("~")
    return list(zip(_read_ids(read_bits(header), len(bodies)), bodies, strict=True))


def _read_ids(bits: str, most: int) -> list[int]:
    if not bits.startswith(_HEADER) or len(bits) < _HEADER_BITS:
        raise ValueError("this is no GPP header of version 1")
    ids: list[int] = []
    position, last = _HEADER_BITS, 0
    for _ in range(int(bits[len(_HEADER) : _HEADER_BITS], 2)):
        is_group = bits[position] == "1"
        step, position = _read_fibonacci(bits, position + 1)
        first = last = last + step
        if is_group:
            step, position = _read_fibonacci(bits, position)
            last += step
        # Before the ids are written out: a few bits can name thousands.
        if len(ids) + last - first >= most:
            raise ValueError("the header names more sections than there are")
        ids.extend(range(first, last + 1))
    return ids


def _read_fibonacci(bits: str, start: int) -> tuple[int, int]:
    """Answer a number in Fibonacci code, which ends with two ones, and where the next begins."""
    end = bits.index("11", start) + 1
    if end - start > len(_FIBONACCI):
        raise ValueError("a section id is too large")
    digits = zip(_FIBONACCI, bits[start:end], strict=False)
    return sum(weight for weight, digit in digits if digit == "1"), end + 1


def _read_us(section_id: int, body: str) -> UsSection:
    """Answer one section's opt-outs. Raise LookupError or ValueError if they are not there."""
    layout = US_LAYOUTS[section_id]
    core, *others = body.split(".")
    if "" in others:
        raise ValueError("a subsection is empty")
    bits = read_bits(core)
    version = int(bits[:VERSION_BITS], 2)
    if version not in layout.versions:
        raise ValueError(f"{layout.name} has no version {version}")
    return UsSection(
        section_id,
        layout.name,
        version,
        _read_opt_out(bits, layout.sale),
        None if layout.sharing is None else _read_opt_out(bits, layout.sharing),
        None if layout.targeted is None else _read_opt_out(bits, layout.targeted),
        _read_gpc(layout, others),
    )


def _read_opt_out(bits: str, index: int) -> OptOut:
    start = VERSION_BITS + 2 * index
    return _OPT_OUTS[bits[start : start + 2]]


def _read_gpc(layout: UsLayout, others: list[str]) -> bool | None:
    if not layout.has_gpc:
        return None
    signals = [bits[2] == "1" for bits in map(read_bits, others) if bits[:2] == _GPC_TYPE]
    return any(signals) if signals else None
