"""Make the files of an outbox, private and its owner's; tell one file from another of its name."""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from mp_asgi.errors import OutboxUnavailable

LOGS: Final = ("-wal", "-shm")
"""What SQLite puts beside a file, behind its name."""

Identity = tuple[int, int]
"""Device and inode of a file: a name is not a file."""


def identify(path: Path) -> Identity:
    """Answer which file has the name now."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return found.st_dev, found.st_ino


def create(path: Path, beside: Path) -> None:
    """Make sure that the file is there, private, and of whoever the outbox belongs to.

    A file that is there is not opened: closing it would end this process's locks on it
    (sqlite.org/howtocorrupt.html section 2.2). SQLite gives -wal and -shm the same mode and owner.

    Args:
        path: Of the file.
        beside: The outbox. An operator who is root makes files of the outbox's owner, or of its
            directory's while there is none, so that the app can use them.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        _make_private(path)
    else:
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            owned = (beside if beside != path and beside.exists() else path.parent).stat()
            os.chown(path, owned.st_uid, owned.st_gid)


def _make_private(path: Path) -> None:
    """Take from others what a copy, a restored backup or another program lets them read.

    Raises:
        OutboxUnavailable: It is no file.
    """
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise OutboxUnavailable(
            f"{path} is a symbolic link. Name the file that it leads to in MP_ASGI_OUTBOX."
        )
    if not stat.S_ISREG(mode):
        raise OutboxUnavailable(f"{path} is no file. Name one in MP_ASGI_OUTBOX.")
    for name in (path, *(Path(f"{path}{suffix}") for suffix in LOGS)):
        with contextlib.suppress(OSError):  # not there, or another's
            if name.lstat().st_mode & 0o077:
                name.chmod(0o600)
