"""Note how a serving process is told of its end, in the file that NOTE_ENDS names."""

import atexit
import os
from functools import cache, partial
from pathlib import Path


def note(end: str) -> None:
    if path := os.environ.get("NOTE_ENDS"):
        with Path(path).open("a") as notes:
            notes.write(f"{end}\n")


@cache
def note_exit() -> None:
    """Note the end of the interpreter; only where requests are served, not in a server's master."""
    atexit.register(partial(note, "atexit"))
