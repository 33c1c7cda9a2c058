"""Real cookie headers, by the consent manager that wrote them, and what a reader says of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mp_asgi.readers.base import NOTHING, Reader, Reading, Said

TESTS = Path(__file__).resolve().parent.parent
MEASURED = TESTS / "fixtures" / "cmp_cookies.jsonl"
DOCUMENTED = TESTS.parent.parent / "shared" / "fixtures" / "cmp_cookies_documented.jsonl"

_STATES = {Said.GRANTED: "granted", Said.DENIED: "denied"}


def rows_of(manager: str) -> list[Any]:
    """Answer one case (header, expected state) for each line of both files."""
    cases = [*_read(MEASURED, manager)]
    if DOCUMENTED.exists():
        return [*cases, *_read(DOCUMENTED, manager)]
    missing = pytest.mark.skip(reason="the documented headers are not on this machine")
    return [*cases, pytest.param("", "unknown", marks=missing, id="documented")]


def read_header(reader: Reader, header: str) -> Reading:
    """Answer what the reader says of those cookies of a header that it asks for."""
    pairs = (pair.partition("=") for pair in header.split("; ") if pair)
    asked = tuple(reader.cookies)
    cookies = {
        name: value
        for name, _, value in pairs
        if name in asked or any(name.startswith(item[:-1]) for item in asked if item[-1] == "*")
    }
    return reader.read(cookies) if cookies else NOTHING


def state_of(reading: Reading) -> str:
    """Answer it in the fixtures' words: all that is neither granted nor denied is unknown."""
    return _STATES.get(reading.said, "unknown")


def _read(path: Path, manager: str) -> Iterator[Any]:
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row["cmp"] == manager:
            name = f"{row['version']}-{row['scenario']}".replace(" ", "-")
            yield pytest.param(row["cookie_header"], row["expected_analytics"], id=name)
