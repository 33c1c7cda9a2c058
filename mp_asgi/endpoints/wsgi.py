"""Open the WSGI door to the endpoints. The same functions as in `asgi.py`, in the same order."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from mp_asgi.tracker import get_tracker

from .message import ReadHeader, Request
from .mount import Mount

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mp_asgi.settings import Settings


def mount_wsgi(app: WSGIApplication, settings: Settings) -> WSGIApplication:
    """Answer the endpoints, and hand everything else to the app as it is.

    Args:
        app: What our middleware wraps.
        settings: `mount` and `gpc_since` switch the endpoints on.

    Returns:
        The app itself where both are empty.

    Raises:
        SettingsError: A text of `notice` is missing or wrong.
    """
    mount = Mount(settings)
    if mount.is_empty:
        return app

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if mount.owns(_read_path(environ)):
            return _serve(mount, environ, start_response)
        return app(environ, start_response)

    return serve


def _serve(
    mount: Mount, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    path = _read_path(environ)
    body = _read_body(environ, mount.max_body_bytes(path))
    query = environ.get("QUERY_STRING", "").encode("latin-1", "replace")
    request = Request(environ["REQUEST_METHOD"], path, _header_reader(environ), body, query)
    response = mount.answer(request, get_tracker(environ))
    headers = [(name.decode(), value.decode("latin-1")) for name, value in response.headers]
    start_response(f"{response.status} {HTTPStatus(response.status).phrase}", headers)
    return [response.body()]


def _read_path(environ: WSGIEnvironment) -> str:
    """Answer the path inside the app: where it is mounted itself is in `SCRIPT_NAME`."""
    path: str = environ.get("PATH_INFO", "")
    return path


def _read_body(environ: WSGIEnvironment, max_bytes: int) -> bytes:
    """Read no more than is needed to see that it is too much; empty if the client hung up."""
    if environ["REQUEST_METHOD"] != "POST":
        return b""
    length = environ.get("CONTENT_LENGTH") or ""
    is_told = length.isascii() and length.isdigit()
    # Without a length, only a server that ends the input itself may be read from.
    if not is_told and not environ.get("wsgi.input_terminated"):
        return b""
    wanted = min(int(length[:_MAX_DIGITS]), max_bytes + 1) if is_told else max_bytes + 1
    try:
        body: bytes = environ["wsgi.input"].read(wanted)
    except Exception:  # noqa: BLE001  # servers raise what they like when the client is gone
        return b""
    return body if len(body) == wanted or not is_told else b""


_MAX_DIGITS = 9  # more is too long, whatever they say; int() refuses thousands of them


def _header_reader(environ: WSGIEnvironment) -> ReadHeader:
    def read_header(name: bytes) -> bytes | None:
        key = name.decode().upper().replace("-", "_")
        value = environ.get(key if key == "CONTENT_TYPE" else f"HTTP_{key}")
        return None if value is None else value.encode("latin-1", "replace")

    return read_header
