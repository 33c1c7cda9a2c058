"""Make standard input, output and error what a command can rely on, before it does anything.

What is said on standard error is for whoever listens: that nobody does, or that the disk of a log
is full, ends nothing. Standard output is the command's result: that it cannot be written is told,
and that nobody reads it ends a command which only reads.
"""

import io
import os
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_UNSHOWN: Final = "backslashreplace"  # a terminal without the letters of an ID shows their numbers
_STDERR: Final = 2


def prepare_streams() -> None:
    """Stand in for what is closed, and let standard error fail in silence."""
    _open_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_UNSHOWN)
    # A program that put another one in its place knows what it does.
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        sys.stderr = _make_patient(sys.stderr, OSError)


def outlive_reader() -> None:
    """Go on though nobody reads standard output: what has begun shall end."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout is sys.__stdout__:
        sys.stdout = _make_patient(sys.stdout, BrokenPipeError)


def discard_output() -> None:
    """Let the interpreter not try again at its end what cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class _Patient(io.RawIOBase):
    """A file into which everything seems to be written.

    Args:
        file: Where it goes.
        ignored: What is no reason to fail.
    """

    def __init__(self, file: io.RawIOBase, ignored: type[OSError]) -> None:
        self._file = file
        self._ignored = ignored

    # typing.override needs Python 3.12.
    def write(self, data: "ReadableBuffer", /) -> int | None:  # type: ignore[explicit-override]
        size = memoryview(data).nbytes
        try:
            written = self._file.write(data)
        except self._ignored:
            return size
        # None if a pipe is full that must not block: BlockingIOError for who buffers.
        is_ignored = written is None and issubclass(BlockingIOError, self._ignored)
        return size if is_ignored else written

    def writable(self) -> bool:  # type: ignore[explicit-override]
        return True

    def isatty(self) -> bool:  # type: ignore[explicit-override]
        return self._file.isatty()

    def fileno(self) -> int:  # type: ignore[explicit-override]
        return self._file.fileno()


def _make_patient(stream: io.TextIOWrapper, ignored: type[OSError]) -> io.TextIOWrapper:
    # Unbuffered, it has no other layer.
    file: Any = getattr(stream.buffer, "raw", stream.buffer)
    writer = io.BufferedWriter(_Patient(file, ignored))
    return io.TextIOWrapper(writer, stream.encoding, _UNSHOWN, line_buffering=True)


def _open_closed() -> None:
    """Stand in for what is closed: else the outbox's file may get its descriptor."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = sys.stdout or io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(_STDERR, "w", closefd=False))
