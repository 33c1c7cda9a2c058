"""Show on standard error how far a long run is: a bar on a terminal, a line now and then elsewhere.

Standard output stays the command's own.
"""

import sys
import time
from collections.abc import Callable
from typing import Final, Protocol, TextIO

SECONDS_BETWEEN_LINES: Final = 5.0


class Progress(Protocol):
    """How far a run is."""

    def show(self, title: str, done: int, total: int) -> None:
        """Say what is going on, how much of it is done, and how much there is."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class Lines:
    """Progress for a log: a line for each beginning and end, and one every few seconds between.

    Args:
        stream: Where to.
        clock: Seconds that never run backwards.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._title = ""
        self._next_at = 0.0

    def show(self, title: str, done: int, total: int) -> None:
        """Print a line if one is due."""
        now = self._clock()
        if title == self._title and done < total and now < self._next_at:
            return
        self._title = title
        self._next_at = now + SECONDS_BETWEEN_LINES
        print(f"{title}: {done} of {total}", file=self._stream, flush=True)

    def close(self) -> None:
        """Leave nothing behind: lines are whole."""


class Bar:
    """Progress for a person: one bar for each title, by rich.

    Args:
        stream: A terminal.

    Raises:
        ImportError: rich is missing.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415  # an extra
        from rich.progress import Progress as Bars  # noqa: PLC0415  # an extra

        self._bars = Bars(console=Console(file=stream))
        self._tasks: dict[str, int] = {}

    def show(self, title: str, done: int, total: int) -> None:
        """Draw the bar of this title."""
        if title not in self._tasks:
            self._bars.start()
            self._tasks[title] = self._bars.add_task(title, total=total)
        task = self._bars.tasks[self._tasks[title]].id
        self._bars.update(task, completed=done, total=total)

    def close(self) -> None:
        """Stop drawing; the bars stay as they are."""
        self._bars.stop()


def make_progress(
    stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Answer a bar if the stream is a terminal and rich is there, else lines.

    Args:
        stream: Standard error if None.
        clock: Seconds that never run backwards.
    """
    target: TextIO = sys.stderr if stream is None else stream
    if not target.isatty():
        return Lines(target, clock)
    try:
        return Bar(target)
    except ImportError:
        return Lines(target, clock)
