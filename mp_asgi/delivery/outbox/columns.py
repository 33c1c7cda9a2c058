"""Write an entry as columns, and read it back. What waits and what was buried have the same."""

import struct
from collections.abc import Sequence
from typing import Any, Final

from mp_asgi.events import Endpoint, Entry

from .frames import unpack
from .quarantine import Damaged

ENTRY_COLUMNS: Final = (
    "endpoint, messages, device_key, user_key, tracked_at, is_repeatable, is_identity"
)
"""What `read_entry` reads, in this order."""

ENDPOINTS: Final = tuple(Endpoint)
NUMBERS: Final = {endpoint: number for number, endpoint in enumerate(ENDPOINTS)}


def describe(entry: Entry) -> tuple[float, bool, bool, bytes, bytes]:
    """Answer what the tables say of an entry before its messages, in their order."""
    return (
        entry.tracked_at,
        entry.is_repeatable,
        entry.is_identity,
        entry.device_key,
        entry.user_key,
    )


def read_entry(row: Sequence[Any]) -> Entry:
    """Answer the entry of a row.

    Raises:
        Damaged: It is none.
    """
    endpoint, messages, device_key, user_key, tracked_at, is_repeatable, is_identity = row
    try:
        return Entry(
            ENDPOINTS[endpoint],
            unpack(messages),
            device_key,
            user_key,
            tracked_at,
            bool(is_repeatable),
            bool(is_identity),
        )
    except (struct.error, TypeError, ValueError, IndexError) as error:
        raise Damaged(f"an entry cannot be read: {error}") from error
