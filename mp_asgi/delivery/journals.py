"""Keep the journals of a project's processes in one directory, and find those whose process ended.

Whoever writes a journal holds its lock; a journal that can be locked is an orphan. Anybody may
read one meanwhile. A process without threads cannot store what it submits: its journal is `lone`,
and bears no seals.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from mp_asgi.events import Stop

from .journal import JournalFile

# The version of the format is in the name: what another version wrote is left to it.
SUFFIX: Final = ".journal-1"
LONE_SUFFIX: Final = ".lone-1"

_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Journaling(Generic[T]):
    """How a worker keeps what is submitted.

    Attributes:
        directory: Answers where; may raise OutboxUnavailable.
        pack: Makes bytes of an item or a stop; ValueError or TypeError if it cannot be packed.
        unpack: The way back; any exception for what is no item.
    """

    directory: Callable[[], Path]
    pack: Callable[[T | Stop], bytes]
    unpack: Callable[[bytes], T | Stop]


class Journals:
    """The journals in a directory.

    Args:
        directory: Made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: set[JournalFile] = set()

    def create(self, *, is_lone: bool, after: JournalFile | None = None) -> JournalFile:
        """Make a journal of this process.

        Args:
            is_lone: Whether the process has no threads.
            after: A file whose source it goes on with. Only for one of which the outbox has all:
                what comes behind a ticket is known to nobody.

        Raises:
            OSError: It cannot be made.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        suffix = LONE_SUFFIX if is_lone else SUFFIX
        while True:
            source = f"{os.getpid()}-{os.urandom(8).hex()}.0"
            if after is not None:
                source = f"{after.source}.{after.next_start}"
            try:
                file = JournalFile(self._directory / (source + suffix), is_new=True)
            except BlockingIOError:  # somebody took it for an orphan before it was locked
                continue
            self._open.add(file)
            return file

    def orphans(self, but: Collection[Path] = ()) -> Iterator[JournalFile]:
        """Answer the journals that nobody writes any more, the oldest first, each locked.

        Args:
            but: What to leave out.

        Raises:
            OSError: No descriptor is left.
        """
        for path in self._list(SUFFIX, LONE_SUFFIX):
            if path in but:
                continue
            try:
                file = JournalFile(path, is_new=False)
            except OSError as error:
                if error.errno in _NO_DESCRIPTOR:
                    raise
                continue  # its process lives, or somebody else has adopted it
            self._open.add(file)
            yield file

    def lone(self) -> list[Path]:
        """Answer those of processes without threads that may live, the oldest first.

        Raises:
            OSError: No descriptor is left.
        """
        return self._of_others(LONE_SUFFIX)

    def others(self) -> list[Path]:
        """Answer all but those that this process writes, the oldest first.

        Raises:
            OSError: No descriptor is left.
        """
        return self._of_others(SUFFIX, LONE_SUFFIX)

    def size_bytes(self) -> int:
        """Answer how much all of them take, as far as can be told."""
        return sum(size for _, size in self._measure())

    def filled(self) -> list[Path]:
        """Answer those that hold anything, of living processes, too; the oldest first."""
        return [path for path, size in self._measure() if size]

    def remove(self, file: JournalFile) -> bool:
        """Delete a journal of which the outbox has all. Return whether it is gone."""
        self._open.discard(file)
        return file.remove()

    def leave(self, file: JournalFile) -> None:
        """Leave a journal to whoever comes next."""
        self._open.discard(file)
        file.close()

    def abandon(self) -> None:
        """Let go of all of them in a forked child."""
        for file in self._open:
            file.abandon()

    def _of_others(self, *suffixes: str) -> list[Path]:
        own = {file.path for file in tuple(self._open)}
        return [path for path in self._list(*suffixes) if path not in own]

    def _measure(self) -> list[tuple[Path, int]]:
        sizes: list[tuple[Path, int]] = []
        with contextlib.suppress(OSError):
            for path in self._list(SUFFIX, LONE_SUFFIX):
                with contextlib.suppress(OSError):  # removed meanwhile
                    sizes.append((path, path.stat().st_size))
        return sizes

    def _list(self, *suffixes: str) -> list[Path]:
        """Answer the journals there, the oldest first.

        Raises:
            OSError: No descriptor is left: there may be some.
        """
        found = []
        try:
            for entry in os.scandir(self._directory):
                if entry.name.endswith(suffixes):
                    with contextlib.suppress(OSError):  # removed meanwhile
                        found.append((entry.stat().st_mtime_ns, entry.name))
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                raise
        return [self._directory / name for _, name in sorted(found)]
