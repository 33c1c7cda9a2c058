"""Tell what a process of uWSGI can do: it may have no threads, and may end without a word."""

import re
from importlib import import_module
from types import ModuleType
from typing import Final

_BY_DEFAULT: Final = (2, 0, 27)  # from this version on, `enable-threads` is on
_NO: Final = frozenset({"false", "off", "no", "0"})  # as uWSGI reads an option


def ends_silently() -> bool:
    """Answer whether this process is uWSGI's, which handles SIGTERM itself.

    One that serves at that moment ends without `atexit`, and with whatever only memory has.
    """
    return _find_server() is not None


def has_threads() -> bool:
    """Answer whether a thread that is started here runs.

    Without them uWSGI never gives the interpreter's lock away, so that a thread starts and stands
    still (traps.md section 2.1).
    """
    server = _find_server()
    if server is None:
        return True
    known = {_read(name): _read(value).lower() for name, value in server.opt.items()}
    if "threads" in known:
        return True
    if "enable-threads" in known:
        return known["enable-threads"] not in _NO
    return _read_version(getattr(server, "version", b"")) >= _BY_DEFAULT


def _find_server() -> ModuleType | None:
    """Answer uWSGI's module, which is there inside of the server only."""
    try:
        server = import_module("uwsgi")
    except ImportError:
        return None
    return server if isinstance(getattr(server, "opt", None), dict) else None


def _read(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _read_version(value: object) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", _read(value))[:3]))
