"""Open the WSGI door: translate environ and start_response; the exchange decides.

The same functions as in `asgi.py`, in the same order.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .analytics import Analytics, choose_analytics
from .endpoints import mount_wsgi
from .exchange import Phase
from .head import HeadReader
from .pages import see_page
from .place import read_wsgi_place
from .tracker import SCOPE_KEY, Seed, Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextvars import ContextVar
    from types import TracebackType
    from typing import Unpack
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from .exchange import Exchange
    from .head import RequestHead
    from .response import Headers
    from .settings import Overrides, Settings

    ExceptionInfo = (
        tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
    )

_OPEN = Phase.OPEN
_STARTED = Phase.STARTED
_CLOSED = Phase.CLOSED
_FINAL = 200

Answer = TypeVar("Answer")


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
        **overrides: Unpack[Overrides],
    ) -> None:
        self.analytics = choose_analytics(analytics, settings, overrides)
        self.app = mount_wsgi(app, self.analytics.settings)
        self._core = self.analytics.core
        self._clock = self._core.clock
        self._environ_keys = self._core.heads.environ_keys
        self._keeps_all = self._core.heads.keeps_all
        self._watches_starts = self._core.sees_pages or self._core.has_late_answers
        flushes = self._core.settings.flush_on_response
        self._deliver = self.analytics.deliver if flushes else None

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
        watches_starts, view = self._watches_starts, ""

        def start_with_cookies(
            status: str,
            headers: list[tuple[str, str]],
            exc_info: ExceptionInfo | None = None,
            /,
        ) -> Callable[[bytes], object]:
            nonlocal view
            if watches_starts:
                is_page = exc_info is None  # else what was seen has failed
                view = _see(tracker, environ, status, headers) if is_page else _unsee(tracker, view)
                _leave_seam(tracker, environ)
            tracker.phase = _STARTED
            if tracker.exchange is not None:
                headers = _start(tracker.exchange, environ, status, headers)
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        try:
            body = self._current_app(tracker)(environ, start_with_cookies)
        except BaseException:
            self._fail(tracker, environ)
            raise
        return _close_after(body, tracker, environ, self.analytics.requests, self._deliver)

    def _fail(self, tracker: Tracker, environ: WSGIEnvironment) -> None:
        """Finish a request without a body; where nothing runs after it, wait for delivery."""
        _close(tracker, environ)
        if self._deliver is not None:
            self._deliver()

    def _current_app(self, tracker: Tracker) -> WSGIApplication:
        """Answer the app, called as the running request where somebody wants to know which is."""
        requests, app = self.analytics.requests, self.app
        return app if requests is None else partial(_call_as_current, requests, tracker, app)

    def _serve_nested(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Pass through below ourselves; another project's tracker holds for the inner call."""
        outer: Tracker = environ[SCOPE_KEY]
        if outer.phase is _CLOSED:
            # A retry outside of us, with the environ of a request that is over.
            del environ[SCOPE_KEY]
            return self(environ, start_response)
        if outer.core.settings.token == self._core.settings.token:
            return self._current_app(outer)(environ, start_response)
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


def _call_as_current(
    requests: ContextVar[Tracker | None],
    tracker: Tracker,
    call: Callable[..., Answer],
    *arguments: Any,
) -> Answer:
    """Call the app where whoever asks which request runs finds this one."""
    token = requests.set(tracker)
    try:
        return call(*arguments)
    finally:
        requests.reset(token)


def _see(
    tracker: Tracker, environ: WSGIEnvironment, status: str, headers: list[tuple[str, str]]
) -> str:
    """Track a page view, before the response's cookies are made. Answer its insert ID, if any."""
    start = _read_start(status, headers) if tracker.core.sees_pages else None
    if start is None:
        return ""
    code, raw = start
    return see_page(tracker, environ, environ.get("REQUEST_METHOD", "GET"), code, raw)


def _unsee(tracker: Tracker, view: str) -> str:
    """Take a page view back, if there is one. Answer that there is none any more."""
    if view:
        tracker.open().take_back(view)
    return ""


