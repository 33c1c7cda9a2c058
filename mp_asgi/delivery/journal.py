"""Append what was submitted to a file of this process: one write, and it survives the process.

A file is a row of records: length, checksum, number of messages and time, then the bytes. What
ends in the middle of a record ends before it: whoever wrote it never got to say that it was kept. A
record without bytes is a seal: what stands before it, back to the one before, is put into the
outbox together, again and again in the same way, until the outbox says that it has it. Whoever
inherits the file puts one record after the other; the outbox knows by their tickets what it has.

Survives the end of the process, however it ends; not the end of the machine: nothing is synced.
"""

import contextlib
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows, where no journal can be told from an orphan
    fcntl = None  # type: ignore[assignment]  # `JournalFile` refuses

from .outbox.base import Ticket

GROUP_BYTES: Final = 256_000  # beyond it a group ends without a seal
ROTATE_BYTES: Final = 1_000_000  # of a file; the next one begins

_CLOSED: Final = -1

_HEAD: Final = struct.Struct("<IIId")


class Record(NamedTuple):
    """What one submit has left.

    Attributes:
        end: Where it ends in the file.
        messages: How many messages it holds; none is a stop, or a seal.
        at: When it was submitted, in seconds since the epoch.
        body: As it was packed; empty for a seal.
    """

    end: int
    messages: int
    at: float
    body: bytes

    @property
    def start(self) -> int:
        """Where it begins in the file."""
        return self.end - len(self.body) - _HEAD.size


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
        data = os.pread(self._descriptor, end - start, start)
        return gather(self.path.name, read_records(BytesIO(data), start, end))

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
        if self.size > start and not self.append(_SEAL):
            return None
        return self.read(start, self.size)

    def read_on(self, start: int, end: int) -> Iterator[Record]:
        """Answer the records between the ends of two, also those behind a damaged one.

        Raises:
            OSError: The file cannot be read.
        """
        # Not os.fdopen: eventlet's closes the descriptor.
        with open(self._descriptor, "rb", closefd=False) as file:
            yield from read_on(file, start, end)

    def remove(self) -> bool:
        """Delete the file, and let it go. Return whether it is gone."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            return False
        finally:
            self.close()
        return True

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

    def append(self, body: bytes, count: int, at: float) -> bool:
        """Keep an item. Return whether it is kept.

        Args:
            body: As it was packed.
            count: How many messages it holds; none is a stop.
            at: When it was submitted, in seconds since the epoch.
        """
        record = make_record(body, count, at)
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
            if file.size == start or not file.append(_SEAL):
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


def make_record(body: bytes, count: int, at: float) -> bytes:
    """Answer the bytes of a record."""
    return _HEAD.pack(len(body), zlib.crc32(body, count), count, at) + body


_SEAL: Final = make_record(b"", 0, 0.0)


def read_records(file: BinaryIO, start: int, end: int) -> Iterator[Record]:
    """Answer the whole records, up to the first that is not.

    Args:
        file: Stands where they begin.
        start: Where in the journal that is: the end of a record.
        end: Where they end at most.

    Raises:
        OSError: The file cannot be read.
    """
    while start + _HEAD.size <= end:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return
        length, checksum, count, at = _HEAD.unpack(head)
        start += _HEAD.size + length
        body = file.read(length) if start <= end else b""
        if len(body) < length or zlib.crc32(body, count) != checksum:
            return
        yield Record(start, count, at, body)


def read_on(file: BinaryIO, start: int, end: int) -> Iterator[Record]:
    """Answer the whole records, also those behind one that is damaged.

    Args:
        file: A journal.
        start: The end of a record.
        end: Where they end at most.

    Raises:
        OSError: The file cannot be read.
    """
    while start < end:
        file.seek(start)
        for record in read_records(file, start, end):
            start = record.end
            yield record
        file.seek(start)
        found = _find_record(file.read(end - start))
        if found is None:  # the end, or a torn one, which was never kept
            return
        start += found


def _find_record(rest: bytes) -> int | None:
    """Answer where the first whole record begins behind a damaged one."""
    # No body looks like one: JSON has no control character, so that four bytes are a huge length.
    for place in range(1, len(rest) - _HEAD.size):
        length, checksum, count, _ = _HEAD.unpack_from(rest, place)
        body = place + _HEAD.size
        is_inside = 0 < length <= len(rest) - body
        if is_inside and zlib.crc32(rest[body : body + length], count) == checksum:
            return place
    return None


def gather(name: str, records: Iterable[Record]) -> list[Group]:
    """Answer what is put together: what is sealed, in parts that are not too large.

    Args:
        name: Of the file.
        records: From the end of a group to a seal.
    """
    groups: list[Group] = []
    gathered: list[Record] = []
    size = 0
    for record in records:
        if record.body:
            gathered.append(record)
            size += len(record.body)
        if gathered and (not record.body or size >= GROUP_BYTES):
            ticket = make_ticket(name, gathered[-1])
            groups.append(Group(ticket, gathered, record.end))
            gathered, size = [], 0
        elif groups and not record.body:
            groups[-1] = groups[-1]._replace(end=record.end)
    return groups


def make_ticket(name: str, record: Record) -> Ticket:
    """Answer what the outbox knows a group by that ends with a record of a file."""
    source, before = _read_name(name)
    return Ticket(source, before + record.end)


def _read_name(name: str) -> tuple[str, int]:
    """Answer the source of a file, and where in it the file begins."""
    source, _, rest = name.partition(".")
    start = rest.partition(".")[0]
    return source, int(start) if start.isdigit() else 0
