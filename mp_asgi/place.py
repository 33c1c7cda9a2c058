"""Say which page a request asked for: what neither its headers nor its cookies tell.

The doors take it raw, because every request that tracks pays for it; whoever needs it parses it.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

_PATH_CHARACTERS: Final = "/!$&'()*+,;=:@~-._"  # RFC 3986 section 3.3

RawPlace = tuple[str, bytes | str, bytes | str]
"""Method, path and query as a door found them. A path of bytes is percent-encoded, one of text is
WSGI's: decoded, and every character a byte (PEP 3333).
"""


class Place(NamedTuple):
    """Where a request went.

    Attributes:
        method: In capitals; `GET` for a websocket.
        path: Percent-encoded, as a browser shows it; what the app is mounted under included.
        query: Raw, without its question mark.
    """

    method: str
    path: str
    query: str


NOWHERE: Final = Place("GET", "/", "")


def read_asgi_place(scope: Mapping[str, Any]) -> RawPlace:
    """Read it from an ASGI scope."""
    path = scope.get("raw_path") or quote(scope.get("path", ""), _PATH_CHARACTERS).encode()
    return scope.get("method", "GET"), path, scope.get("query_string", b"")


def read_wsgi_place(environ: Mapping[str, Any]) -> RawPlace:
    """Read it from a WSGI environ."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return environ.get("REQUEST_METHOD", "GET"), path, environ.get("QUERY_STRING", "")


def parse_place(raw: RawPlace) -> Place:
    """Answer what a door found."""
    if isinstance(raw, Place):
        return raw
    method, path, query = raw
    if isinstance(path, bytes):
        text = path.decode("latin-1").partition("?")[0]
    else:
        text = quote(_read_bytes(path), _PATH_CHARACTERS)
    return Place(method, text, query.decode("latin-1") if isinstance(query, bytes) else query)


def normalise_path(path: str) -> str:
    """Answer the one spelling of a path that all its spellings share: `/%61b` and `/ab` are one."""
    return quote(unquote_to_bytes(_read_bytes(path)), _PATH_CHARACTERS)


def _read_bytes(path: str) -> bytes:
    """Answer the bytes of a WSGI path; Django writes the environ's anew, as text."""
    try:
        raw = path.encode("latin-1")
        raw.decode("utf-8")
    except UnicodeError:
        return path.encode("utf-8", "replace")
    return raw
