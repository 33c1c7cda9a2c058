"""Open the ASGI door to the endpoints. The same functions as in `wsgi.py`, in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mp_asgi.tracker import get_tracker

from .message import ReadHeader, Request
from .mount import Mount

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from mp_asgi.settings import Settings


def mount_asgi(app: ASGIApp, settings: Settings) -> ASGIApp:
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

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and mount.owns(_read_path(scope)):
            await _serve(mount, scope, receive, send)
        else:
            await app(scope, receive, send)

    return serve


async def _serve(mount: Mount, scope: Scope, receive: Receive, send: Send) -> None:
    path = _read_path(scope)
    body = await _read_body(scope, receive, mount.max_body_bytes(path))
    query = scope.get("query_string") or b""
    request = Request(scope["method"], path, _header_reader(scope), body, query)
    tracker = get_tracker(scope)
    if mount.waits(path):
        import anyio.to_thread  # noqa: PLC0415  # only operators need it

        response = await anyio.to_thread.run_sync(mount.answer, request, tracker)
    else:
        response = mount.answer(request, tracker)
    headers = [*response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body()})


def _read_path(scope: Scope) -> str:
    """Answer the path inside the app: where it is mounted itself, servers put that before it."""
    path: str = scope["path"]
    return path.removeprefix((scope.get("root_path") or "").rstrip("/"))


async def _read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """Read no more than is needed to see that it is too much; empty if the client hung up."""
    body, is_more = bytearray(), scope["method"] == "POST"
    while is_more and len(body) <= max_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""  # half a decision is none; who is outside of us still gets a response
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    return bytes(body)


def _header_reader(scope: Scope) -> ReadHeader:
    def read_header(name: bytes) -> bytes | None:
        values = [value for found, value in scope["headers"] if found == name]
        return b",".join(values) if values else None

    return read_header
