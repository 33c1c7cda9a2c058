"""Set a damaged file aside, with its log, and put a new one in its place: whole or not at all.

What a new file begins with is not decided here.
"""

import contextlib
import glob
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mp_asgi.delivery.log import logger

from .files import LOGS, create

_DAMAGES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

Begin = Callable[[Path, Path], None]
"""Makes the whole of a new file at the first path, after the one at the second was damaged."""


class Damaged(sqlite3.DatabaseError):
    """A row holds what was never written."""


def is_damage(error: sqlite3.Error) -> bool:
    """Answer whether an error says that the file is damaged, not merely unusable now."""
    # The low byte is the error, what is above tells more of it (sqlite.org/rescode.html).
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, Damaged) or code in _DAMAGES


class Quarantine:
    """The damaged files beside one.

    Whoever calls `set_aside` or `finish` is alone with the file.

    Args:
        path: Of the file.
        clock: Answers seconds since the epoch, for names.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._successor = path.with_name(f"{path.name}.new")
        self._clock = clock

    def asides(self) -> list[Path]:
        """Answer the damaged files that were set aside, oldest first, without their logs.

        Raises:
            OSError: The directory cannot be read.
        """
        found = self._path.parent.glob(f"{glob.escape(self._path.name)}.corrupt-*")
        return sorted((path for path in found if _aside_at(path) >= 0), key=_aside_at)

    def expire(self, oldest_kept: float) -> None:
        """Delete what was set aside before that time. What cannot be deleted stays."""
        with contextlib.suppress(OSError):
            for aside in self.asides():
                if _aside_at(aside) < oldest_kept:
                    for suffix in ("", *LOGS):
                        Path(f"{aside}{suffix}").unlink(missing_ok=True)

    def set_aside(self, error: sqlite3.Error, begin: Begin) -> None:
        """Give the file another name, and its own to a new one."""
        at = int(self._clock())
        while (aside := self._path.with_name(f"{self._path.name}.corrupt-{at}")).exists():
            at += 1
        create(self._successor, self._path)  # with it, who opens next ends what is half done
        # The file before its log: without the log it would be of before, and nobody would see it.
        self._path.rename(aside)
        self._succeed(aside, begin)
        logger.error(
            "The outbox %s is damaged (%s). It is now %s, with whatever waited in it, and a new "
            "one takes its place. To look for what can be read in it: sqlite3 FILE .recover",
            self._path,
            error,
            aside.name,
        )

    def finish(self, begin: Begin) -> None:
        """End what a process that was killed had begun."""
        if self._successor.exists() and not self._path.exists():
            for aside in self.asides()[-1:]:
                self._succeed(aside, begin)

    def _succeed(self, aside: Path, begin: Begin) -> None:
        for suffix in LOGS:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
            Path(f"{self._successor}{suffix}").unlink(missing_ok=True)
        os.truncate(self._successor, 0)
        begin(self._successor, aside)
        self._successor.rename(self._path)


def _aside_at(path: Path) -> int:
    """Answer when a file was set aside, by its name; -1 if it is none."""
    number = path.name.rpartition(".corrupt-")[2]
    return int(number) if number.isdecimal() else -1
