"""Open the WSGI door: translate environ and start_response; the exchange decides.

The same functions as in `asgi.py`, in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .analytics import Analytics, choose_analytics
from .endpoints import mount_wsgi
from .exchange import Phase
from .head import HeadReader
from .tracker import SCOPE_KEY, Seed, Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from .exchange import Exchange
    from .head import RequestHead
    from .settings import Settings

    ExceptionInfo = (
        tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
    )

_OPEN = Phase.OPEN
_STARTED = Phase.STARTED
_CLOSED = Phase.CLOSED


class MixpanelWSGIMiddleware:
    """Give every request of a WSGI app a tracker.

    Without arguments it is configured by the environment.

    Args:
        app: Any WSGI application.
        settings: Instead of the environment.
        analytics: Share one assembly between several middlewares, instead of settings.
        overrides: Fields of `Settings`, instead of a whole one.

    Raises:
        SettingsError: The settings cannot be used; the server does not start.
    """

    def __init__(
        self,
        app: WSGIApplication,
        /,
        settings: Settings | None = None,
        *,
        analytics: Analytics | None = None,
        **overrides: Any,
    ) -> None:
        self.analytics = choose_analytics(analytics, settings, overrides)
        self.app = mount_wsgi(app, self.analytics.settings)
        self._core = self.analytics.core
        self._clock = self._core.clock
        self._environ_keys = self._core.heads.environ_keys
        self._keeps_all = self._core.heads.keeps_all

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if SCOPE_KEY in environ:
            return self._serve_nested(environ, start_response)
        read_head: Callable[..., RequestHead]
        fields: Any
        if self._keeps_all:
            read_head = HeadReader.read_whole_wsgi
            fields = {name: environ[name] for name in environ if name.startswith("HTTP_")}
        else:
            read_head = HeadReader.read_wsgi
            fields = [*map(environ.get, self._environ_keys)]
        scheme, address = environ.get("wsgi.url_scheme"), environ.get("REMOTE_ADDR")
        seed: Seed = (self._core, read_head, self._clock(), scheme, address, fields)
        tracker = environ[SCOPE_KEY] = Tracker(seed)

        def start_with_cookies(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: ExceptionInfo | None = None,
            /,
        ) -> Callable[[bytes], object]:
            tracker.phase = _STARTED
            if tracker.exchange is not None:
                headers = _start(tracker.exchange, environ, status, headers)
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        try:
            body = self.app(environ, start_with_cookies)
        except BaseException:
            _close(tracker, environ)
            raise
        return _close_after(body, tracker, environ)

    def _serve_nested(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Pass through below ourselves; another project's tracker holds for the inner call."""
        outer: Tracker = environ[SCOPE_KEY]
        if outer.phase is _CLOSED:
            # A retry outside of us, with the environ of a request that is over.
            del environ[SCOPE_KEY]
            return self(environ, start_response)
        if outer.core.settings == self._core.settings:
            return self.app(environ, start_response)
        try:
            del environ[SCOPE_KEY]
            body = self(environ, start_response)
        except BaseException:
            environ[SCOPE_KEY] = outer
            raise
        if isinstance(body, _Body):
            body.outer = outer  # its generator still runs for the inner project
        else:
            environ[SCOPE_KEY] = outer
        return body


def _start(
    exchange: Exchange, environ: WSGIEnvironment, status: str, headers: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Run the seam at the response's start. Answer the headers with our cookies."""
    if not exchange.begin_response(environ):
        return headers
    code = int(status[:3]) if status[:3].isdigit() else 200
    try:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    except UnicodeEncodeError:
        return headers  # the server will refuse these headers, as it would without us
    written = exchange.write_headers(code, raw)
    if written is None:
        return headers
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in written]


def _end(tracker: Tracker, environ: WSGIEnvironment) -> None:
    """Hand over: the body is complete, though nobody may ever close it."""
    exchange = tracker.exchange
    if exchange is None or tracker.phase is _OPEN:
        return
    if not exchange.is_settled:
        exchange.begin_response(environ)  # it was first used after the start
    exchange.end_response()


def _close(tracker: Tracker, environ: WSGIEnvironment) -> None:
    tracker.phase = _CLOSED
    if tracker.exchange is not None:
        tracker.exchange.close(environ)


def _close_after(
    body: Iterable[bytes], tracker: Tracker, environ: WSGIEnvironment
) -> Iterable[bytes]:
    """Hand over when the body is complete, without changing what the server sees of it."""
    # Servers look at the length and the type of these; the app has done its work.
    if body.__class__ is list or _is_complete(body, tracker, environ):
        _close(tracker, environ)
        return body
    return _Body(body, tracker, environ)


def _is_complete(body: Iterable[bytes], tracker: Tracker, environ: WSGIEnvironment) -> bool:
    if tracker.phase is _OPEN:
        return False  # it calls start_response when it is iterated
    if hasattr(body, "__len__"):
        return True
    file_wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(file_wrapper, type):
        return isinstance(body, file_wrapper)
    # uWSGI's wrapper is a function that answers the file itself.
    return file_wrapper is not None and hasattr(body, "read")


class _Body:
    """A body whose end hands over, and whose `close` finishes the request."""

    __slots__ = ("_body", "_environ", "_tracker", "outer")

    def __init__(self, body: Iterable[bytes], tracker: Tracker, environ: WSGIEnvironment) -> None:
        self._body = body
        self._tracker = tracker
        self._environ = environ
        self.outer: Tracker | None = None

    def __iter__(self) -> Iterator[bytes]:
        yield from self._body
        # Not every caller closes: Flask's test client does not.
        _end(self._tracker, self._environ)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            _close(self._tracker, self._environ)
            if self.outer is not None:
                self._environ[SCOPE_KEY] = self.outer
