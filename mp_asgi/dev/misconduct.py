"""Treat one client badly: answer late, by drops, in part or not at all. Which fault is next is
decided in `faults.py`.
"""

import asyncio
import socket
import struct

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .faults import Fault, Misbehaviour

#: Where `run_in_thread` puts the connection of a request: ASGI has no way to end one.
CONNECTION = "mp_asgi.connection"

_HALF_HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: applicat"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close without a word, and throw away what came


async def misbehave(order: Misbehaviour, request: Request, response: Response) -> Response:
    """Answer what the client gets instead of `response`; it may be the same, but later."""
    match order.fault:
        case Fault.DROP | Fault.REFUSE:
            return _CutOff()
        case Fault.CUT_HEADERS:
            return _Ending(_HALF_HEADERS)
        case Fault.HANG_UP:
            return _Ending(b"")
        case Fault.RESET:
            return _Reset()
        case Fault.DRIP:
            return _Drip(response, order.seconds)
        case Fault.HANG:
            await _wait_for_disconnect(request.receive)
        case Fault.SLOW:
            # A client that gives up must not keep the server from stopping.
            with anyio.move_on_after(order.seconds):
                await _wait_for_disconnect(request.receive)
    return response


class _CutOff(Response):
    """Promise more than is sent, so that the server has to close the connection."""

    # typing.override needs Python 3.12.
    async def __call__(  # type: ignore[explicit-override]
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"64")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"code":', "more_body": True})


class _Ending(Response):
    """Write some raw bytes, and end the connection."""

    def __init__(self, last: bytes) -> None:
        super().__init__()
        self._last = last

    # typing.override needs Python 3.12.
    async def __call__(  # type: ignore[explicit-override]
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        connection: asyncio.Transport = scope[CONNECTION]
        connection.write(self._last)
        connection.close()
        await _wait_for_disconnect(receive)


class _Reset(Response):
    """Reset the connection."""

    # typing.override needs Python 3.12.
    async def __call__(  # type: ignore[explicit-override]
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        connection: asyncio.Transport = scope[CONNECTION]
        peer = connection.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.abort()
        await _wait_for_disconnect(receive)


class _Drip(Response):
    """Send a body byte by byte, over so many seconds."""

    def __init__(self, whole: Response, seconds: float) -> None:
        super().__init__()
        self._whole = whole
        self._seconds = seconds

    # typing.override needs Python 3.12.
    async def __call__(  # type: ignore[explicit-override]
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers, body = self._whole.raw_headers, bytes(self._whole.body)
        status = self._whole.status_code
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for byte in body:
            await anyio.sleep(self._seconds / len(body))
            await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
        await send({"type": "http.response.body"})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
