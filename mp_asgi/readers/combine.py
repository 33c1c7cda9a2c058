"""Ask readers about a request's cookies, and join what they answer. The only place that asks."""

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .base import DENIED, UNREADABLE, Reader, Reading, Said

MAX_VALUE_BYTES = 4_096  # rfc6265bis 5.5: browsers drop a longer pair
MAX_COPIES = 4  # more copies of one name are an attack, not a browser
MAX_COMBINATIONS = 16  # two cookies with all their copies

Found = Sequence[tuple[str, bytes]]
"""Names and raw values of cookies, in the order they came."""

# Permits least first; what is not listed does not decide.
_DECIDING = (Said.DENIED, Said.UNREADABLE, Said.STALE, Said.GRANTED)


class Heard(NamedTuple):
    """What one reader said of a request.

    Attributes:
        name: Of the reader.
        reading: Its answer.
        cookies: Names of its cookies that were there.
        found: All cookies of the request that anybody reads.
    """

    name: str
    reading: Reading
    cookies: tuple[str, ...]
    found: Found

    def evidence(self) -> str:
        """Answer `NAME:HASH` of the cookies, the hash SHA-256 of the raw value in hexadecimal.

        Joined by a space, and at most `MAX_COPIES` of them.
        """
        own = (item for item in self.found if item[0] in self.cookies)
        return " ".join(
            f"{name}:{hashlib.sha256(value).hexdigest()}"
            for name, value in itertools.islice(own, MAX_COPIES)
        )


class ManagersSaid:
    """What all consent managers of a request say together: who permits least decides.

    Args:
        heard: Of the readers whose cookies were there, in the configured order.

    Attributes:
        said: The choice of all.
        name: Of the first reader that says so; empty if none said anything.
        names: Of all that do.
        at: Seconds since the epoch: of the newest denial, or of the oldest grant, if every grant
            tells its time.
        until: Seconds since the epoch after which the grant is stale; None if it does not end.
        present: Names of the readers whose cookies were there.
    """

    __slots__ = ("at", "heard", "name", "names", "present", "said", "until")

    def __init__(self, heard: tuple[Heard, ...]) -> None:
        self.heard = heard
        self.present = tuple([item.name for item in heard])
        self.said = Said.NOTHING
        self.name = ""
        self.names: tuple[str, ...] = ()
        self.at: float | None = None
        self.until: float | None = None
        readings = [item.reading for item in heard]
        said = [reading.said for reading in readings]
        for deciding in _DECIDING:
            if deciding in said:
                self.said = deciding
                decided = [item for item in heard if item.reading.said is deciding]
                self.names = tuple([item.name for item in decided])
                self.name = self.names[0]
                self._decide([item.reading for item in decided])
                return

    def _decide(self, readings: Sequence[Reading]) -> None:
        """Join the times of those that decide."""
        known = [reading.at for reading in readings if reading.at is not None]
        if self.said is Said.DENIED:
            self.at = max(known, default=None)
        elif self.said is Said.GRANTED:
            self.at = min(known) if len(known) == len(readings) else None
            ends = [reading.until for reading in readings if reading.until is not None]
            self.until = min(ends, default=None)

    def evidence(self) -> str:
        """Answer the evidence of the reader that decided; empty if none did."""
        return next((item.evidence() for item in self.heard if item.name == self.name), "")


NO_MANAGERS = ManagersSaid(())


def read_managers(readers: Iterable[Reader], found: Found) -> ManagersSaid:
    """Ask every reader whose cookies are there. Never raises, whatever a reader does.

    Args:
        readers: In the configured order.
        found: At least the cookies that they read.
    """
    values = {name: raw.decode("latin-1") for name, raw in found}
    odd = _find_odd(values, found)
    heard = []
    for reader in readers:
        names = reader.cookies
        own = _select(names, values)
        if not own:
            continue
        is_plain = not odd or odd.isdisjoint(own)
        reading = _read(reader, own) if is_plain else _read_copies(reader, own, found)
        if reading.said is Said.NOTHING and "*" in names:
            continue  # it reads everything, so that something is there proves nothing
        heard.append(Heard(reader.name, reading, tuple(own), found))
    return ManagersSaid(tuple(heard))


def _select(names: Sequence[str], values: Mapping[str, str]) -> dict[str, str]:
    own = {}
    for name in names:
        if name in values:
            own[name] = values[name]
        elif name[-1] == "*":
            start = name[:-1]
            own.update({item: values[item] for item in values if item.startswith(start)})
    return own


def _find_odd(values: Mapping[str, str], found: Found) -> set[str]:
    """Answer the names that are too long, or there twice and not alike."""
    odd = {name for name, value in values.items() if len(value) > MAX_VALUE_BYTES}
    if len(values) != len(found):
        odd.update(name for name, raw in found if raw.decode("latin-1") != values[name])
    return odd


def _read_copies(reader: Reader, own: Mapping[str, str], found: Found) -> Reading:
    """Read every combination of the copies: all must agree, but any denial counts.

    reference/consent.md section 6, conflict f.
    """
    copies: dict[str, list[str]] = {name: [] for name in own}
    for name, raw in found:
        if name in copies:
            copies[name].append(raw.decode("latin-1"))
    readable = {name: _find_readable(values) for name, values in copies.items()}
    is_whole = readable == copies
    combinations = itertools.product(*(values for values in readable.values() if values))
    names = [name for name, values in readable.items() if values]
    first = list(itertools.islice(combinations, MAX_COMBINATIONS + 1)) if names else []
    readings = [
        _read(reader, dict(zip(names, values, strict=True))) for values in first[:MAX_COMBINATIONS]
    ]
    is_whole = is_whole and len(first) <= MAX_COMBINATIONS
    return _settle(readings if is_whole else [*readings, UNREADABLE])


def _find_readable(values: Sequence[str]) -> list[str]:
    return [value for value in values[:MAX_COPIES] if len(value) <= MAX_VALUE_BYTES]


def _settle(readings: Sequence[Reading]) -> Reading:
    denials = [item for item in readings if item.said is Said.DENIED]
    if denials:
        times = [item.at for item in denials if item.at is not None]
        return DENIED._replace(at=max(times, default=None))
    first = readings[0]
    return first if all(item == first for item in readings) else UNREADABLE


def _read(reader: Reader, cookies: Mapping[str, str]) -> Reading:
    try:
        reading = reader.read(cookies)
        said, at, until = reading
        # A reader that is not ours may answer anything, and no time compares with NaN.
        is_sound = (
            type(said) is Said
            and (at is None or math.isfinite(at))
            and (until is None or math.isfinite(until))
        )
        return reading if is_sound and type(reading) is Reading else UNREADABLE
    except Exception:  # noqa: BLE001  # any cookie can fail it; unreadable is never a grant
        return UNREADABLE
