"""Say where a project's files are on this host, and whether they can be kept there."""

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from mp_asgi.errors import OutboxUnavailable
from mp_asgi.settings import Settings

MOUNTS: Final = Path("/proc/self/mounts")

#: Several hosts may share files there; a write-ahead log needs one host (sqlite.org/wal.html).
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
    }
)

_REMEDY: Final = "Name a directory of this user on a disk of this host in MP_ASGI_STATE_DIRECTORY."


@dataclass(frozen=True, slots=True)
class Location:
    """The files of one project.

    Attributes:
        variable: What named their directory.
        outbox: The SQLite file of the outbox.
        spool: The SQLite file of what Redis could not take.
        journals: The directory of the processes' journals.
    """

    variable: str
    outbox: Path
    spool: Path
    journals: Path

    def prepare(self) -> None:
        """Make the directory of the files, and see whether they can be kept there.

        Raises:
            OutboxUnavailable: They cannot; the message has the variable, the directory, the reason
                and the remedy.
        """
        directory = self.outbox.parent
        if problem := _find_problem(directory):
            raise OutboxUnavailable(f"{directory} (from {self.variable}) {problem}. {_REMEDY}")


def find_location(settings: Settings, environ: Mapping[str, str] | None = None) -> Location:
    """Answer where the files of a project are. Touches nothing.

    Args:
        settings: `outbox` and `state_directory` win over the environment.
        environ: Variables by name; the process's own if None.

    Raises:
        OutboxUnavailable: Nothing names a directory.
    """
    name = project_name(settings)
    if path := settings.outbox_place.path:
        outbox = Path(path)
        variable, directory = "MP_ASGI_OUTBOX", outbox.parent
    else:
        variable, directory = _find_directory(settings, os.environ if environ is None else environ)
        outbox = directory / f"{name}.sqlite3"
    return Location(
        variable, outbox, directory / f"{name}.spool.sqlite3", directory / f"{name}.journals"
    )


def journal_directory(settings: Settings, environ: Mapping[str, str] | None = None) -> Path:
    """Answer where the journals of a project are; raises as `find_location` does."""
    return find_location(settings, environ).journals


def owner_name(settings: Settings) -> str:
    """Answer 16 hexadecimal digits that no other token has."""
    return _digest(settings.token)


def project_name(settings: Settings) -> str:
    """Answer 16 hexadecimal digits that no other token has, and none with another host.

    Mixpanel's own hosts are one: who mends the region goes on with what waits, stops included. A
    stand-in, or a proxy, shares nothing with them.
    """
    url = settings.api_url
    if f".{urlsplit(url).hostname}".endswith(".mixpanel.com"):
        return owner_name(settings)
    return _digest(f"{settings.token}\n{url}")


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _find_directory(settings: Settings, environ: Mapping[str, str]) -> tuple[str, Path]:
    """Answer the state directory and what named it, the most explicit first."""
    if settings.state_directory:
        return "MP_ASGI_STATE_DIRECTORY", Path(settings.state_directory)
    # systemd may name several, all absolute (systemd.exec(5)); the first is the service's own.
    if (own := Path(environ.get("STATE_DIRECTORY", "").split(":")[0])).is_absolute():
        return "STATE_DIRECTORY", own
    # "If a relative path is encountered, consider it invalid" (XDG base directory specification).
    if (home := Path(environ.get("XDG_STATE_HOME", ""))).is_absolute():
        return "XDG_STATE_HOME", home / "mp-asgi"
    if directory := environ.get("LOCALAPPDATA", ""):  # Windows
        return "LOCALAPPDATA", Path(directory, "mp-asgi")
    home = Path(environ.get("HOME", ""))
    if not home.is_absolute():
        raise OutboxUnavailable(f"The state directory is unknown: HOME is not set. {_REMEDY}")
    # Services are often given one that is not there; root could make it.
    if not home.is_dir():
        raise OutboxUnavailable(f"{home} (from HOME) does not exist. {_REMEDY}")
    return "HOME", home / ".local" / "state" / "mp-asgi"


def _find_problem(directory: Path) -> str:
    """Make the directory and try it. Answer why it cannot be used; nothing if it can."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if problem := _find_danger(directory.stat()):
            return problem
        file_system = _file_system_of(directory)
        if file_system in NETWORK_FILE_SYSTEMS:
            return f"is on a network file system ({file_system}), where SQLite cannot be shared"
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".probe-"):
            return ""
    except OSError as error:
        return f"cannot be used: {error.strerror}{_tell_owner(directory)}"


def _tell_owner(directory: Path) -> str:
    """Answer whose it is, if that may be why: a server that drops root's rights made it before."""
    with contextlib.suppress(OSError):
        owner = directory.stat().st_uid
        if hasattr(os, "geteuid") and owner != os.geteuid():
            return f" (it belongs to user {owner}; this process is {os.geteuid()})"
    return ""


def _find_danger(found: os.stat_result) -> str:
    """Answer who else could read or replace what is kept there."""
    if not hasattr(os, "geteuid"):
        return ""  # on Windows modes and owners say nothing
    if found.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    # Volumes of containers belong to root, and to a group of the process.
    if found.st_uid not in {0, os.geteuid()}:
        return f"belongs to another user ({found.st_uid}; this process is {os.geteuid()})"
    return ""


def _file_system_of(directory: Path) -> str:
    """Answer the type of the file system, as the kernel calls it; empty where nobody tells."""
    try:
        lines = MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    path = directory.resolve()
    best, found = -1, ""
    for line in lines:
        _, mounted, file_system, *_ = line.split(" ")
        point = Path(_unescape(mounted))
        # Of two at the same point the later one hides the earlier.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, found = len(point.parts), file_system
    return found


def _unescape(text: str) -> str:
    r"""Read a path as the kernel writes it: a blank is `\040` (proc_pid_mounts(5), fstab(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
