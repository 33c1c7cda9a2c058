"""Append what was submitted to a file of this process: one write, and it survives the process.

A file is a row of records: length, checksum and number of messages, then the bytes. What ends in
the middle of a record ends before it: whoever wrote it never got to say that it was kept. A record
without bytes is a seal: what stands before it, back to the one before, is put into the outbox
together. So whoever reads the file again groups it again in the same way, and the outbox knows by
its ticket what it has.

Survives the end of the process, however it ends; not the end of the machine: nothing is synced.
"""

import contextlib
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows, where no journal can be told from an orphan
    fcntl = None  # type: ignore[assignment]  # `JournalFile` refuses

from .outbox.base import Ticket

GROUP_BYTES: Final = 256_000  # beyond it a group ends without a seal
ROTATE_BYTES: Final = 1_000_000  # of a file; the next one begins

_CLOSED: Final = -1

_HEAD: Final = struct.Struct("<III")


class Record(NamedTuple):
    """What one submit has left.

    Attributes:
        end: Where it ends in the file.
        messages: How many messages it holds.
        body: As it was packed; empty for a seal.
    """

    end: int
    messages: int
    body: bytes


class Group(NamedTuple):
    """Records that are put into the outbox together.

    Attributes:
        ticket: What the outbox knows them by.
        records: In order, without seals.
        end: Where they end in the file, with the seal.
    """

    ticket: Ticket
    records: Sequence[Record]
    end: int