def _leave_seam(tracker: Tracker, environ: WSGIEnvironment) -> None:
    """Let an exchange that opens after the response's start ask the app at once."""
    if tracker.core.has_late_answers:
        tracker.late_seam = partial(_begin_late, environ)


def _begin_late(environ: WSGIEnvironment, exchange: Exchange) -> None:
    exchange.begin_response(environ, read_wsgi_place(environ))


def _start(
    exchange: Exchange, environ: WSGIEnvironment, status: str, headers: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Run the seam at the response's start. Answer the headers with our cookies."""
    if not exchange.begin_response(environ, read_wsgi_place(environ)):
        return headers
    start = _read_start(status, headers)
    if start is None:
        return headers
    code, raw = start
    written = exchange.write_headers(code or _FINAL, raw)
    if written is None:
        return headers
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in written]


def _read_start(status: str, headers: list[tuple[str, str]]) -> tuple[int, Headers] | None:
    """Answer the status, 0 if it is no number, and the headers as bytes.

    None where the server will refuse them, as it would without us.
    """
    try:
        code = status[:3]
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        return int(code) if code.isascii() and code.isdigit() else 0, raw
    except (AttributeError, TypeError, ValueError):
        return None


def _end(tracker: Tracker, environ: WSGIEnvironment) -> None:
    """Hand over: the body is complete, though nobody may ever close it."""
    exchange = tracker.exchange
    if exchange is None or tracker.phase is _OPEN:
        return
    if not exchange.is_settled:
        _begin_late(environ, exchange)  # it was first used after the start
    exchange.end_response()


def _close(tracker: Tracker, environ: WSGIEnvironment) -> None:
    tracker.phase = _CLOSED
    tracker.late_seam = None
    exchange = tracker.exchange
    if exchange is not None:
        exchange.close(environ, None if exchange.has_begun else read_wsgi_place(environ))


def _close_after(
    body: Iterable[bytes],
    tracker: Tracker,
    environ: WSGIEnvironment,
    requests: ContextVar[Tracker | None] | None,
    deliver: Callable[[], None] | None,
) -> Iterable[bytes]:
    """Hand over when the body is complete, without changing what the server sees of it.

    Where a request ends with its delivery, that is after the response: the server must tell.
    """
    # Servers look at the length and the type of these; the app has done its work.
    if deliver is None and (body.__class__ is list or _is_complete(body, tracker, environ)):
        _close(tracker, environ)
        return body
    kind = _SizedBody if hasattr(body, "__len__") else _Body
    return kind(body, tracker, environ, requests, deliver)


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

    __slots__ = ("_body", "_deliver", "_environ", "_requests", "_tracker", "outer")

    def __init__(
        self,
        body: Iterable[bytes],
        tracker: Tracker,
        environ: WSGIEnvironment,
        requests: ContextVar[Tracker | None] | None,
        deliver: Callable[[], None] | None,
    ) -> None:
        self._body = body
        self._deliver = deliver
        self._tracker = tracker
        self._environ = environ
        self._requests = requests
        self.outer: Tracker | None = None

    def __iter__(self) -> Iterator[bytes]:
        if self._requests is None:
            yield from self._body
        else:
            yield from self._iterate_as_current()
        # Not every caller closes: Flask's test client does not.
        _end(self._tracker, self._environ)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                self._call(close)
        finally:
            _close(self._tracker, self._environ)
            if self.outer is not None:
                self._environ[SCOPE_KEY] = self.outer
            if self._deliver is not None:
                self._deliver()

    def _iterate_as_current(self) -> Iterator[bytes]:
        parts = self._call(iter, self._body)
        while True:
            try:
                part: bytes = self._call(next, parts)
            except StopIteration:
                return
            yield part

    def _call(self, call: Callable[..., Answer], *arguments: Any) -> Answer:
        """Call what is the app's; as the running request where somebody wants to know which is."""
        if self._requests is None:
            return call(*arguments)
        return _call_as_current(self._requests, self._tracker, call, *arguments)


class _SizedBody(_Body):
    """One of a known number of parts: of one part, servers tell the length."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]  # whoever makes one has looked
