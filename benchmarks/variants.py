"""Make what is measured: an app behind a middleware, and fresh requests for it.

Every request is new down to its bytes, as a server makes it: no header has its hash cached, and
none is the same object as one before.
"""

import base64
import itertools
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import itsdangerous
from starlette.middleware.sessions import SessionMiddleware

from mp_asgi import MixpanelMiddleware, MixpanelWSGIMiddleware, Settings
from mp_asgi.analytics import Analytics
from mp_asgi.consent.choice import Choice
from mp_asgi.delivery.transport import Reply
from mp_asgi.events import Endpoint
from mp_asgi.identity import mint

TOKEN = "benchmark"
SECRET_KEY = "k" * 32
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain")],
}
BODY = {"type": "http.response.body", "body": b"x"}
HEADERS = [
    (b"host", b"shop.example"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0"),
    (b"accept", b"text/html,application/xhtml+xml"),
    (b"accept-language", b"en-GB,en;q=0.9"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
]
OTHERS = b"theme=dark; _ga=GA1.1.123.456; "

Serve = Callable[[Any], None]
"""Serve one request of a door: a scope or an environ."""


class Cookies(Protocol):
    """Answers the Cookie header of the next request."""

    def __call__(self) -> bytes: ...


@dataclass(frozen=True)
class Variant:
    """One line of the table.

    Attributes:
        name: What happens in a request.
        serve: Runs one request to its end.
        make: Makes a fresh request.
        settle: Runs after each round, outside the timed part.
    """

    name: str
    serve: Serve
    make: Callable[[], Any]
    settle: Callable[[], object] = bool


class Submissions:
    """A worker that only takes the hand-over: what a request pays, without delivery."""

    def submit(self, item: object, count: int = 0, *, is_identity: bool = False) -> None:
        """Take it, and let it go."""


class Accepting:
    """A Mixpanel that confirms everything at once."""

    def send(self, endpoint: Endpoint, body: bytes) -> Reply:
        """Answer success for any batch."""
        if endpoint is not Endpoint.EVENTS:
            return Reply(200, b'{"status": 1, "error": null}', {})
        number = len(json.loads(body))
        return Reply(200, b'{"code":200,"status":"OK","num_records_imported":%d}' % number, {})

    def close(self) -> None:
        """Nothing is open."""


def make_analytics(
    readers: Sequence[str] = (),
    clock: Callable[[], float] = time.time,
    *,
    directory: str = "",
) -> Analytics:
    """Answer an assembly that delivers from a directory; without one its worker is the stub above,
    and nothing is kept anywhere.
    """
    settings = Settings(
        token=TOKEN,
        secret_keys=[SECRET_KEY],
        flush_interval=0.05,
        consent_readers=readers,
        outbox="sqlite" if directory else "memory",
        state_directory=directory,
    )
    analytics = Analytics(settings, transport=Accepting, clock=clock)
    if not directory:
        analytics._worker = Submissions()  # type: ignore[assignment]
    return analytics


# --- cookies ---------------------------------------------------------------------------------


class CookieJar:
    """The Cookie headers of the variants, signed by one assembly.

    Args:
        analytics: Signs them.
        source: Who heard the choice that our consent cookie carries.
        others: More cookies of every visitor who has an ID, as they stand in a header.
    """

    def __init__(self, analytics: Analytics, *, source: str = "own", others: bytes = b"") -> None:
        self._core = analytics.core
        self._source = source
        self._others = OTHERS + others + b"; " * bool(others)
        self._numbers = itertools.count()
        self._session = b"session=" + itsdangerous.TimestampSigner(SECRET_KEY).sign(
            base64.b64encode(json.dumps({"a": 1}).encode())
        )
        self._consent = self._sign_consent(0)
        self._id = self._sign_id()

    def seen(self) -> bytes:
        """The same header every time."""
        return self._join(self._id, self._consent)

    def moved(self) -> bytes:
        """Another cookie changed; our own two are the same."""
        return self.seen() + b"; n=%d" % next(self._numbers)

    def stranger(self) -> bytes:
        """Both of our cookies were never seen."""
        return self._join(self._sign_id(), self._sign_consent(next(self._numbers)))

    def consented(self) -> bytes:
        """Consent, and no ID yet."""
        return OTHERS + self._consent

    def without(self) -> bytes:
        """Neither of ours."""
        return OTHERS[:-2]

    def _join(self, own_id: bytes, consent: bytes) -> bytes:
        return self._others + own_id + b"; " + consent + b"; " + self._session

    def _sign_id(self) -> bytes:
        value = mint(os.urandom, self._core.clock()).render(keeps_user=True)
        return b"mp_id=" + self._core.id_signer.sign(value)

    def _sign_consent(self, age: int) -> bytes:
        at = int(self._core.clock()) - age % 1_000_000
        choice = Choice(True, "", at, 1, self._source)
        return b"mp_consent=" + self._core.consent_signer.sign(choice.render())


# --- ASGI ------------------------------------------------------------------------------------


def make_scope(cookie: bytes) -> dict[str, Any]:
    """Answer a scope as uvicorn makes it; its header names and values are new objects."""
    headers = [(_renew(name), _renew(value)) for name, value in HEADERS]
    headers.append((_renew(b"cookie"), _renew(cookie)))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": headers,
        "state": {},
    }


class NoopASGI:
    """The smallest pure ASGI middleware: the baseline."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on."""
        await self.app(scope, receive, send)


def asgi_variant(
    name: str, analytics: Analytics, events: int, cookies: Cookies, **more: Any
) -> Variant:
    """Answer a line of our middleware around an app that tracks so many events."""
    app = MixpanelMiddleware(_tracking_app(events), analytics=analytics)
    return Variant(name, _asgi_server(app), lambda: make_scope(cookies()), **more)


def asgi_variants(analytics: Analytics) -> list[Variant]:
    """Answer the lines of the ASGI table, the baseline first."""
    jar = CookieJar(analytics)

    def session(app: Any) -> Any:
        return SessionMiddleware(app, secret_key=SECRET_KEY)

    def variant(name: str, app: Any, cookies: Cookies) -> Variant:
        return Variant(name, _asgi_server(app), lambda: make_scope(cookies()))

    return [
        variant("no-op", NoopASGI(_plain_app), jar.seen),
        variant("session read", session(_reading_app), jar.seen),
        variant("session write", session(_writing_app), jar.without),
        asgi_variant("untouched", analytics, 0, jar.seen),
        asgi_variant("event, seen", analytics, 1, jar.seen),
        asgi_variant("event, moved", analytics, 1, jar.moved),
        asgi_variant("event, stranger", analytics, 1, jar.stranger),
        asgi_variant("11 events, seen", analytics, 11, jar.seen),
        asgi_variant("mint", analytics, 1, jar.consented),
    ]


async def _plain_app(scope: Any, receive: Any, send: Any) -> None:
    await send(dict(START))
    await send(dict(BODY))


async def _reading_app(scope: Any, receive: Any, send: Any) -> None:
    scope["session"]["a"]
    await send(dict(START))
    await send(dict(BODY))


async def _writing_app(scope: Any, receive: Any, send: Any) -> None:
    scope["session"]["a"] = 1
    await send(dict(START))
    await send(dict(BODY))


def _tracking_app(events: int) -> Callable[..., Awaitable[None]]:
    if not events:
        return _plain_app

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tracker = scope["mp_asgi.tracker"]
        for _ in range(events):
            tracker.track("Event", {"plan": "pro", "n": 1})
        await send(dict(START))
        await send(dict(BODY))

    return app


def _asgi_server(app: Any) -> Serve:
    async def receive() -> None: ...

    async def send(message: Any) -> None: ...

    def serve(scope: Any) -> None:
        # Nothing above waits, so a loop would only add its own microseconds.
        try:
            app(scope, receive, send).send(None)
        except StopIteration:
            return
        raise RuntimeError("an app of this benchmark awaited something")

    return serve


# --- WSGI ------------------------------------------------------------------------------------


def make_environ(cookie: bytes) -> dict[str, Any]:
    """Answer an environ as gunicorn makes it; header names and values are new objects."""
    environ: dict[str, Any] = {
        "wsgi.errors": None,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input": None,
        "wsgi.url_scheme": "http",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "RAW_URI": "/",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "PATH_INFO": "/",
        "SCRIPT_NAME": "",
    }
    for name, value in [*HEADERS, (b"cookie", cookie)]:
        key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        environ[key] = value.decode("latin-1")
    return environ


class NoopWSGI:
    """The smallest WSGI middleware: the baseline."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Pass on."""
        return self.app(environ, start_response)


def wsgi_variant(
    name: str, analytics: Analytics, events: int, cookies: Cookies, **more: Any
) -> Variant:
    """Answer a line of our middleware around an app that tracks so many events."""
    app = MixpanelWSGIMiddleware(_tracking_wsgi_app(events), analytics=analytics)
    return Variant(name, _wsgi_server(app), lambda: make_environ(cookies()), **more)


def wsgi_variants(analytics: Analytics) -> list[Variant]:
    """Answer the same lines for WSGI; there is no SessionMiddleware."""
    jar = CookieJar(analytics)
    noop = _wsgi_server(NoopWSGI(_plain_wsgi_app))
    return [
        Variant("no-op", noop, lambda: make_environ(jar.seen())),
        wsgi_variant("untouched", analytics, 0, jar.seen),
        wsgi_variant("event, seen", analytics, 1, jar.seen),
        wsgi_variant("event, moved", analytics, 1, jar.moved),
        wsgi_variant("event, stranger", analytics, 1, jar.stranger),
        wsgi_variant("11 events, seen", analytics, 11, jar.seen),
        wsgi_variant("mint", analytics, 1, jar.consented),
    ]


def _plain_wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x"]


def _tracking_wsgi_app(events: int) -> Callable[..., Iterable[bytes]]:
    if not events:
        return _plain_wsgi_app

    def app(environ: Any, start_response: Any) -> list[bytes]:
        tracker = environ["mp_asgi.tracker"]
        for _ in range(events):
            tracker.track("Event", {"plan": "pro", "n": 1})
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    return app


def _wsgi_server(app: Any) -> Serve:
    def start_response(status: str, headers: Any, exc_info: Any = None) -> None: ...

    def serve(environ: Any) -> None:
        for _ in app(environ, start_response):
            pass

    return serve


def make_variants(delivering: Analytics | None = None) -> tuple[list[Variant], list[Variant]]:
    """Answer the lines of both doors; "real submit" only with what delivers."""
    analytics = make_analytics()
    asgi, wsgi = asgi_variants(analytics), wsgi_variants(analytics)
    if delivering is not None:
        name, cookies, settle = "real submit", CookieJar(analytics).seen, delivering.flush
        asgi.append(asgi_variant(name, delivering, 1, cookies, settle=settle))
        wsgi.append(wsgi_variant(name, delivering, 1, cookies, settle=settle))
    return asgi, wsgi


def make_requests(variant: Variant, number: int) -> Iterator[Any]:
    """Answer fresh requests."""
    return (variant.make() for _ in range(number))


def _renew(text: bytes) -> bytes:
    return bytes(bytearray(text))
