"""Tell whether this process may have threads: uWSGI's may not, unless it is told so."""

import re
from importlib import import_module
from typing import Final

_BY_DEFAULT: Final = (2, 0, 27)  # from this version on, `enable-threads` is on
_NO: Final = frozenset({"false", "off", "no", "0"})  # as uWSGI reads an option


def has_threads() -> bool:
    """Answer whether a thread that is started here runs.

    Without them uWSGI never gives the interpreter's lock away, so that a thread starts and stands
    still (traps.md section 2.1).
    """
    try:
        server = import_module("uwsgi")  # there is one inside of the server only
    except ImportError:
        return True
    options = getattr(server, "opt", None)
    if not isinstance(options, dict):
        return True
    known = {_read(name): _read(value).lower() for name, value in options.items()}
    if "threads" in known:
        return True
    if "enable-threads" in known:
        return known["enable-threads"] not in _NO
    return _read_version(getattr(server, "version", b"")) >= _BY_DEFAULT


def _read(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _read_version(value: object) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", _read(value))[:3]))
