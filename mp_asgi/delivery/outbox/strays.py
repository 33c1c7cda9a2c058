"""Find what waits in a project's other outboxes: nobody looks there since the settings changed.

It is told, and not moved: whom a stop ended since is not known there.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mp_asgi.errors import OutboxUnavailable
from mp_asgi.settings import Settings
from mp_asgi.settings.outbox_place import OutboxKind

from .location import find_location, owner_name

_BUSY_SECONDS: Final = 0.1  # a start does not wait for another program
_SPOOL: Final = ".spool.sqlite3"
_NAME: Final = re.compile(r"[0-9a-f]{16}(\.spool)?\.sqlite3")
_WAITING: Final = (
    "SELECT coalesce(sum(count), 0) FROM entries WHERE (SELECT project FROM state) = ?"
)


@dataclass(frozen=True, slots=True)
class Stray:
    """An outbox, or a spool, of this token that these settings do not lead to.

    Attributes:
        path: Of its file.
        depth: Messages that wait in it.
    """

    path: Path
    depth: int

    def render(self) -> str:
        """Answer what to tell about it."""
        return (
            f"Messages of this MIXPANEL_TOKEN ({self.depth:,}) wait in {self.path}, where nobody "
            "looks with these settings: MIXPANEL_API_HOST or MP_ASGI_OUTBOX was another one. "
            f'{self._remedy()}docs/operations.md, "Another host", says what to do.'
        )

    def _remedy(self) -> str:
        if not self.path.name.endswith(_SPOOL):
            return ""
        return (
            "They were for Redis: a start with the old settings, or `mp-asgi drain` with them, "
            "hands them over. "
        )


def find_strays(settings: Settings) -> list[Stray]:
    """Answer those in the project's directory in which anything waits. Never raises."""
    kind = settings.outbox_place.kind
    if kind is OutboxKind.MEMORY:
        return []
    try:
        location = find_location(settings)
        own = location.spool if kind is OutboxKind.REDIS else location.outbox
        paths = [path for path in sorted(own.parent.iterdir()) if path != own]
    except (OutboxUnavailable, OSError):
        return []
    return list(_look_into(paths, owner_name(settings)))


def _look_into(paths: list[Path], owner: str) -> Iterator[Stray]:
    for path in paths:
        if not _NAME.fullmatch(path.name):
            continue
        try:
            depth = _count(path, owner)
        except (sqlite3.Error, OSError):  # another program's, damaged, or not for us
            continue
        if depth:
            yield Stray(path, depth)


def _count(path: Path, owner: str) -> int:
    uri = f"{path.as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, timeout=_BUSY_SECONDS, uri=True)) as connection:
        return int(connection.execute(_WAITING, (owner,)).fetchone()[0])
