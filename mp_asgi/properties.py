"""Snapshot what an app hands to `track()` as plain JSON values, and fit them to Mixpanel's limits.

`freeze` runs in the request and is cheap; `fit` runs in the worker and does the rest.
"""

import math
import numbers
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from .errors import InvalidEvent

MAX_STRING_BYTES = 255  # Mixpanel cuts there itself (docs: user-profile-limits, events)
MAX_DEPTH = 8  # Mixpanel keeps 3 levels of objects; a cycle is deeper than any honest value
MAX_INTEGER = 2**63  # beyond 64 bits JSON readers disagree

_SCALARS = frozenset({str, int, float, bool, type(None)})

Properties = dict[str, Any]


def freeze(properties: Mapping[str, Any]) -> Properties:
    """Copy properties so that a later change of them, or of what they hold, changes nothing.

    Dates become text in UTC (naive ones are taken as UTC), sets and tuples lists, Decimal and
    NumPy numbers floats, UUID and str subclasses text, members of an Enum their values.

    Raises:
        InvalidEvent: `unserialisable` for anything else; no code of the value is run.
    """
    scalars = _SCALARS
    for key, value in properties.items():
        if type(value) not in scalars or type(key) is not str:
            return _freeze_deep(properties)
    return dict(properties)


def _freeze_deep(properties: Mapping[str, Any]) -> Properties:
    try:
        return {_freeze_key(key): _freeze(value, 1) for key, value in properties.items()}
    except (ValueError, ArithmeticError) as error:
        # What has no float (Decimal("sNaN")), no digits (10**5000), no UTC (the year 1 in Tokyo).
        if isinstance(error, InvalidEvent):
            raise
        raise InvalidEvent("unserialisable", "A number or a time is out of range.") from error


def _freeze_key(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or type(key) in _SCALARS:
        return str(key)
    raise InvalidEvent("unserialisable", f"A property is named by a {type(key).__name__}.")


def _freeze(value: object, depth: int) -> Any:
    if type(value) in _SCALARS:
        return value
    if depth > MAX_DEPTH:
        raise InvalidEvent("unserialisable", f"Values are nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, Enum):
        return _freeze(value.value, depth + 1)
    if isinstance(value, Mapping):
        return {_freeze_key(key): _freeze(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_freeze(item, depth + 1) for item in value]
    if isinstance(value, AbstractSet):
        return sorted((_freeze(item, depth + 1) for item in value), key=repr)
    return _freeze_leaf(value)


def _freeze_leaf(value: object) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value
        # Mixpanel docs: data-structure, dates in UTC and without a zone.
        return moment.replace(tzinfo=None).isoformat(timespec="seconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, (numbers.Real, Decimal)):
        return float(value)
    raise InvalidEvent(
        "unserialisable",
        f"A value of type {type(value).__name__} has no JSON form; pass a str, number, bool, "
        "date, list or dict.",
    )


def fit(value: Any) -> Any:
    """Repair a frozen value where Mixpanel's rules allow: text is cut to 255 bytes of valid
    UTF-8, numbers that JSON does not know become null or text, empty names are left out.
    """
    if isinstance(value, str):
        return fit_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: fit(item) for key, item in value.items() if (name := fit_text(key))}
    if isinstance(value, list):
        return [fit(item) for item in value]
    if isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
        return _fit_integer(value)
    return value


def fit_text(text: str) -> str:
    """Cut text to 255 bytes at a character's end; a lone surrogate becomes a question mark."""
    if len(text) <= MAX_STRING_BYTES // 4 and text.isascii():
        return text
    encoded = text.encode("utf-8", "replace")
    return encoded[:MAX_STRING_BYTES].decode("utf-8", "ignore")


def _fit_integer(value: int) -> str | None:
    # str() of an integer over 4300 digits raises (CVE-2020-10735).
    return str(value) if value.bit_length() <= MAX_STRING_BYTES * 3 else None
