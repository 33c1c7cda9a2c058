"""A site with the endpoints: both middlewares around the mount, and a browser that keeps cookies."""

import io
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any
from wsgiref.validate import validator

import anyio

from mp_asgi import Analytics, MixpanelMiddleware, MixpanelWSGIMiddleware, get_tracker
from mp_asgi.delivery.transport import Transport
from mp_asgi.endpoints import mount_asgi, mount_wsgi
from tests.probes import http_scope, serve
from tests.support import TIMEOUT, RecordingTransport, make_settings

MOUNT = "/_mp"
CONSENT = "/_mp/consent"
HOST = "shop.test"
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
GPC = {"sec-gpc": "1"}


@dataclass(frozen=True)
class Answer:
    """What a browser gets."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for found, value in self.headers if found == name]
        return ", ".join(values) if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Track one event and say which path was asked for."""
    get_tracker(scope).track("Seen")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"yes")]})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    get_tracker(environ).track("Seen")
    start_response("200 OK", [("X-App", "yes"), ("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode("latin-1")]


class Site:
    """One site behind one door, and one visitor's browser.

    Args:
        kind: `asgi` or `wsgi`.
        clock: Of the analytics.
        transport: Where it delivers to, if not to a transport that records.
        settings: Of the analytics.
    """

    def __init__(
        self,
        kind: str,
        *,
        clock: Callable[[], float] = time.time,
        transport: Transport | None = None,
        **settings: Any,
    ) -> None:
        self.transport = RecordingTransport()
        self.settings = make_settings(**{"mount": MOUNT, **settings})
        self.analytics = Analytics(
            self.settings, transport=lambda: transport or self.transport, clock=clock
        )
        self.cookies: dict[str, str] = {}
        self._ask = self._ask_asgi if kind == "asgi" else self._ask_wsgi
        shared = {"analytics": self.analytics}
        self.asgi = MixpanelMiddleware(mount_asgi(asgi_app, self.settings), **shared)
        mounted = mount_wsgi(wsgi_app, self.settings)
        self.wsgi = validator(MixpanelWSGIMiddleware(mounted, **shared))

    def ask(
        self, method: str = "GET", path: str = CONSENT, headers: Any = (), body: bytes = b""
    ) -> Answer:
        """Ask as the visitor's browser would, with its cookies; the path may have a query."""
        sent = dict(headers)
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = self._ask(method, path, sent, body)
        self._keep(answer)
        return answer

    def post(self, headers: Any = (), **decision: Any) -> Answer:
        """Post a decision as a page of the site does."""
        body = json.dumps(decision).encode()
        return self.ask("POST", headers={**JSON, **SAME_ORIGIN, **dict(headers)}, body=body)

    def seen(self) -> int:
        """Open a page of the app; answer how many events have ever arrived at Mixpanel."""
        self.ask(path="/")
        assert self.analytics.flush(TIMEOUT)
        return len(self.transport.messages)

    def _keep(self, answer: Answer) -> None:
        for name, value in answer.headers:
            if name == "set-cookie":
                ((key, cookie),) = SimpleCookie(value).items()
                if cookie["max-age"] == "0":
                    self.cookies.pop(key, None)
                else:
                    self.cookies[key] = cookie.value

    def _ask_asgi(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        path, _, query = path.partition("?")
        scope = http_scope(*raw, method=method, path=path, query_string=query.encode("latin-1"))
        message = {"type": "http.request", "body": body, "more_body": False}
        wire = anyio.run(serve, self.asgi, scope, message)
        start, *parts = wire.sent
        text = [(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in start["headers"]]
        return Answer(start["status"], text, b"".join(part["body"] for part in parts))

    def _ask_wsgi(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        started: list[Any] = []
        path, _, query = path.partition("?")
        environ = wsgi_environ(method, path, headers, body, QUERY_STRING=query)

        def start_response(status: str, found: Any, exc_info: Any = None, /) -> Any:
            started[:] = [int(status[:3]), [(name.lower(), value) for name, value in found]]
            return started.append

        parts = self.wsgi(environ, start_response)
        text = b"".join(parts)
        parts.close()
        return Answer(started[0], started[1], text)


@contextmanager
def open_site(kind: str, **settings: Any) -> Any:
    site = Site(kind, **settings)
    yield site
    site.analytics.close(TIMEOUT)


def wsgi_environ(
    method: str, path: str, headers: dict[str, str], body: bytes = b"", **values: Any
) -> dict[str, Any]:
    named = {f"HTTP_{name.upper().replace('-', '_')}": text for name, text in headers.items()}
    if content_type := named.pop("HTTP_CONTENT_TYPE", None):
        named["CONTENT_TYPE"] = content_type
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": HOST,
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": HOST,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **named,
        **values,
    }
