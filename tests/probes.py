"""Stand on the server's side of both doors: every message and every call is seen as it leaves."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mp_asgi import Analytics
from tests.support import TIMEOUT, RecordingTransport, make_settings

GRANTED = (b"x-mp-consent", b"granted")
OURS = frozenset({b"set-cookie", b"vary", b"cache-control"})
START: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain")],
}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}


class Project:
    """One Mixpanel project: an assembly, and what it was sent."""

    def __init__(self, *, gate: threading.Event | None = None, **settings: Any) -> None:
        self.transport = RecordingTransport(gate=gate)
        self.analytics = Analytics(make_settings(**settings), transport=lambda: self.transport)

    @property
    def accepted(self) -> int:
        """How many messages were handed over so far, delivered or not."""
        return self.analytics.stats().accepted

    def deliver(self) -> list[dict[str, Any]]:
        """Send everything that was handed over; answer all that ever arrived."""
        assert self.analytics.flush(TIMEOUT)
        return self.transport.messages

    def delivered_names(self) -> list[str]:
        """Send everything that was handed over; answer the names of all events."""
        return [message["event"] for message in self.deliver()]


@contextmanager
def open_project(*, gate: threading.Event | None = None, **settings: Any) -> Iterator[Project]:
    """Answer a project that is closed afterwards; with a gate, its sending waits for it."""
    project = Project(gate=gate, **settings)
    yield project
    project.analytics.close(TIMEOUT)


class Wire:
    """The server's end of an ASGI conversation: says what it is given, keeps what it hears."""

    def __init__(self, *incoming: dict[str, Any]) -> None:
        self.incoming = deque(incoming)
        self.sent: list[Any] = []
        self.is_over = False

    async def receive(self) -> Any:
        if self.incoming:
            return self.incoming.popleft()
        assert not self.is_over, "the app goes on receiving"
        self.is_over = True
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.sent]


async def serve(app: Any, scope: dict[str, Any], *incoming: dict[str, Any]) -> Wire:
    """Call an ASGI app once, as a server does."""
    wire = Wire(*incoming)
    await app(scope, wire.receive, wire.send)
    return wire


def http_scope(*headers: tuple[bytes, bytes], **values: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"shop.test"), *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
        "state": {},
        **values,
    }


def websocket_scope(*headers: tuple[bytes, bytes], **values: Any) -> dict[str, Any]:
    scope = http_scope(*headers, **{"type": "websocket", "scheme": "ws", **values})
    del scope["method"]
    return {**scope, "subprotocols": []}


def cookie_header(headers: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Answer the Cookie header of a browser that just got these response headers."""
    cookies = [value.split(b";")[0] for name, value in headers if name.lower() == b"set-cookie"]
    return b"cookie", b"; ".join(cookies)


def cookie_names(headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    """Answer the names of the cookies that these response headers set."""
    _, value = cookie_header(headers)
    return [item.partition("=")[0] for item in value.decode().split("; ") if item]


def without_ours(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Answer the headers that we may not change."""
    return [item for item in headers if item[0].lower() not in OURS]
