"""Decode TCF v2 strings, and read from one whether analytics is granted.

IAB Tech Lab, "Consent string and vendor list formats v2", has the core segment's fields;
reference/consent.md section 2.3 has the rule. The other segments decide nothing.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import ClassVar, NamedTuple

from .base import DENIED, UNREADABLE, Reading, Said
from .bits import read_bits
from .strictest import strictest

# TCF policies, appendix B: users are reminded at least every 13 months.
MAX_AGE_SECONDS = 395 * 86_400
MAX_PURPOSE = 24
MAX_VENDOR_ID = 65_535

_VERSION_2 = "000010"
_CREATED = slice(6, 42)
_UPDATED = slice(42, 78)
_CMP_ID = slice(78, 90)
_CMP_VERSION = slice(90, 102)
_SCREEN = slice(102, 108)
_LANGUAGE = slice(108, 120)
_VENDOR_LIST_VERSION = slice(120, 132)
_POLICY_VERSION = slice(132, 138)
_SERVICE_SPECIFIC = 138
_NON_STANDARD_TEXTS = 139
_SPECIAL_FEATURES = slice(140, 152)
_PURPOSES = slice(152, 176)
_PURPOSES_INTEREST = slice(176, 200)
_ONE_TREATMENT = 200
_COUNTRY = slice(201, 213)
_VENDORS = 213

_PURPOSE_ONE = 1 << (MAX_PURPOSE - 1)
_REQUIRE_CONSENT = 1  # the only restriction that leaves a consent as it is


class Restriction(NamedTuple):
    """What the publisher restricts for some vendors.

    Attributes:
        purpose: 1 to 24.
        kind: 0 not allowed, 1 only with consent, 2 only by legitimate interest.
        vendors: Their ids, as ranges.
    """

    purpose: int
    kind: int
    vendors: tuple[range, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TCString:
    """The core segment of one string.

    Attributes:
        created: Seconds since the epoch.
        updated: Seconds since the epoch; since TCF 2.2 the day's beginning.
        language: Two capital letters, `country` likewise; `?` for what is no letter.
        purposes: Those consented to; `purposes_interest` those by legitimate interest.
        has_purpose_one_treatment: Purpose 1 was not asked for, as the country's law has it.
        vendors: Ids consented to, as ranges; `vendors_interest` by legitimate interest.
    """

    created: float
    updated: float
    cmp_id: int
    cmp_version: int
    screen: int
    language: str
    vendor_list_version: int
    policy_version: int
    is_service_specific: bool
    has_non_standard_texts: bool
    special_features: frozenset[int]
    purposes: frozenset[int]
    purposes_interest: frozenset[int]
    has_purpose_one_treatment: bool
    country: str
    vendors: tuple[range, ...]
    vendors_interest: tuple[range, ...]
    restrictions: tuple[Restriction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcf:
    """Read IAB TCF v2 strings. A legitimate interest is no consent.

    Attributes:
        cookie: Names of the cookies that may hold one; where several do, all must grant.
        purposes: All of them must be consented to; purpose 1 also counts where the string
            says that it was not asked for.
        vendor_id: An id of the Global Vendor List that must be consented to as well; 0 for none.
    """

    name: ClassVar[str] = "iab-tcf"
    cookie: tuple[str, ...] = ("euconsent-v2", "eupubconsent-v2")
    purposes: tuple[int, ...] = (1, 8)
    vendor_id: int = 0
    _needed: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.purposes or not all(1 <= item <= MAX_PURPOSE for item in self.purposes):
            raise ValueError(
                f"purposes is {self.purposes!r}. Name at least one, each from 1 to {MAX_PURPOSE}."
            )
        if not 0 <= self.vendor_id <= MAX_VENDOR_ID:
            raise ValueError(
                f"vendor_id is {self.vendor_id!r}. Use an id up to {MAX_VENDOR_ID}, or 0 for none."
            )
        needed = sum(1 << (MAX_PURPOSE - purpose) for purpose in set(self.purposes))
        object.__setattr__(self, "_needed", needed)

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
        """Answer what one string says, at its last update."""
        try:
            core = _read_core(text)
        except (LookupError, ValueError):
            return UNREADABLE
        bits = core.bits
        updated = int(bits[_UPDATED], 2) / 10
        purposes = int(bits[_PURPOSES], 2)
        if bits[_ONE_TREATMENT] == "1":
            purposes |= _PURPOSE_ONE
        if purposes & self._needed == self._needed and self._has_vendor(core):
            return Reading(Said.GRANTED, updated, updated + MAX_AGE_SECONDS)
        return DENIED._replace(at=updated)

    def _has_vendor(self, core: "_Core") -> bool:
        vendor_id = self.vendor_id
        if not vendor_id:
            return True
        return _is_among(core.bits, _VENDORS, vendor_id) and not any(
            purpose in self.purposes
            and kind != _REQUIRE_CONSENT
            and any(vendor_id in span for span in vendors)
            for purpose, kind, vendors in _read_restrictions(core.bits, core.restrictions)
        )


class _Core(NamedTuple):
    """The bits of a core segment that is there to its end, and where its last lists begin."""

    bits: str
    interests: int
    restrictions: int


def decode_tc_string(text: str) -> TCString | None:
    """Answer the fields of a string; None if it cannot be decoded or is of another version."""
    try:
        core = _read_core(text)
    except (LookupError, ValueError):
        return None
    bits = core.bits
    return TCString(
        created=int(bits[_CREATED], 2) / 10,
        updated=int(bits[_UPDATED], 2) / 10,
        cmp_id=int(bits[_CMP_ID], 2),
        cmp_version=int(bits[_CMP_VERSION], 2),
        screen=int(bits[_SCREEN], 2),
        language=_read_letters(bits[_LANGUAGE]),
        vendor_list_version=int(bits[_VENDOR_LIST_VERSION], 2),
        policy_version=int(bits[_POLICY_VERSION], 2),
        is_service_specific=bits[_SERVICE_SPECIFIC] == "1",
        has_non_standard_texts=bits[_NON_STANDARD_TEXTS] == "1",
        special_features=_read_set(bits[_SPECIAL_FEATURES]),
        purposes=_read_set(bits[_PURPOSES]),
        purposes_interest=_read_set(bits[_PURPOSES_INTEREST]),
        has_purpose_one_treatment=bits[_ONE_TREATMENT] == "1",
        country=_read_letters(bits[_COUNTRY]),
        vendors=_read_vendors(bits, _VENDORS),
        vendors_interest=_read_vendors(bits, core.interests),
        restrictions=tuple(_read_restrictions(bits, core.restrictions)),
    )


def _read_core(text: str) -> _Core:
    """Check that every list is there in full. Raise LookupError or ValueError if not."""
    bits = read_bits(text.partition(".")[0])
    if not bits.startswith(_VERSION_2):
        raise ValueError("this is no TCF string of version 2")
    interests = _find_vendors_end(bits, _VENDORS)
    restrictions = _find_vendors_end(bits, interests)
    end = restrictions + 12
    for _ in range(int(bits[restrictions:end], 2)):
        end = _find_ranges_end(bits, end + 8)
    if end > len(bits):
        raise ValueError("the string ends too early")
    return _Core(bits, interests, restrictions)


def _find_vendors_end(bits: str, start: int) -> int:
    if bits[start + 16] == "1":
        return _find_ranges_end(bits, start + 17)
    return start + 17 + int(bits[start : start + 16], 2)


def _find_ranges_end(bits: str, start: int) -> int:
    end = start + 12
    # Each takes at least 17 bits, so the text's length bounds the work, whatever the count says.
    for _ in range(int(bits[start:end], 2)):
        end += 33 if bits[end] == "1" else 17
    return end


def _read_vendors(bits: str, start: int) -> tuple[range, ...]:
    first = start + 17
    if bits[start + 16] == "1":
        return tuple(_read_ranges(bits, first))
    flags = bits[first : _find_vendors_end(bits, start)]
    return tuple(range(run.start() + 1, run.end() + 1) for run in re.finditer("1+", flags))


def _read_ranges(bits: str, start: int) -> Iterator[range]:
    position = start + 12
    for _ in range(int(bits[start:position], 2)):
        first = last = int(bits[position + 1 : position + 17], 2)
        if bits[position] == "1":
            last = int(bits[position + 17 : position + 33], 2)
            position += 16
        position += 17
        yield range(first, last + 1)


def _read_restrictions(bits: str, start: int) -> Iterator[Restriction]:
    position = start + 12
    for _ in range(int(bits[start:position], 2)):
        purpose, kind = (
            int(bits[position : position + 6], 2),
            int(bits[position + 6 : position + 8], 2),
        )
        yield Restriction(purpose, kind, tuple(_read_ranges(bits, position + 8)))
        position = _find_ranges_end(bits, position + 8)


def _is_among(bits: str, start: int, vendor_id: int) -> bool:
    first = start + 17
    if bits[start + 16] == "1":
        return any(vendor_id in span for span in _read_ranges(bits, first))
    return vendor_id <= int(bits[start : start + 16], 2) and bits[first + vendor_id - 1] == "1"


def _read_set(flags: str) -> frozenset[int]:
    return frozenset(number for number, flag in enumerate(flags, start=1) if flag == "1")


def _read_letters(bits: str) -> str:
    letters = (int(bits[:6], 2), int(bits[6:], 2))
    return "".join(ascii_uppercase[letter : letter + 1] or "?" for letter in letters)