class JournalFile:
    """One file and its lock, which tells others that this process lives.

    Args:
        path: Its name says the source of its tickets, and how much of it was in files before.
        is_new: Whether it must not be there yet.

    Attributes:
        size: Bytes of whole records.

    Raises:
        OSError: It cannot be made or opened, or another process holds it (BlockingIOError).
    """

    def __init__(self, path: Path, *, is_new: bool) -> None:
        if fcntl is None:  # pragma: no cover  # as above
            raise OSError("this system locks no files")
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self.path = path
        self._descriptor = os.open(path, flags | (os.O_CREAT | os.O_EXCL if is_new else 0), 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(self._descriptor)
            if not found.st_nlink:  # whoever held it has removed it
                raise BlockingIOError
        except OSError:
            os.close(self._descriptor)
            raise
        self.size = found.st_size

    @property
    def source(self) -> str:
        """What its tickets name."""
        return _read_name(self.path.name)[0]

    @property
    def next_start(self) -> int:
        """Where in the source the next file begins."""
        return _read_name(self.path.name)[1] + self.size

    def is_gone(self) -> bool:
        """Whether somebody has deleted it, as far as can be told."""
        try:
            return not os.fstat(self._descriptor).st_nlink
        except OSError:
            return False

    def append(self, record: bytes) -> bool:
        """Write a record as a whole. Return whether it is there."""
        try:
            written = os.write(self._descriptor, record)
            if written < len(record):  # the disk is full: nothing could be read behind this
                os.ftruncate(self._descriptor, self.size)
                return False
        except OSError:
            return False
        self.size += written
        return True

    def read(self, start: int, end: int) -> list[Group]:
        """Answer what stands between two ends of groups.

        Raises:
            OSError: The file cannot be read.
        """
        return read_groups(self.path.name, os.pread(self._descriptor, end - start, start), start)

    def read_bytes(self, start: int) -> bytes:
        """Answer what stands behind the end of a group, as it stands.

        Raises:
            OSError: The file cannot be read.
        """
        return os.pread(self._descriptor, self.size - start, start)

    def read_sealed(self, start: int) -> list[Group] | None:
        """Seal what stands behind the end of a group, and answer it; None if that cannot be.

        Raises:
            OSError: The file cannot be read.
        """
        if self.size > start and not self.append(make_record(b"", 0)):
            return None
        return self.read(start, self.size)

    def remove(self) -> None:
        """Delete the file, and let it go."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Leave the file to whoever comes; a fork of this process does not hold it either."""
        if self._descriptor != _CLOSED and fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file in a forked child: its parent goes on with it."""
        # Once: by then the number may be another file's.
        descriptor, self._descriptor = self._descriptor, _CLOSED
        with contextlib.suppress(OSError):
            os.close(descriptor)


class Journal:
    """What this process submits, until the outbox has it. Safe in several threads.

    Args:
        file: New and empty.

    Attributes:
        file: The one that is written now. Only its storer reads it.
        waiting: Messages that the outbox does not have yet.
        stored: Where in the file what the outbox does not have yet begins.
        is_over: It keeps nothing any more.
    """

    def __init__(self, file: JournalFile) -> None:
        self.file = file
        self.waiting = 0
        self.stored = 0
        # Re-entrant: a signal's handler may track, too.
        self._lock = threading.RLock()
        self.is_over = False

    def append(self, body: bytes, count: int) -> bool:
        """Keep an item. Return whether it is kept.

        Args:
            body: As it was packed.
            count: How many messages it holds.
        """
        record = make_record(body, count)
        with self._lock:
            if self.is_over or not self.file.append(record):
                return False
            self.waiting += count
        return True

    def seal(self) -> list[Group]:
        """End a group, and answer all that the outbox does not have yet.

        Nothing if the seal cannot be written: what is not sealed is not put, or it would belong to
        another group later.

        Raises:
            OSError: The file cannot be read.
        """
        with self._lock:
            file, start = self.file, self.stored
            if file.size == start or not file.append(make_record(b"", 0)):
                return []
            end = file.size
        return file.read(start, end)  # without the lock: requests append meanwhile

    def settle(self, group: Group) -> None:
        """Take note that the outbox has a group, and that it was the first."""
        with self._lock:
            self.waiting -= sum(record.messages for record in group.records)
            self.stored = group.end

    @property
    def is_stored(self) -> bool:
        """Whether the outbox has all of the file."""
        return self.stored == self.file.size

    def rotate(self, file: JournalFile) -> tuple[JournalFile, int]:
        """Go on in another file. Answer the old one, and where what is not stored begins."""
        with self._lock:
            old, start = self.file, self.stored
            self.file, self.stored, self.waiting = file, 0, 0
            return old, start

    def replace(self, file: JournalFile) -> JournalFile | None:
        """Go on in another file, if the outbox has all of this one. Answer this one then."""
        with self._lock:
            return self.rotate(file)[0] if self.is_stored else None

    def rescue(self, file: JournalFile) -> JournalFile:
        """Go on in another file, with what the outbox does not have yet. Answer this one.

        Raises:
            OSError: It cannot be read, or does not fit into the other one.
        """
        with self._lock:
            if not file.append(self.file.read_bytes(self.stored)):
                raise OSError("write")
            old, self.file, self.stored = self.file, file, 0
            return old

    def end(self) -> JournalFile:
        """Keep nothing from now on. Answer the file."""
        with self._lock:
            self.is_over = True
            return self.file


def make_record(body: bytes, count: int) -> bytes:
    """Answer the bytes of a record."""
    return _HEAD.pack(len(body), zlib.crc32(body, count), count) + body


def read_groups(name: str, data: bytes, start: int = 0) -> list[Group]:
    """Answer what is put together: what is sealed in groups, what is not, each for itself.

    Args:
        name: Of the file.
        data: Part of the file, from the end of a group on.
        start: Where in the file that is.
    """
    source, before = _read_name(name)
    records = _parse(data, start)
    last_seal = max((record.end for record in records if not record.body), default=0)
    groups: list[Group] = []
    gathered: list[Record] = []
    size = 0
    for record in records:
        if record.body:
            gathered.append(record)
            size += len(record.body)
        if gathered and (not record.body or size >= GROUP_BYTES or record.end > last_seal):
            groups.append(Group(Ticket(source, before + gathered[-1].end), gathered, record.end))
            gathered, size = [], 0
        elif groups and not record.body:
            groups[-1] = groups[-1]._replace(end=record.end)
    return groups


def _read_name(name: str) -> tuple[str, int]:
    """Answer the source of a file, and where in it the file begins."""
    source, _, rest = name.partition(".")
    start = rest.partition(".")[0]
    return source, int(start) if start.isdigit() else 0


def _parse(data: bytes, start: int) -> list[Record]:
    """Answer the whole records, up to the first that is not."""
    records = []
    position = 0
    while position + _HEAD.size <= len(data):
        length, checksum, count = _HEAD.unpack_from(data, position)
        begin = position + _HEAD.size
        body = data[begin : begin + length]
        if len(body) < length or zlib.crc32(body, count) != checksum:
            break
        position = begin + length
        records.append(Record(start + position, count, body))
    return records
