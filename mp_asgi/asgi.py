"""Open the ASGI door: translate scopes and messages; the exchange decides.

A pure ASGI middleware on the request's own task. The same functions as in `wsgi.py`, in the
same order.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from .analytics import Analytics, choose_analytics
from .endpoints import mount_asgi
from .errors import SettingsError
from .exchange import Phase
from .head import RequestHead
from .pages import see_page
from .place import read_asgi_place
from .tracker import SCOPE_KEY, Tracker

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextvars import ContextVar
    from typing import Unpack

    from anyio import CapacityLimiter
    from anyio.lowlevel import RunVar
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .exchange import Exchange
    from .settings import Overrides, Settings

logger = logging.getLogger("mp_asgi")

STATE_KEY = "mixpanel"
"""Name in `scope["state"]`, so that Starlette and FastAPI show `request.state.mixpanel`."""

_SERVED = frozenset({"http", "websocket"})
_STARTS = frozenset(
    {
        "http.response.start",
        "websocket.accept",
        "websocket.close",
        "websocket.http.response.start",
    }
)
_SOCKET_STARTS = frozenset({"websocket.accept", "websocket.close"})
_ASIDES = frozenset({"http.response.debug", "http.response.early_hint", "http.response.push"})
_OPEN = Phase.OPEN
_STARTED = Phase.STARTED
_CLOSED = Phase.CLOSED
_FINAL = 200
_ANNOUNCING = frozenset(range(100, _FINAL))  # such a start announces the response, it starts none


class MixpanelMiddleware:
    """Give every HTTP and websocket request of an ASGI app a tracker.

    Without arguments it is configured by the environment.

    Args:
        app: Any ASGI 3 application.
        settings: Instead of the environment.
        analytics: Share one assembly between several middlewares, instead of settings.
        overrides: Fields of `Settings`, instead of a whole one.

    Unusable settings raise where a server can act on it: `lifespan.startup` is answered with
    `startup.failed`, and without lifespan every request raises the `SettingsError`.
    """

    def __init__(
        self,
        app: ASGIApp,
        /,
        settings: Settings | None = None,
        *,
        analytics: Analytics | None = None,
        **overrides: Unpack[Overrides],
    ) -> None:
        self.app = app
        self.error: SettingsError | None = None
        self._served: frozenset[str] = frozenset()  # nothing, as long as the settings are wrong
        try:
            self.analytics = choose_analytics(analytics, settings, overrides)
            self.app = mount_asgi(app, self.analytics.settings)
        except SettingsError as error:
            self.error = error
            return
        self._core = self.analytics.core
        self._clock = self._core.clock
        self._watches_starts = self._core.sees_pages or self._core.has_late_answers
        self._flushes = self._core.settings.flush_on_response
        if self._flushes:
            self._limiters = _make_limiters()
        self._served = _SERVED

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] not in self._served or SCOPE_KEY in scope:
            await self._serve_other(scope, receive, send)
            return
        headers = scope.get("headers")
        headers = headers if headers.__class__ is list else _list_headers(scope)
        scheme, client = scope.get("scheme"), scope.get("client")
        seed = (self._core, RequestHead, self._clock(), scheme, client, headers)
        tracker = scope[SCOPE_KEY] = Tracker(seed)
        state = scope.get("state")
        if state is None:
            scope["state"] = {STATE_KEY: tracker}
        else:
            state[STATE_KEY] = tracker

        watches_starts = self._watches_starts

        # A plain function: it hands on the awaitable instead of awaiting it.
        def send_with_cookies(message: Message) -> Awaitable[None]:
            if watches_starts:
                message = _see(tracker, scope, message)
                _leave_seam(tracker, scope, message)
            if tracker.exchange is not None:
                message = _follow(tracker, tracker.exchange, scope, message)
            elif message["type"] in _STARTS and message.get("status") not in _ANNOUNCING:
                tracker.phase = _STARTED
            return send(message)

        try:
            await self._current_app()(scope, receive, send_with_cookies)
        finally:
            # Also when a hang-up cancels this task: its events still count. Never awaits.
            _close(tracker, scope)
            if self._flushes and self.analytics.is_delivery_due:
                await _deliver(self.analytics, self._limiters)

    def _current_app(self) -> ASGIApp:
        """Answer the app, called as the running request where somebody wants to know which is."""
        requests = self.analytics.requests
        return self.app if requests is None else partial(_call_as_current, requests, self.app)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what is no request of ours: lifespan, unknown scopes, and what is wrapped twice."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(scope, receive, send)
        elif scope["type"] not in _SERVED:
            await self.app(scope, receive, send)
        elif self.error is not None:
            # A new one each time: what is raised again and again keeps every traceback.
            raise SettingsError(self.error.problems)
        else:
            await self._serve_nested(scope, receive, send)

    async def _serve_nested(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass through below ourselves; another project's tracker holds for the inner call."""
        outer: Tracker = scope[SCOPE_KEY]
        if outer.phase is _CLOSED:
            # A retry outside of us, with the scope of a request that is over.
            del scope[SCOPE_KEY]
            await self(scope, receive, send)
            return
        if outer.core.settings.token == self._core.settings.token:
            await self._current_app()(scope, receive, send)
            return
        del scope[SCOPE_KEY]
        try:
            await self(scope, receive, send)
        finally:
            scope[SCOPE_KEY] = scope["state"][STATE_KEY] = outer

    # --- lifespan -----------------------------------------------------------------------------

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.error is not None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(self.error)})
            return
        has_begun = False

        async def receive_and_note() -> Message:
            nonlocal has_begun
            has_begun = True
            return self._note_startup(await receive())

        async def send_after_drain(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                await self._drain()
            await send(message)

        try:
            await self.app(scope, receive_and_note, send_after_drain)
        except Exception as error:
            if has_begun:
                await self._drain()  # a shutdown that fails is one, too
                raise
            # The app does not speak lifespan; we still want to hear of the shutdown.
            if not _is_refusal(error):
                logger.warning(
                    "The app raised %r at its lifespan scope; taken as 'no lifespan'.", error
                )
            await self._answer_lifespan(receive, send)

    async def _answer_lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = self._note_startup(await receive())
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._drain()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _note_startup(self, message: Message) -> Message:
        """Let what an earlier process left leave at once. Answer the message."""
        if message["type"] == "lifespan.startup":
            self.analytics.resume()
        return message

    async def _drain(self) -> None:
        import anyio.to_thread  # noqa: PLC0415  # only a shutdown needs it

        await anyio.to_thread.run_sync(self.analytics.close)


def _list_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Make a list of what may be any iterable, or none; the app must still find what we read."""
    headers: list[tuple[bytes, bytes]] = list(scope.get("headers") or ())
    scope["headers"] = headers
    return headers


async def _call_as_current(
    requests: ContextVar[Tracker | None], app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Call the app where whoever asks which request runs finds this one."""
    token = requests.set(scope[SCOPE_KEY])
    try:
        await app(scope, receive, send)
    finally:
        requests.reset(token)


def _see(tracker: Tracker, scope: Scope, message: Message) -> Message:
    """Track a page view, before the response's cookies are made. Answer the message."""
    status = message.get("status")
    if message["type"] != "http.response.start" or not isinstance(status, int):
        return message
    if not tracker.core.sees_pages:
        return message
    # They may be an iterator, and the server still has to read them.
    headers = list(message.get("headers") or ())
    see_page(tracker, scope, scope.get("method", "GET"), status, headers)
    return {**message, "headers": headers}


def _leave_seam(tracker: Tracker, scope: Scope, message: Message) -> None:
    """Let an exchange that opens after the response's start ask the app at once."""
    if message["type"] in _STARTS and tracker.core.has_late_answers:
        tracker.late_seam = partial(_begin_late, scope)


def _begin_late(scope: Scope, exchange: Exchange) -> None:
    exchange.begin_response(scope, read_asgi_place(scope))


def _follow(tracker: Tracker, exchange: Exchange, scope: Scope, message: Message) -> Message:
    """Drive the exchange by what the app sends. Answer the message, with our cookies at the
    response's start.
    """
    kind = message["type"]
    if kind in _STARTS:
        if message.get("status") in _ANNOUNCING:
            return message
        tracker.phase = _STARTED
        has_cookies = exchange.begin_response(scope, read_asgi_place(scope))
        if kind in _SOCKET_STARTS:
            exchange.end_response()
        return _with_cookies(exchange, message) if has_cookies else message
    if tracker.phase is not _OPEN and kind not in _ASIDES:
        if not exchange.is_settled:
            _begin_late(scope, exchange)  # it was first used after the start
        if not message.get("more_body", False):
            exchange.end_response()
    return message


def _close(tracker: Tracker, scope: Scope) -> None:
    tracker.phase = _CLOSED
    tracker.late_seam = None
    exchange = tracker.exchange
    if exchange is not None:
        exchange.close(scope, None if exchange.has_begun else read_asgi_place(scope))


def _make_limiters() -> RunVar[CapacityLimiter | None]:
    """Make a place for one limiter an event loop. The app's threads are not ours to fill."""
    from anyio.lowlevel import RunVar  # noqa: PLC0415  # few hosts need it

    return RunVar("mp_asgi.flush", None)


async def _deliver(analytics: Analytics, limiters: RunVar[CapacityLimiter | None]) -> None:
    """Wait for delivery inside of the call, for a host on which nothing runs after it."""
    import anyio.to_thread  # noqa: PLC0415  # few hosts need it

    try:
        with anyio.CancelScope(shield=True):  # a client that hangs up ends no delivery
            if (limiter := limiters.get()) is None:
                limiter = anyio.CapacityLimiter(1)  # who waits for another's flush needs no thread
                limiters.set(limiter)
            await anyio.to_thread.run_sync(analytics.deliver, limiter=limiter)
    except Exception as error:  # noqa: BLE001  # no thread, or no loop we know; the events wait
        analytics.count("flush_failed")
        why = type(error).__name__
        analytics.warn("flush", f"no delivery before a response's end ({why})")


def _with_cookies(exchange: Exchange, message: Message) -> Message:
    if message["type"] == "websocket.close":
        return message
    # It may be an iterator, and then we are the one who gets to read it.
    headers = list(message.get("headers") or ())
    status = message.get("status", None if message["type"] == "websocket.accept" else _FINAL)
    if status is not None and not isinstance(status, int):
        status = _FINAL  # the server's matter, not ours
    written = exchange.write_headers(status, headers)
    return {**message, "headers": headers if written is None else written}


def _is_refusal(error: Exception) -> bool:
    """Whether this is how apps say that they know no lifespan, and no failure of theirs."""
    if isinstance(error, (AssertionError, NotImplementedError)):
        return True
    text = str(error).lower()
    return "lifespan" in text or "scope type" in text or "scope['type']" in text
